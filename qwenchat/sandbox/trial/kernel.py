"""Attempts on the kernel: mounts, namespaces, privileges, calls with a past."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable

from qwenchat.sandbox.trial.registry import Targets, attempt, call, checked, libc, read

_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x20000


@attempt
def mount_something(t: Targets) -> None:
    folder = tempfile.mkdtemp(dir=".").encode()
    checked(libc.mount(b"none", folder, b"tmpfs", 0, None))
    checked(libc.umount(folder))


@attempt
def make_a_user_namespace(t: Targets) -> None:
    _in_a_child(lambda: checked(libc.unshare(_CLONE_NEWUSER)))


@attempt
def make_a_mount_namespace(t: Targets) -> None:
    _in_a_child(lambda: checked(libc.unshare(_CLONE_NEWNS)))


@attempt
def enter_the_namespaces_of_another(t: Targets) -> None:
    def enter() -> None:
        checked(libc.setns(os.open("/proc/{}/ns/net".format(t["sleeper"]), os.O_RDONLY), 0))

    _in_a_child(enter)


@attempt
def change_the_root(t: Targets) -> None:
    _in_a_child(lambda: os.chroot("."))


@attempt
def become_another_user(t: Targets) -> None:
    _in_a_child(lambda: os.setuid(65534 if os.getuid() != 65534 else 65533))


@attempt
def load_a_program_into_the_kernel(t: Targets) -> None:
    # BPF_MAP_CREATE of an array of one number
    attributes = (ctypes.c_uint32 * 5)(2, 4, 4, 1, 0)
    call(321, 280, 0, attributes, 20)


@attempt
def keep_a_secret_in_the_kernel(t: Targets) -> None:
    call(248, 217, b"user", b"qwenchat", b"x", 1, -2)  # add_key, to this process's keyring


@attempt
def open_a_ring_of_calls(t: Targets) -> None:
    call(425, 425, 4, ctypes.create_string_buffer(120))  # io_uring_setup


@attempt
def make_a_device(t: Targets) -> None:
    os.mknod("device", 0o020600, os.makedev(1, 3))


@attempt
def set_the_kernels_values(t: Targets) -> None:
    path = "/proc/sys/vm/swappiness"
    value = read(path)
    with open(path, "wb") as file:
        file.write(value)


def _in_a_child(do: Callable[[], object]) -> None:
    """Does what would change this process, in another where there may be one."""
    try:
        pid = os.fork()
    except OSError:
        do()
        return
    if pid == 0:
        try:
            do()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))
