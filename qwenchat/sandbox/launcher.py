"""Confines itself and becomes the program: run by ``start.py`` in a process of its own.

Two or three processes: this one watches the clock, the disk and whoever started it; where there are
namespaces, a second is their number 1, which counts what runs in them; the last is the program. The control
socket has what ``control.py`` says; its end is the end of the program. Back go lines: ``ready``, ``failed``
with the reason, ``ended`` with the limit and the exit code.

Imports next to nothing: each module is milliseconds before the program.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import marshal
import os
import resource
import select
import sys
import time

# All that is needed: once the root is changed, there is nothing of ours to import.
from qwenchat.sandbox import kernel, landlock, namespaces, seccomp
from qwenchat.sandbox.control import INTERRUPT, ORDER_LENGTH

TYPE_CHECKING = False  # imports of typing would be half of the start
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

_TICK = 0.05  # seconds between two looks at what runs
_DISK_SHARE = 20  # looking at the disk takes at most so much of the time
_MOST_FILES = 100_000
_PATIENCE = 2.0  # seconds for what starts itself again and again
_SCRATCH = "/tmp"


def main() -> None:
    """Runs the program of the order; ends when it does."""
    control = int(sys.argv[1])
    os.set_inheritable(control, False)
    order = marshal.loads(_read(control, int.from_bytes(_read(control, ORDER_LENGTH), "little")))  # noqa: S302 - from whoever started us
    heard, report = os.pipe()
    woken, wake = os.pipe()
    typed, tell_typed = os.pipe()
    for end in (wake, typed):
        os.set_blocking(end, False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(wake)
    try:
        os.mkdir(order["scratch"], 0o700)
        if order["method"] == "namespaces":
            namespaces.unshare()
        elif order["method"] == "none" and sys.platform == "linux":
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        _remove(order["scratch"])
        _tell(control, "failed", _reason(error))
        return
    child = os.fork()
    if child == 0:
        _signal.set_wakeup_fd(-1)
        os.close(heard)
        os.close(tell_typed)
        _become(order, report, typed)
    os.close(report)
    _undumpable()
    _Watch(order, control, heard, woken, tell_typed, child).run()


def inside() -> None:
    """Number 1's part where bubblewrap made the namespaces, and is their number 1 itself."""
    order, report, typed = marshal.loads(bytes.fromhex(sys.argv[1]))  # noqa: S302 - of ours, through bubblewrap
    for end in (report, typed):
        os.set_inheritable(end, False)
    try:
        _count_and_execute(order, report, typed)
    except BaseException as error:  # noqa: BLE001 - as above
        _tell(report, "failed", _reason(error))
    os._exit(126)


def _become(order: dict[str, Any], report: int, typed: int) -> NoReturn:
    """The child: the program itself, or number 1 of the namespaces and then the program."""
    try:
        if sys.platform == "linux":
            kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)
        if order["method"] == "namespaces":
            namespaces.change_root(order["read"], order["write"], order["devices"], order["scratch"])
            _count_and_execute(order, report, typed)
        if order["method"] == "bubblewrap":
            for end in (report, typed):
                os.set_inheritable(end, True)
            handed = marshal.dumps((order, report, typed)).hex()
            os.execv(order["outer"][0], [*order["outer"], handed])  # noqa: S606 - which starts inside()
        _execute(order, report)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the program must not run
        _tell(report, "failed", _reason(error))
    os._exit(126)


