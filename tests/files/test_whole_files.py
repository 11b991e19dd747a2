"""Every file that is written is whole or not there: who writes one at all, and what a full disk leaves."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

from qwenchat import paths
from qwenchat.chat.conversation import Conversation
from qwenchat.cli import app, debug_log
from qwenchat.errors import SessionError
from qwenchat.sessions.store import SessionStore
from qwenchat.settings import sources
from tests.callers import PACKAGE, callers, name_of
from tests.chats import user
from tests.disk import Disk

# --- who writes ----------------------------------------------------------------------------------

FOLDER = "in a folder that gets its name when it is whole"
RENAMED = "a temporary file, which gets its name when it is whole"
SCRATCH = "for this run alone"
APPENDED = "grows line by line; what a full disk cuts is the last line"
DEVICE = "no file"
# Every function that opens a file for writing without ``atomic`` or ``textfile``, and why it may.
ALLOWED = {
    "bench.checkpoint._write_json": FOLDER,
    "bench.measure.forget_peak": DEVICE,
    "cli.debug_log.start": APPENDED,
    "engine.cpu.compile.main": SCRATCH,
    "engine.cpu.prepared.write": RENAMED,
    "cli.exit_codes._discard_stdout": DEVICE,
    "tools.guard._let_go": DEVICE,
    "models.builtin.convert._write_json": FOLDER,
    "models.builtin.convert._write_vocabulary": FOLDER,
    "models.builtin.demo._make": FOLDER,
    "models.builtin.demo._sync": "only to flush it, on Windows",
    "models.writing.files.copy_files": FOLDER,
    "models.writing.files._sync": "only to flush it, on Windows",
    "models.writing.files.write_tensors": RENAMED,
    "models.writing.files.write_json": FOLDER,
    "models.quantize.states.States.__init__": SCRATCH,
    "models.builtin.wheel._extract": FOLDER,
    "models.builtin.wheel._run_pip": SCRATCH,
    "server.background.start": APPENDED,
    "sandbox.namespaces._make_target": "an empty file to mount on",
    "sandbox.namespaces._write": DEVICE,
    "terminal.clipboard._write_to_terminal": DEVICE,
    "terminal.input.editor._private_file": SCRATCH,
    "terminal.input.history.TypedLines.store_string": APPENDED,
    "tools.function_child.main": DEVICE,
    "tools.interpreter.Interpreter.put": "a copy for the worker, named anew for each file",
    "tools.mcp._client": DEVICE,
    "tools.worker._Descriptor.__init__": DEVICE,
}
WRITERS = {
    "write_text",
    "write_bytes",
    "NamedTemporaryFile",
    "TemporaryFile",
    "mkstemp",
    "FileHandler",
    "LogFile",
}
OPENERS = {"open", "fdopen"}


def is_write(call: ast.Call) -> bool:
    """Whether a call opens a file for writing, or writes one."""
    name = name_of(call)
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if name in WRITERS:
        ours = owner in ("text", "textfile")
        return (isinstance(call.func, ast.Attribute) and not ours) or name == "LogFile"
    words = [*call.args, *(keyword.value for keyword in call.keywords)]
    modes = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    flags = {node.attr for word in words for node in ast.walk(word) if isinstance(node, ast.Attribute)}
    return name in OPENERS and (
        any(set(mode) <= set("rwxabt+") and set(mode) & set("wxa+") for mode in modes)
        or bool(flags & {"O_WRONLY", "O_RDWR", "O_CREAT"})
    )


def test_a_file_is_written_by_way_of_a_temporary_one() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "atomic.py"]
    writing = callers(modules, is_write)
    # What the sandbox is tried with: written, or not, inside it.
    writing = {name for name in writing if not name.startswith("sandbox.trial.")}
    unknown = sorted(writing - set(ALLOWED))
    assert not unknown, "write it with atomic or textfile, or write down here why not"
    assert sorted(set(ALLOWED) - writing) == [], "these are gone"


# --- a full disk ---------------------------------------------------------------------------------


def test_a_config_that_could_not_be_written_is_not_in_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as full:
        Disk(full, "write", errno.ENOSPC)
        assert app.run(["config", "init"]) == 1
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert list(paths.config_dir().iterdir()) == []
    assert app.run(["config", "init"]) == 0
    assert paths.config_path().read_text(encoding="utf-8") == sources.example_toml()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_log_that_cannot_be_written_ends_with_a_line_and_the_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("a") as full:
        monkeypatch.setattr(debug_log.LogFile, "_open", lambda self: full)
        assert app.run(["--debug", "sessions", "show", "none"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said[:1]] == ["debug log"]
    assert said[1].endswith(".log cannot be written: No space left on device")
    assert [line.partition(":")[0] for line in said[2:]] == ["qwenchat"]


@pytest.mark.parametrize(
    ("error", "advice"), [(errno.ENOSPC, "free some room, or"), (errno.EROFS, "QWENCHAT_HOME names another")]
)
def test_room_is_asked_for_only_where_room_is_the_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, advice: str
) -> None:
    session = SessionStore(tmp_path).create(Conversation(), model="m")
    session.conversation.ask(user("hi"), "2026-01-01T00:00:00+00:00")
    Disk(monkeypatch, "write", error)
    with pytest.raises(SessionError) as caught:
        session.save()
    assert advice in caught.value.hint
    assert ("room" in caught.value.hint) == (error == errno.ENOSPC)
