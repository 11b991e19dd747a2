"""Starts a program under a policy, by the first way of confining that this machine has.

Owns the ways and their order, what of the system every program may read, and the end of whatever was
started. Fails closed: where there is no way, nothing runs, and the error says what each lacked. Nothing here
calls :func:`unconfined`.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from qwenchat.errors import Names, Phrase, SandboxError
from qwenchat.sandbox import seatbelt
from qwenchat.sandbox.control import INTERRUPT, ORDER_LENGTH
from qwenchat.sandbox.policy import Ended, Limit, Policy

Method = Literal["namespaces", "seccomp", "bubblewrap", "sandbox-exec"]
NO_SANDBOX = "no sandbox"
"""What is told in place of a sandbox where there is none."""

_PACKAGE = Path(__file__).parents[2]
_LAUNCH = "import sys; sys.path.append({!r}); from qwenchat.sandbox import launcher; launcher.{}()"
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/homebrew", "/nix/store", "/gnu/store"),
    *("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    *("/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/sys/devices/system/cpu"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
HANDED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""The variables of ours that a program is told."""
_THREADS = 4  # of the libraries that take as many as there are cores: each counts as a process
_THREADED = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
_START_SECONDS = 60.0
_CLOSE_SECONDS = 10.0

_works: dict[str, Method] = {}
"""The way that worked last; a program need not try again what is missing."""


class Confined:
    """A program that runs confined; to be closed.

    Attributes:
        stdin, stdout, stderr: the ends of its pipes.
        sandbox: what confines it, in a few words.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, scratch: Path) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.sandbox = ""
        self._process, self._control, self._scratch = process, control, scratch
        self._replies = control.makefile("r", encoding="utf-8", errors="replace")
        self._ended: Ended | None = None

    def interrupt(self) -> None:
        """Sends it what Ctrl-C sends."""
        with contextlib.suppress(OSError):
            self._control.send(INTERRUPT)

    def kill(self) -> None:
        """Ends it at once, by way of what watches over it."""
        self._process.kill()

    def wait(self) -> Ended:
        """Waits until it has ended, and all that it started."""
        if self._ended is None:
            words = self._reply()
            limits: tuple[Limit, ...] = get_args(Limit)
            limit: Limit = next((one for one in limits if words[1:2] == [one]), "")
            code = int(words[2]) if len(words) == 3 and words[2].isdecimal() else 128 + 9
            self._ended = Ended(code, limit, sandbox=self.sandbox)
        return self._ended

    def close(self) -> None:
        """Ends it, if it has not ended, with all that it started."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:  # stopped by somebody; the kernel then ends what it watched over
            self.kill()
            self._process.wait()
        for end in (self.stdin, self.stdout, self.stderr, self._replies, self._control):
            with contextlib.suppress(OSError):
                end.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def begun(self) -> str:
        """Waits until it runs; why it does not, if it does not."""
        self._control.settimeout(_START_SECONDS)
        try:
            words = self._reply()
        except TimeoutError:
            words = ["failed", "it did not start in time"]
        self._control.settimeout(None)
        if words[:1] == ["ready"]:
            return ""
        said = self.stderr.read(4096).decode(errors="replace") if words[:1] != ["failed"] else ""
        return " ".join(words[1:] if words[:1] == ["failed"] else said.split()) or "the launcher ended"

    def _reply(self) -> list[str]:
        try:
            return self._replies.readline().split()
        except TimeoutError:
            raise
        except (OSError, ValueError):  # closed meanwhile
            return []


def start(
    policy: Policy,
    command: Sequence[str],
    environment: Mapping[str, str] = {},
) -> Confined:
    """Starts a program confined, with pipes for what it reads and prints.

    Args:
        policy: what it may do.
        command: the program's absolute path, and its arguments.
        environment: what it finds there beside a few variables of the system; nothing of ours.

    Raises:
        SandboxError: there is no way to confine it here, or it cannot be started.
    """
    _check(command[0])
    started = _confined(policy, command, environment)
    if isinstance(started, Confined):
        return started
    raise SandboxError(
        "nothing here can confine a program, so none is run: {reasons}",
        "qwenchat doctor tells more; a kernel with Landlock, or bubblewrap, is enough",
        reasons=started,
    )


