"""Files of a checkpoint or of the user's: which are opened, how much of them is read, and who opens any."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from qwenchat.errors import CheckpointError, QwenchatError, quoted
from qwenchat.files import json_values
from qwenchat.files.opening import NotAFile, TooLarge, check_file, open_file, read_file, resolved
from tests.callers import PACKAGE, callers, name_of

# --- who opens -----------------------------------------------------------------------------------

# What opens a file by its name, or makes something that does.
OPENERS = {
    *("open", "read_text", "read_bytes", "FileIO", "safe_open", "load_file", "copyfile"),
    *("memmap", "fromfile", "loadtxt", "ZipFile"),
}
SYSTEM = "the system's own, of a fixed name"
SHIPPED = "a file of this package"
WRITES = "a file that is made here"
OWN = "made here just now, in a folder of its own"
CHECKED = "checked by files/opening before"
PIPE = "a pipe, or nothing at all"
SESSION = "a session, by the store, which reads by files/opening"
ALLOWED = {
    "files.atomic.sync_folder": "a folder",
    "files.atomic.write_temporary": WRITES,
    "backends.door.places._address": "a folder, for a path that is short",
    "bench.checkpoint.ensure": SHIPPED,
    "bench.measure.resident_peak": SYSTEM,
    "doctor.machine._driver_version": SYSTEM,
    "engine.cpu.compiled.compile_for": OWN,
    "engine.cpu.compiled.file_name": SHIPPED,
    "engine.cpu.cores._core": SYSTEM,
    "engine.cpu.cores._groups": SYSTEM,
    "engine.cpu.cores._limits": SYSTEM,
    "engine.cpu.cores.processor_name": SYSTEM,
    "engine.cpu.memory._large_of_files": SYSTEM,
    "engine.cuda.kernels.hopper.compiled.code": OWN,
    "engine.memory._cgroup_headroom": SYSTEM,
    "engine.memory._reclaimable": SYSTEM,
    "engine.weights.tensor_files.TensorFiles.read": CHECKED,
    "engine.weights.tensor_files._open": CHECKED,
    "cli.exit_codes._discard_stdout": SYSTEM,
    "evals.data._Reader._zip": "an archive in memory",
    "evals.gsm8k._examples": SHIPPED,
    "evals.records.Records._open": WRITES,
    "files.opening.open_file": "this is the one",
    "tools.guard._below": SYSTEM,
    "tools.guard._let_go": SYSTEM,
    "models.builtin.demo._sync": OWN,
    "models.export.gguf.write": WRITES,
    "models.writing.files.join": OWN,
    "models.writing.files._sync": OWN,
    "models.writing.files.write_tensors": WRITES,
    "models.quantize.run.quantize": SHIPPED,
    "models.quantize.states.States.__init__": OWN,
    "models.builtin.wheel._extract": "a wheel that was opened by open_file, and what is taken out of it",
    "models.builtin.wheel._reason": OWN,
    "models.builtin.wheel._run_pip": WRITES,
    "models.builtin.wheel.trouble": OWN,
    "server.background.start": WRITES,
    "sandbox.landlock.restrict": "a place, to name it to the kernel",
    "sandbox.launcher._Watch._kill_left": SYSTEM,
    "sandbox.launcher._too_much": SYSTEM,
    "sandbox.namespaces._make_target": WRITES,
    "sandbox.namespaces._write": SYSTEM,
    "sessions.store.SessionStore.rename": SESSION,
    "tools.hf_agent.prompts._template": SHIPPED,
    "tools.interpreter.Interpreter.put": WRITES,
    "tools.worker.main": PIPE,
    "sessions.resume.open_chat": SESSION,
    "terminal.clipboard._write_to_terminal": SYSTEM,
    "terminal.commands.sessions._resume": SESSION,
    "terminal.input.history.TypedLines.store_string": WRITES,
    "terminal.pictures.show": "no link; what is no picture is not drawn",
    "tools.builtin.WebFetch.run": "an address",
    "tools.function_child.main": PIPE,
    "tools.mcp._client": SYSTEM,
}


def test_nothing_opens_a_file_but_the_one_function_that_looks_at_it_first() -> None:
    opening = callers(PACKAGE.rglob("*.py"), lambda call: name_of(call) in OPENERS)
    # What the sandbox is tried with: opened, or not, inside it.
    opening = {name for name in opening if not name.startswith("sandbox.trial.")}
    unknown = sorted(opening - set(ALLOWED))
    assert not unknown, "open it by qwenchat.files.opening, or write down here why not"
    assert sorted(set(ALLOWED) - opening) == [], "these are gone"


# --- what is opened ------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="the system has no such files")


def special(folder: Path, kind: str) -> Path:
    """Something in a file's place that is none."""
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(kind)  # in the current folder: a socket's path must be short
    else:
        path.mkdir()
    return path


SPECIAL = ("pipe", "link to a pipe", "link to a device", "socket", "folder")


@posix
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = special(tmp_path, kind)
    for use in (open_file, check_file, lambda path: read_file(path, 10)):
        with pytest.raises((NotAFile, IsADirectoryError)):
            use(path)
    with pytest.raises(CheckpointError, match="is not a file"):
        json_values.read_json(path)


@pytest.mark.parametrize("name", ["none", "nu\0ll", "half \ud800", "x" * 300])
def test_a_name_that_no_file_has_or_can_have_is_an_error_of_the_systems(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        open_file(tmp_path / name)


@posix
@pytest.mark.parametrize("name", ["circle", "circle/inner", "nu\0ll", "half \ud800"])
def test_a_path_without_an_end_is_an_error_of_the_systems(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError):
        resolved(tmp_path / name)
    assert resolved(tmp_path / "none") == tmp_path.resolve() / "none"


def test_a_file_is_read_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_file(path, 10)[0] == b"0123456789"
    with pytest.raises(TooLarge):
        read_file(path, 9)
    assert read_file(path, 9, whole=False)[0] == b"012345678"
    assert check_file(path) == 10


@posix
def test_a_link_is_followed_unless_it_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"there")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    assert read_file(tmp_path / "link", 10)[0] == b"there"
    with pytest.raises(OSError, match="symbolic links"):
        read_file(tmp_path / "link", 10, links=False)
    with pytest.raises(OSError, match="symbolic links"):
        open_file(tmp_path / "circle")


# --- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"a": [' + "{}," * 2**19 + "0]}", "more than 524288 values"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "a lone surrogate"),
        ('{"a": 1' + "0" * 5000 + "}", "limit"),
        ('{"a": 1,}', "line 1"),
        ("[]", "expected an object"),
    ],
    ids=["values", "depth", "half", "digits", "syntax", "kind"],
)
def test_json_that_no_checkpoint_has_is_refused_in_a_line(
    tmp_path: Path, content: str, complaint: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        json_values.read_json(path)
    assert len(str(caught.value)) < 300


def test_whole_characters_in_escapes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}')
    assert json_values.read_json(path) == {"a": "\U0001f600", "b": "\\ud800"}


def test_what_an_error_quotes_is_cut() -> None:
    assert quoted("short") == "'short'"
    assert len(quoted("x" * 10**6)) == 60
    assert len(quoted([["deep"] * 1000] * 1000)) <= 60
    assert len(str(QwenchatError("x" * 10**6))) == 1000
