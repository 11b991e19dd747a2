"""Namespaces: a root of its own for a program, with nothing in it but what it was given, and no network.

Owns the user namespace that makes it possible without root, and the mounts. The new root is a small tmpfs,
onto which the folders of the policy are bound, each under its own path.
"""

from __future__ import annotations

import os
import struct

from qwenchat.sandbox.kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    call,
)

TYPE_CHECKING = False  # the launcher does without typing and collections
if TYPE_CHECKING:
    from collections.abc import Iterable

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, os.O_CLOEXEC, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x4000, 1 << 18
MNT_DETACH = 2

_SHARED_MEMORY = 64 << 20  # bytes of /dev/shm


def unshare() -> None:
    """Takes this process into namespaces of its own, but for mounts; what it starts next is number 1 in them.

    Raises:
        OSError: the machine forbids it.
    """
    kinds = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    uid, gid = os.getuid(), os.getgid()
    try:
        call("unshare", CLONE_NEWUSER | kinds)
    except OSError:
        if uid != 0:
            raise
        call("unshare", kinds)  # root may where users may not
        return
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def change_root(read: Iterable[str], write: Iterable[str], devices: Iterable[str], scratch: str) -> None:
    """Makes these paths all that there is, for number 1 of the namespaces and what it starts.

    Args:
        read, write: files and folders, without links in their paths.
        devices: of these the ones that are there.
        scratch: the folder that becomes /tmp.

    Raises:
        OSError: the kernel refused.
    """
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    inert = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    trees = [(path, path, _clone(path, inert | MOUNT_ATTR_RDONLY)) for path in read]
    trees += [(path, path, _clone(path, inert)) for path in write]
    trees += [("/tmp", scratch, _clone(scratch, inert))]
    trees += [(path, path, _clone(path, MOUNT_ATTR_NOSUID)) for path in devices if os.path.exists(path)]
    links = [
        (path, os.readlink(path)) for path in ("/bin", "/lib", "/lib64", "/sbin") if os.path.islink(path)
    ]
    root = "/proc"  # a folder that is on every machine
    proc = _proc()
    call("mount", b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755,size=1m")
    for place, source, tree in sorted(trees):  # a folder before what is in it
        target = root + place
        _make_target(target, source)
        call("move_mount", tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
    for place, to in links:
        if not os.path.lexists(root + place):
            os.symlink(to, root + place)
    os.makedirs(root + "/dev/shm", exist_ok=True)
    size = f"mode=1777,size={_SHARED_MEMORY}".encode()
    call("mount", b"tmpfs", root.encode() + b"/dev/shm", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, size)
    os.mkdir(root + "/proc")
    if proc is not None:
        call("move_mount", proc, b"", AT_FDCWD, root.encode() + b"/proc", MOVE_MOUNT_F_EMPTY_PATH)
        os.close(proc)
    _set_attributes(AT_FDCWD, root.encode(), MOUNT_ATTR_RDONLY, 0)
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def _proc() -> int | None:
    """The processes of these namespaces, to be mounted; None where a container hides parts of its own."""
    try:
        context = call("fsopen", b"proc", 1)  # FSOPEN_CLOEXEC
        try:
            call("fsconfig", context, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
            attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
            return call("fsmount", context, 1, attributes)  # FSMOUNT_CLOEXEC
        finally:
            os.close(context)
    except PermissionError:
        return None


def _clone(path: str, attributes: int) -> int:
    """A mount of what lies at a path, with what is mounted in it, not yet anywhere."""
    name = os.fsencode(path)
    tree = call("open_tree", AT_FDCWD, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)
    _set_attributes(tree, b"", attributes, AT_EMPTY_PATH | AT_RECURSIVE)
    return tree


def _set_attributes(folder: int, path: bytes, attributes: int, flags: int) -> None:
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)  # struct mount_attr: to set, to clear, and no more
    call("mount_setattr", folder, path, flags, attr, len(attr))


def _make_target(target: str, source: str) -> None:
    """A folder or a file to mount on; what lies in a folder that is mounted already is there."""
    if os.path.lexists(target):
        return
    if os.path.isdir(source):
        os.makedirs(target)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _write(path: str, text: str) -> None:
    out = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(out, text.encode())
    finally:
        os.close(out)
