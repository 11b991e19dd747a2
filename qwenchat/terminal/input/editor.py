"""A text in the user's own editor.

Owns which editor that is, the file it is given, and what becomes of the file. Does not know what the
text is for. Whoever draws on the terminal meanwhile must have stopped.

The file is private and goes when the editor is done. It stays, and is named, only where it holds work
that could not be brought home: the editor was killed, or what it saved is no text.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files import text as textfile
from qwenchat.files.opening import read_file, reason_of
from qwenchat.i18n.language import tr

# "editor" is what Debian's users choose by update-alternatives.
_USUAL = ("notepad",) if sys.platform == "win32" else ("editor", "nano", "vi")
# From here on a shell's exit status means that a signal ended the program.
_KILLED = 128
_MOST_BYTES = 64 * 2**20
_GRACE = 2  # seconds for an editor to save what it can when the program is told to end


def edit(text: str, suffix: str = ".md", environ: Mapping[str, str] = os.environ) -> str | None:
    """Opens a text in the user's editor and waits until it is closed.

    Args:
        text: what to begin with.
        suffix: the end of the file's name, by which editors know the language.
        environ: where VISUAL, EDITOR and PATH are looked up; the editor's environment.

    Returns:
        What was saved, without the newline at its end; None if the editor says that it failed, which is
        how its user gives up (``:cq``).

    Raises:
        UsageError: there is no editor, or it cannot be started.
        QwenchatError: the editor was killed, or what it saved cannot be read.
    """
    command = _command(environ)
    begun = (text if text.endswith("\n") else f"{text}\n").encode("utf-8", "replace")
    path = _private_file(f"message{suffix}", begun)
    is_done = False
    try:
        status = _run([*command, str(path)], environ)
        if not 0 <= status < _KILLED:
            raise QwenchatError("the editor was killed", _where(path, begun))
        result = None if status else _decoded(path, begun)
        is_done = True
        return result
    finally:
        if is_done or not _holds_work(path, begun):
            shutil.rmtree(path.parent, ignore_errors=True)


def _command(environ: Mapping[str, str]) -> list[str]:
    search = environ.get("PATH")
    for name in ("VISUAL", "EDITOR"):
        value = environ.get(name, "").strip()
        if value and shutil.which(value, path=search):  # a path may have spaces
            return [value]
        if value:
            try:
                return _words(value)
            except ValueError:
                raise UsageError("{name} is not a command: {value}", name=name, value=value) from None
    for usual in _USUAL:
        if found := shutil.which(usual, path=search):
            return [found]
    raise UsageError("no editor was found", "set EDITOR to its command")


def _words(command: str) -> list[str]:
    """A command line's words. On Windows a backslash stands in paths, and keeps nothing.

    Raises:
        ValueError: a quote is open at its end.
    """
    if os.name == "posix":
        return shlex.split(command)
    return [word.strip('"') for word in shlex.split(command, posix=False)]


def _run(command: list[str], environ: Mapping[str, str]) -> int:
    """The editor's exit status, once it is closed; below 0 it is the signal that ended it."""
    with _interrupts_ignored():
        try:
            process = subprocess.Popen(command, env=dict(environ))
        except (OSError, ValueError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            raise UsageError(
                "the editor {name} cannot be started: {reason}",
                "set EDITOR to its command",
                name=command[0],
                reason=reason,
            ) from error
        try:
            return process.wait()
        except BaseException:  # the program is to end, and the editor with it
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            raise


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C, which reaches every program on the terminal, is the editor's.

    It is caught and forgotten rather than ignored, for the editor would inherit that.
    """
    if threading.current_thread() is not threading.main_thread():  # such a thread gets no signals
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    wakeup = signal.set_wakeup_fd(-1)  # by which an event loop would hear of it afterwards
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, previous)


def _private_file(name: str, content: bytes) -> Path:
    """A file in a folder of its own that its owner alone can look into."""
    try:
        path = Path(tempfile.mkdtemp(prefix="qwenchat-")) / name
        path.touch(mode=0o600)
        path.write_bytes(content)
    except OSError as error:
        why = reason_of(error)
        raise QwenchatError("a file for the editor cannot be written: {reason}", reason=why) from error
    return path


def _decoded(path: Path, begun: bytes) -> str:
    try:
        return textfile.decode(read_file(path, _MOST_BYTES)[0], tr("what the editor saved")).removesuffix(
            "\n"
        )
    except UsageError as error:
        raise QwenchatError(error.message, _where(path, begun)) from None
    except OSError as error:
        reason = reason_of(error)
        raise QwenchatError("what the editor saved cannot be read: {reason}", reason=reason) from error


def _where(path: Path, begun: bytes) -> str:
    return tr("what it saved is in {folder}", folder=path.parent) if _holds_work(path, begun) else ""


def _holds_work(path: Path, begun: bytes) -> bool:
    """True if the file is not as it was, or another is with it, such as an editor's recovery file."""
    try:
        return read_file(path, _MOST_BYTES)[0] != begun or len(list(path.parent.iterdir())) > 1
    except OSError:
        return path.parent.is_dir() and any(path.parent.iterdir())
