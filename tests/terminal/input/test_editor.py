"""The user's editor: which one is opened, what comes back, and that nothing written is lost."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.terminal.input.editor import edit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the editors of the tests are shell scripts")


class Editors:
    """A folder of editors, and one for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.temporary = folder / "bin", folder / "tmp"
        self.programs.mkdir()
        self.temporary.mkdir()

    def add(self, name: str, script: str) -> str:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def environ(self, **variables: str) -> dict[str, str]:
        return {"PATH": f"{self.programs}:/usr/bin:/bin", **variables}

    def edit(self, text: str, script: str) -> str | None:
        return edit(text, environ=self.environ(EDITOR=shlex.quote(self.add("ed it", script))))

    @property
    def left(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture
def editors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Editors]:
    editors = Editors(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(editors.temporary))
    yield editors


@pytest.mark.parametrize(
    ("text", "script", "result"),
    [
        ("a 你好", "", "a 你好"),
        ("a\n", "", "a"),
        ("", 'printf "x\\n\\ny\\n\\n" >"$1"', "x\n\ny\n"),
        ("a", 'printf b >>"$1"', "a\nb"),
        ("a", 'printf "\\357\\273\\277b\\r\\nc\\r\\n" >"$1"', "b\nc"),
        ("a", ': >"$1"', ""),
        ("a", 'printf c >"$1.new"; mv "$1.new" "$1"', "c"),
        ("a", 'printf b >"$1"; exit 1', None),
        ("\ud83d", "", "?"),
    ],
)
def test_what_was_saved_comes_back_and_nothing_stays(
    editors: Editors, text: str, script: str, result: str | None
) -> None:
    assert editors.edit(text, script) == result
    assert not list(editors.temporary.iterdir())


def test_the_file_is_private_and_named_for_its_kind(editors: Editors) -> None:
    editors.add("look", 'ls -ld "$1" "${1%/*}" >"$OUT"')
    out = editors.programs / "out"
    edit("x", suffix=".py", environ=editors.environ(EDITOR="look", OUT=str(out)))
    folder, file = sorted(out.read_text().splitlines(), key=len)
    assert folder.startswith("drwx------") and file.startswith("-rw-------") and file.endswith(".py")


def test_visual_comes_before_editor_and_both_may_have_arguments(editors: Editors) -> None:
    editors.add("say", 'eval last=\\${$#}; echo "$@" >"$last"')
    said = edit("", environ=editors.environ(VISUAL="say -w 'a b'", EDITOR="false"))
    assert said is not None and said.startswith("-w a b /")
    said = edit("", environ=editors.environ(VISUAL="""sh -c 'echo "$1" >"$2"' "" '"quoted"'"""))
    assert said == '"quoted"'
    said = edit("", environ=editors.environ(VISUAL=" ", EDITOR="say -x"))
    assert said is not None and said.startswith("-x /")


def test_an_editor_with_a_space_in_its_path_needs_no_quotes(editors: Editors) -> None:
    path = editors.add("my ed", 'echo y >"$1"')
    assert edit("", environ=editors.environ(EDITOR=path)) == "y"


def test_without_a_choice_the_usual_editors_are_looked_for(editors: Editors) -> None:
    with pytest.raises(UsageError, match="no editor was found; set EDITOR"):
        edit("", environ={"PATH": str(editors.programs)})
    for name in ("vi", "nano", "editor"):
        editors.add(name, f'echo {name} >"$1"')
        assert edit("", environ={"PATH": str(editors.programs)}) == name


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-editor -w", "no-such-editor cannot be started: No such file .*; set EDITOR"),
        ("/", "/ cannot be started: Permission denied"),
        ("vi 'a", "EDITOR is not a command: vi 'a"),
    ],
)
def test_an_editor_that_cannot_be_started_is_told(editors: Editors, command: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        edit("text", environ=editors.environ(EDITOR=command))
    assert not list(editors.temporary.iterdir())


@pytest.mark.parametrize(
    ("script", "words", "kept"),
    [
        ('printf work >"$1"; kill -9 $$', "the editor was killed", b"work"),
        ('printf work >"$1"; exit 143', "the editor was killed", b"work"),
        ('printf work >"$1.swp"; kill -9 $$', "the editor was killed", b"work"),
        ('printf "\\377" >"$1"', "not UTF-8 text", b"\xff"),
    ],
)
def test_work_that_cannot_be_brought_home_is_kept_and_told(
    editors: Editors, script: str, words: str, kept: bytes
) -> None:
    with pytest.raises(QwenchatError, match=rf"{words}; what it saved is in \S+") as caught:
        editors.edit("text", script)
    folder = Path(caught.value.hint.rsplit(" ", 1)[1])
    assert kept in {path.read_bytes() for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("script", ["kill -9 $$", 'rm "$1"'])
def test_where_there_is_no_work_nothing_is_kept(editors: Editors, script: str) -> None:
    with pytest.raises(QwenchatError) as caught:
        editors.edit("text", script)
    assert not caught.value.hint and not editors.left


def test_ctrl_c_is_the_editors(editors: Editors) -> None:
    before = signal.getsignal(signal.SIGINT)
    script = f"""
        kill -INT $PPID
        exec {shlex.quote(sys.executable)} -c 'import signal, sys
default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
open(sys.argv[1], "w").write(str(default))' "$1"
    """
    assert editors.edit("", script) == "True"
    assert signal.getsignal(signal.SIGINT) is before


def test_it_works_from_another_thread(editors: Editors) -> None:
    results: list[str | None] = []
    thread = threading.Thread(target=lambda: results.append(editors.edit("a", "")))
    thread.start()
    thread.join()
    assert results == ["a"]


def test_a_program_that_is_told_to_end_takes_the_editor_along_and_keeps_its_work(editors: Editors) -> None:
    save = """trap 'printf saved >"$1"; kill $!; exit 1' TERM"""
    editor = editors.add("slow", f'printf work >"$1"; {save}; kill -TERM $PPID; sleep 20 & wait $!')
    program = (
        "import signal, sys, tempfile\n"
        "from qwenchat.terminal.input.editor import edit\n"
        f"tempfile.tempdir = {str(editors.temporary)!r}\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "edit('text')\n"
    )
    environ = {**os.environ, "EDITOR": editor, "VISUAL": ""}
    assert subprocess.run([sys.executable, "-c", program], env=environ, check=False).returncode == 143
    assert [path.read_bytes() for path in editors.left] == [b"saved"]
