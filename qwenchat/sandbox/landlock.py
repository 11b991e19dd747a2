"""Landlock: which files a process may reach, which ports, which processes it may signal. Needs no root.

Denies whatever is not named. Of what an old kernel's Landlock does not know (see ``abi``), nothing is denied
here; that is seccomp's and the namespaces' part. It never limits UDP, modes, owners and times of files.
"""

from __future__ import annotations

import ctypes
import os
import struct

from qwenchat.sandbox.kernel import call

TYPE_CHECKING = False  # the launcher does without typing and collections
if TYPE_CHECKING:
    from collections.abc import Iterable

LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1

# LANDLOCK_ACCESS_FS_*, by bit.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = EXECUTE | READ_FILE | READ_DIR
WRITE = (
    READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
)
DEVICE = READ_FILE | WRITE_FILE
_OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

_NET = 1 << 0 | 1 << 1  # LANDLOCK_ACCESS_NET_BIND_TCP, _CONNECT_TCP
_SCOPE = 1 << 0 | 1 << 1  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL


def abi() -> int:
    """What the kernel's Landlock can: 1 files, 2 renames, 3 truncation, 4 TCP, 5 ioctl, 6 signals; else 0."""
    try:
        return call("landlock_create_ruleset", None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(version: int, allowed: Iterable[tuple[str, int]]) -> None:
    """Confines this process, and all that it starts, to these paths; no_new_privs must be set.

    Args:
        version: what :func:`abi` gave.
        allowed: a path, and what may be done beneath it; a path that is not there is left out.

    Raises:
        OSError: the kernel refused.
    """
    handled = _handled(version)
    attr = struct.pack("=QQQ", handled, _NET if version >= 4 else 0, _SCOPE if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = call("landlock_create_ruleset", attr, size, 0)
    try:
        for path, access in allowed:
            try:
                beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if not os.path.isdir(path):
                access &= _OF_A_FILE
            rule = ctypes.create_string_buffer(struct.pack("=Qi", access & handled, beneath))
            try:
                call("landlock_add_rule", ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
            finally:
                os.close(beneath)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(version: int) -> int:
    """All accesses to files that this version can deny."""
    bits = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    return (1 << bits) - 1
