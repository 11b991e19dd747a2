"""What attempts are made on: files, sockets, a process, shared memory; made for them, and removed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qwenchat.sandbox import start

_ENOUGH = b"enough"
_IPC_CREAT, _IPC_RMID = 0o1000, 0


@contextlib.contextmanager
def made() -> Iterator[tuple[dict[str, Any], Path, int]]:
    """What attempts are made on, the folder they are made in, and a descriptor that must not be handed on."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qwenchat-")))
        folder, outside = place / "folder", place / "outside"
        for each in (folder, outside):
            each.mkdir()
        for name in ("secret", "victim", "doomed"):
            (outside / name).write_text(name)
        inherited = os.open(outside / "secret", os.O_RDONLY)
        stack.callback(os.close, inherited)
        os.set_inheritable(inherited, True)
        sleeper = subprocess.Popen(["/bin/sleep", "600"], env={"SECRET": "told to nobody"})
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)
        abstract = f"qwenchat-{secrets.token_hex(8)}"
        shared, key = _shared_memory()
        stack.callback(shared)
        ports = {
            "tcp": _listens(stack, socket.AF_INET, ("127.0.0.1", 0)),
            "tcp6": _listens(stack, socket.AF_INET6, ("::1", 0)),
            "udp": _echoes(stack),
        }
        _listens(stack, socket.AF_UNIX, str(outside / "socket"))
        _listens(stack, socket.AF_UNIX, f"\0{abstract}")
        yield (
            {
                **{name: str(outside / name) for name in ("secret", "victim", "doomed", "socket")},
                **ports,
                "abstract": abstract,
                "home": str(Path.home()),
                "at_home": [path.name for path in Path.home().iterdir()],
                "key": key,
                "outside": str(outside),
                "package": str(Path(__file__).parent),
                "pid": os.getpid(),
                "sleeper": sleeper.pid,
                "variables": {name: os.environ[name] for name in os.environ if name not in start.HANDED_ON},
            },
            folder,
            inherited,
        )


def _echoes(stack: contextlib.ExitStack) -> int:
    """Answers what comes by UDP for as long as the stack stands; on which port."""
    own = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    own.bind(("127.0.0.1", 0))
    port = int(own.getsockname()[1])

    def answer() -> None:
        while (came := own.recvfrom(16))[0] != _ENOUGH:
            own.sendto(*came)

    answering = threading.Thread(target=answer)
    answering.start()
    stack.callback(answering.join)
    stack.callback(own.sendto, _ENOUGH, ("127.0.0.1", port))
    return port


def _listens(stack: contextlib.ExitStack, family: int, address: Any, kind: int = socket.SOCK_STREAM) -> int:
    """Listens for as long as the stack stands; on which port, 0 where there is none."""
    with contextlib.suppress(OSError):  # a machine without IPv6
        own = stack.enter_context(socket.socket(family, kind))
        own.bind(address)
        if kind == socket.SOCK_STREAM:
            own.listen()
        name = own.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0
    return 0


def _shared_memory() -> tuple[Callable[[], object], int]:
    """Memory that any process of the user can have by its key; what removes it, and the key."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = secrets.randbelow(2**30) + 1
    own = libc.shmget(key, 4096, _IPC_CREAT | 0o600)
    return lambda: libc.shmctl(own, _IPC_RMID, None), key