def unconfined(policy: Policy, command: Sequence[str], environment: Mapping[str, str] = {}) -> Confined:
    """Starts a program with all rights of the user: for a run that they said yes to, and knew that.

    Its time, its disk and the limits of each process hold, and it ends as one that is confined.
    Arguments as for :func:`start`.

    Raises:
        SandboxError: it cannot be started.
    """
    _check(command[0])
    started = _start("none", policy, command, environment)
    if reason := started.begun():
        started.close()
        raise SandboxError("{program} cannot be started: {reason}", program=command[0], reason=reason)
    started.sandbox = NO_SANDBOX
    return started


def lacking() -> str:
    """Why a program could run here by :func:`unconfined` alone; empty if it can be confined.

    Empty too where not even that is possible, as on Windows: :func:`start` tells the reason then.
    """
    if os.name != "posix" or "method" in _works:
        return ""
    with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
        tried = _confined(*_nothing(Path(folder)), {})
        if isinstance(tried, Confined):
            tried.close()
            return ""
        return str(tried)


def run(
    policy: Policy,
    command: Sequence[str],
    environment: Mapping[str, str] = {},
    given: bytes = b"",
) -> Ended:
    """Runs a program confined, to its end.

    Args:
        policy, command, environment: as for :func:`start`.
        given: what it reads on stdin.

    Raises:
        SandboxError: it cannot be confined here.
    """
    confined = start(policy, command, environment)
    with contextlib.closing(confined):
        kept: dict[str, bytes] = {}
        over = threading.Event()

        def keep(name: str) -> None:
            pipe, pieces, left = getattr(confined, name), [], policy.output
            with contextlib.suppress(OSError, ValueError):
                while piece := pipe.read1(65536):
                    pieces.append(piece[:left])
                    left -= len(pieces[-1])
                    if len(piece) > len(pieces[-1]):
                        over.set()
            kept[name] = b"".join(pieces)

        readers = [threading.Thread(target=keep, args=(name,), daemon=True) for name in ("stdout", "stderr")]
        for reader in readers:
            reader.start()
        with contextlib.suppress(OSError):
            confined.stdin.write(given)
            confined.stdin.close()
        ended = confined.wait()
        for reader in readers:
            reader.join()
        limit: Limit = ended.limit or ("output" if over.is_set() else "")
        return Ended(ended.code, limit, kept["stdout"], kept["stderr"], ended.sandbox)


def prefer(method: Method) -> None:
    """Confines by this way alone from now on."""
    _works["method"] = method


def in_force() -> str:
    """What would confine a program here, in a few words.

    Raises:
        SandboxError: nothing would.
    """
    with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
        return run(*_nothing(Path(folder))).sandbox


def _nothing(folder: Path) -> tuple[Policy, list[str]]:
    """A program that does nothing, for a try."""
    policy = Policy((folder,), (Path(sys.prefix), Path(sys.base_prefix)))
    return policy, [sys.executable, "-I", "-S", "-c", ""]


def _check(program: str) -> None:
    if not os.access(program, os.X_OK):
        raise SandboxError(
            "{program} cannot be started: {reason}", program=program, reason="no program that may be run"
        )


def _confined(policy: Policy, command: Sequence[str], environment: Mapping[str, str]) -> Confined | Names:
    """A program, started by the first way that confines it here; what each lacks, where none does."""
    lacks = []
    for method in _candidates():
        started = _start(method, policy, command, environment)
        reason = started.begun()
        if not reason:
            _works["method"] = method
            started.sandbox = _word(method)
            return started
        started.close()
        lacks.append(str(Phrase("{path}: {reason}", path=method, reason=reason)))
    return Names(lacks or [platform.system()])


def _candidates() -> Iterator[Method]:
    if "method" in _works:
        yield _works["method"]
    elif sys.platform == "linux":
        yield from ("namespaces", "seccomp")
        if shutil.which("bwrap"):
            yield "bubblewrap"
    elif sys.platform == "darwin":
        yield "sandbox-exec"


def _word(method: Method) -> str:
    """What confines, in a few words that stay the same in every language."""
    if method != "sandbox-exec":
        from qwenchat.sandbox import landlock

        return f"{method} + Landlock" if landlock.abi() else method
    return method