def _count_and_execute(order: dict[str, Any], report: int, typed: int) -> NoReturn:
    """Goes on as the one that counts, with the program as its child."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
    program = os.fork()
    if program == 0:
        _execute(order, report)
    _undumpable()
    _first(order, report, typed, program)


def _execute(order: dict[str, Any], report: int) -> NoReturn:
    os.setsid()
    for name, value in order["limits"].items():
        _limit(getattr(resource, name, None), value)
    os.chdir(order["write"][0])
    if sys.platform == "linux" and order["method"] != "none":
        _confine(order)
    for signum in (_signal.SIGPIPE, _signal.SIGINT, _signal.SIGXFSZ, _signal.SIGCHLD):
        _signal.signal(signum, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    _tell(report, "ready")
    os.execve(order["command"][0], order["command"], order["environment"])  # noqa: S606 - this is the place


def _confine(order: dict[str, Any]) -> None:
    alone = order["method"] == "seccomp"
    version = landlock.abi()
    if alone and not version:
        raise OSError(38, "this kernel has no Landlock")
    kernel.drop_capabilities()
    if version:
        if alone:
            seen = [f"/proc/{os.getpid()}", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"]
            kept = [*order["write"], order["scratch"]]
        else:
            seen, kept = ["/proc"], [*order["write"], _SCRATCH, "/dev/shm"]
        allowed = [(path, landlock.READ) for path in [*order["read"], *seen]]
        allowed += [(path, landlock.WRITE) for path in kept]
        allowed += [(path, landlock.DEVICE) for path in order["devices"]]
        landlock.restrict(version, allowed)
    seccomp.restrict(alone, may_fork=not alone and (os.getuid() != 0 or os.path.exists("/proc/1")))


def _limit(kind: int | None, value: int) -> None:
    """Lowers a limit; one that is lower already stays."""
    if kind is None:
        return
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


# --- number 1 of the namespaces ----------------------------------------------------------------------


def _first(order: dict[str, Any], report: int, typed: int, program: int) -> NoReturn:
    """Waits for the program, counts what runs, hands Ctrl-C on. With its end all ends that still runs."""
    while True:
        _signal.sigtimedwait((_signal.SIGCHLD,), _TICK)
        try:
            if os.read(typed, 64):
                os.kill(program, _signal.SIGINT)
        except BlockingIOError:
            pass
        while (ended := _reap(-1)) is not None:
            if ended[0] == program:
                os._exit(ended[1])
        if limit := _too_much(order):
            _tell(report, limit)
            os._exit(128 + _signal.SIGKILL)


def _too_much(order: dict[str, Any]) -> str:
    """The limit that the processes of these namespaces break together."""
    try:
        running = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    except OSError:  # a container hides its own, and so ours
        return ""
    if len(running) > order["processes"]:
        return "processes"
    pages = 0
    for name in running:
        try:
            with open(f"/proc/{name}/statm", "rb") as file:
                pages += int(file.read().split()[1])
        except (OSError, IndexError):  # it has just ended
            continue
    return "memory" if pages * resource.getpagesize() > order["memory"] else ""


# --- the watch over it -------------------------------------------------------------------------------


class _Watch:
    """Waits for the end: of the program, of its time or its disk, or of whoever wanted it."""

    def __init__(
        self, order: dict[str, Any], control: int, heard: int, woken: int, typed: int, child: int
    ) -> None:
        self._order, self._control, self._heard, self._woken = order, control, heard, woken
        self._typed = typed
        self._child = child
        self._limit = ""
        self._deadline = float("inf")  # the program's time begins with it
        self._next_look = 0.0
        self._free = _free(order["write"][0])

    def run(self) -> None:
        poll = select.poll()
        for end in (self._control, self._heard, self._woken):
            poll.register(end, select.POLLIN)
        while True:
            for end, _ in poll.poll(_TICK * 1000):
                if end == self._control and not self._obey():
                    self._kill()
                    os.waitpid(self._child, 0)
                    self._kill_left()
                    _remove(self._order["scratch"])
                    return
                if end == self._heard and not self._read_reports():
                    poll.unregister(self._heard)
                if end == self._woken:
                    os.read(self._woken, 512)
            ended = _reap(self._child)
            if ended is not None:
                break
            if not self._limit and (limit := self._too_much()):
                self._limit = limit
                self._kill()
        self._read_reports()
        self._kill()  # what it started and left, where there is no number 1
        self._kill_left()
        _remove(self._order["scratch"])
        _tell(self._control, "ended", self._limit or "-", str(ended[1]))

    def _obey(self) -> bool:
        try:
            data = os.read(self._control, 64)
        except OSError:
            data = b""
        if INTERRUPT in data and self._order["method"] in ("namespaces", "bubblewrap"):
            os.write(self._typed, INTERRUPT)  # the child is not the program
        elif INTERRUPT in data:
            os.kill(self._child, _signal.SIGINT)
        return bool(data)

    def _read_reports(self) -> bool:
        data = os.read(self._heard, 4096)
        for line in data.decode(errors="replace").splitlines():
            word, _, rest = line.partition(" ")
            if word == "ready" and self._order["wall_seconds"]:
                self._deadline = time.monotonic() + self._order["wall_seconds"]
            if word in ("ready", "failed"):
                _tell(self._control, word, rest)
            else:
                self._limit = word
        return bool(data)

    def _too_much(self) -> str:
        now = time.monotonic()
        if now > self._deadline:
            return "time"
        if now < self._next_look:
            return ""
        places = [*self._order["write"], self._order["scratch"]]
        fallen = self._free - _free(places[0])
        full = _holds_more(places, self._order["disk"]) or fallen > 4 * self._order["disk"]
        took = time.monotonic() - now
        self._next_look = now + max(_TICK, took * _DISK_SHARE)
        return "disk" if full else ""

    def _kill(self) -> None:
        try:
            if self._order["method"] in ("namespaces", "bubblewrap"):
                os.kill(self._child, _signal.SIGKILL)
            else:
                os.killpg(self._child, _signal.SIGKILL)
        except OSError:  # it is gone
            pass

    def _kill_left(self) -> None:
        """Ends what left the program's process group, where nothing kept it from that: it is ours by now."""
        end = time.monotonic() + _PATIENCE
        while self._order["method"] == "none" and time.monotonic() < end:
            try:
                with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                    left = [int(pid) for pid in file.read().split()]
                for pid in left:
                    os.kill(pid, _signal.SIGKILL)
                    os.waitpid(pid, 0)  # and what it started is ours next
            except OSError:  # no list of them on this system
                return
            if not left:
                return


def _reap(child: int) -> tuple[int, int] | None:
    """A process that ended, and its exit code; None while there is none."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return pid, code if code >= 0 else 128 - code


def _free(folder: str) -> int:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def _holds_more(folders: Iterable[str], limit: int) -> bool:
    """True if there is more in these folders than so many bytes, or more files than anybody needs."""
    size, files, waiting = 0, 0, list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:  # it is gone, or closed to us
            continue
        if size > limit or files > _MOST_FILES:
            return True
    return False


def _remove(folder: str) -> None:
    """Removes a folder with all that is in it, as far as that goes."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(folder)
    except OSError:  # who closes a program removes what is left
        pass


def _undumpable() -> None:
    """Hides this process's memory from others of the same user."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _reason(error: BaseException) -> str:
    return str(error.args[-1]) if error.args else type(error).__name__


def _read(end: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(end, size - len(data))
        if not piece:
            os._exit(0)  # nobody wants it any more
        data += piece
    return data


def _tell(end: int, *words: str) -> None:
    line = " ".join(" ".join(words).split())
    try:
        os.write(end, line.encode() + b"\n")
    except OSError:
        os._exit(125)  # nobody is there any more
