"""Seccomp: system calls that a confined program cannot make.

Two lists. The first goes with every sandbox: what changes the machine, looks into other processes, or makes
namespaces. The second stands in for namespaces where those are forbidden: no sockets, no new processes, no
signals but to itself, none of what Landlock does not limit.
"""

from __future__ import annotations

import ctypes
import os
import struct

from qwenchat.sandbox import kernel

TYPE_CHECKING = False  # the launcher does without typing and collections
if TYPE_CHECKING:
    from collections.abc import Iterable

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000  # x86-64's calls with 32-bit pointers have numbers of their own
_EPERM, _ENOSYS = 1, 38
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWCGROUP
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
)

DENIED = (
    *("mount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick", "open_tree"),
    *("move_mount", "mount_setattr", "unshare", "setns", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("process_madvise", "process_mrelease", "kcmp", "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon"),
    *("swapoff", "open_by_handle_at", "name_to_handle_at", "quotactl", "quotactl_fd", "acct"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "syslog", "fanotify_init", "vhangup"),
    *("ioperm", "iopl", "personality", "sethostname", "setdomainname", "migrate_pages", "move_pages"),
    *("mknod", "mknodat"),
)
_MISSING = ("clone3", "memfd_create", "memfd_secret")
"""Said not to be there: for clone3 the C library then takes clone, whose flags can be seen here; what is in
a memfd counts for no limit."""
ALONE = (
    *("socket", "setsid", "setpgid", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("pidfd_open", "pidfd_send_signal", "shmget", "shmat", "msgget", "semget", "mq_open", "mq_unlink"),
    *("setpriority", "sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr"),
    *("ioprio_set", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "fchownat", "lchown"),
    *("utime", "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat"),
    *("removexattr", "lremovexattr", "fremovexattr", "removexattrat", "truncate", "inotify_add_watch"),
)
_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP = 0x5412, 0x541C, 0x8901, 0x8902
_F_SETOWN, _F_SETOWN_EX = 8, 15

Instruction = tuple[int, int, int, int]
"""struct sock_filter: what to do, how far to jump if so, how far if not, and with what."""


def restrict(alone: bool, may_fork: bool) -> None:
    """Takes the calls from this process, and from all that it starts; no_new_privs must be set.

    Args:
        alone: nothing but this keeps the program from others on the machine.
        may_fork: it may start others.
    """
    rules = [*deny(DENIED), *deny(_MISSING, _ENOSYS), *if_any_bit("clone", 0, NAMESPACES)]
    rules += if_equal("ioctl", 1, (_TIOCSTI, _TIOCLINUX))
    rules += if_equal("prctl", 0, (kernel.PR_SET_PDEATHSIG,))
    if not may_fork:
        rules += [*deny(("fork", "vfork")), *unless_any_bit("clone", 0, kernel.CLONE_THREAD)]
    if alone:
        rules += deny(ALONE)
        rules += [*unless_equal("kill", 0, os.getpid()), *unless_equal("tgkill", 0, os.getpid())]
        rules += unless_equal("prlimit64", 0, 0)
        rules += if_equal("fcntl", 1, (_F_SETOWN, _F_SETOWN_EX))
        rules += if_equal("ioctl", 1, (_FIOSETOWN, _SIOCSPGRP))
    install(rules)


def install(rules: Iterable[Instruction]) -> None:
    """Puts a filter before all calls of this process: rules that deny, all else is let through."""
    filters = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[os.uname().machine]),
        (_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, SECCOMP_RET_ERRNO | _ENOSYS),
        *rules,
        (_RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in filters))
    program = struct.pack("@HP", len(filters), ctypes.addressof(code))  # struct sock_fprog
    kernel.call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def deny(names: Iterable[str], errno: int = _EPERM) -> list[Instruction]:
    """No such call, whatever it is for."""
    numbers = [number for name in names if (number := kernel.number(name)) is not None]
    ret = (_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno)
    return [step for number in numbers for step in ((_JUMP_EQUAL, 0, 1, number), ret)]


def if_equal(name: str, argument: int, values: Iterable[int]) -> list[Instruction]:
    """No such call with one of these values as that argument."""
    return [step for value in values for step in _when(name, argument, (_JUMP_EQUAL, 0, 1, value))]


def unless_equal(name: str, argument: int, value: int) -> list[Instruction]:
    """No such call without this value as that argument."""
    return _when(name, argument, (_JUMP_EQUAL, 1, 0, value))


def if_any_bit(name: str, argument: int, bits: int) -> list[Instruction]:
    """No such call with any of these bits in that argument."""
    return _when(name, argument, (_JUMP_ANY_BIT, 0, 1, bits))


def unless_any_bit(name: str, argument: int, bits: int) -> list[Instruction]:
    """No such call without any of these bits in that argument."""
    return _when(name, argument, (_JUMP_ANY_BIT, 1, 0, bits))


def _when(name: str, argument: int, test: Instruction) -> list[Instruction]:
    """Denies a call where the test does not jump; the low half of the argument is what it sees."""
    number = kernel.number(name)
    assert number is not None
    return [
        (_JUMP_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGS + 8 * argument),
        test,
        (_RETURN, 0, 0, SECCOMP_RET_ERRNO | _EPERM),
        (_LOAD, 0, 0, _NR),
    ]