def _start(
    method: Method | Literal["none"], policy: Policy, command: Sequence[str], environment: Mapping[str, str]
) -> Confined:
    # Made, and removed, by the launcher, so that none is left by whoever is killed before it begins.
    scratch = Path(os.path.realpath(tempfile.gettempdir()), f"qwenchat-{os.urandom(8).hex()}")
    order = _order(method, policy, command, environment, scratch)
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH.format(str(_PACKAGE), "main"), str(theirs.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},  # which the program could find in the memory of number 1
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise SandboxError(
            "{program} cannot be started: {reason}",
            program=sys.executable,
            reason=os.strerror(error.errno or 0),
        ) from None
    finally:
        theirs.close()
    data = marshal.dumps(order)
    with contextlib.suppress(OSError):  # it has ended, which reading tells
        ours.sendall(len(data).to_bytes(ORDER_LENGTH, "little") + data)
    return Confined(process, ours, scratch)


def _order(
    method: Method | Literal["none"],
    policy: Policy,
    command: Sequence[str],
    environment: Mapping[str, str],
    scratch: Path,
) -> dict[str, Any]:
    """What the launcher is told: plain values, all paths without links but the program's own name."""
    for folder in policy.write:
        folder.mkdir(parents=True, exist_ok=True)
    write = _real(map(str, policy.write))
    read = [path for path in _real([*_SYSTEM, *map(str, policy.read)]) if path not in write]
    program = Path(command[0])
    command = [str(Path(os.path.realpath(program.parent)) / program.name), *command[1:]]
    temporary = "/tmp" if method in ("namespaces", "bubblewrap") else str(scratch)  # noqa: S108 - its own
    threads = str(min(_THREADS, os.cpu_count() or 1))
    variables = {
        **{name: os.environ[name] for name in HANDED_ON if name in os.environ},
        "PATH": f"{program.parent}:{os.defpath}",
        "HOME": write[0],
        "TMPDIR": temporary,
        **{f"{library}_NUM_THREADS": threads for library in _THREADED},
        **environment,
    }
    limits = {
        "RLIMIT_AS": policy.memory,
        "RLIMIT_CPU": policy.cpu_seconds,
        "RLIMIT_NOFILE": policy.open_files,
        "RLIMIT_FSIZE": policy.disk,
        "RLIMIT_CORE": 0,
    }
    if method in ("namespaces", "bubblewrap") and _counts_processes():
        limits["RLIMIT_NPROC"] = policy.processes + 3  # the launcher's are counted with them
    outer: list[str] = []
    if method == "bubblewrap":
        outer = _bubblewrap(read, write, scratch)
    elif method == "sandbox-exec":
        command = [*seatbelt.command([*read, *_DEVICES], [*write, str(scratch)]), *command]
    return {
        "method": method,
        "command": command,
        "outer": outer,
        "environment": variables,
        "read": read,
        "write": write,
        "scratch": str(scratch),
        "devices": list(_DEVICES),
        "limits": limits,
        "processes": policy.processes,
        "memory": policy.memory,
        "disk": policy.disk,
        "wall_seconds": policy.wall_seconds,
    }


def _real(paths: Any) -> list[str]:
    """Paths without links, each once; those that are not there are left out."""
    return list(dict.fromkeys(os.path.realpath(path) for path in paths if os.path.exists(path)))  # noqa: PTH110


def _counts_processes() -> bool:
    """True if the kernel counts a user's processes by namespaces, as it does from Linux 5.14 on."""
    words = platform.release().split(".")
    return [int(word) for word in words[:2] if word.isdecimal()] >= [5, 14]


def _bubblewrap(read: Sequence[str], write: Sequence[str], scratch: Path) -> list[str]:
    """The command that makes namespaces in our stead, and starts the launcher in them."""
    read = [*read, str(_PACKAGE / "qwenchat"), *_real([sys.prefix, sys.base_prefix])]
    binds = [("--ro-bind", path, path) for path in read] + [("--bind", path, path) for path in write]
    binds.append(("--bind", str(scratch), "/tmp"))  # noqa: S108 - its own
    links = [path for path in ("/bin", "/lib", "/lib64", "/sbin") if os.path.islink(path)]  # noqa: PTH114
    return [
        *(shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session"),
        *("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"),
        *(word for bind in sorted(binds, key=lambda bind: bind[2]) for word in bind),
        *(word for path in links for word in ("--symlink", os.readlink(path), path)),  # noqa: PTH115
        *("--", sys.executable, "-I", "-S", "-c", _LAUNCH.format(str(_PACKAGE), "inside")),
    ]
