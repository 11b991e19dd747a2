"""Attempts on other processes, and on what is handed on from ours."""

from __future__ import annotations

import os
import signal

from qwenchat.sandbox.trial.registry import Targets, attempt, call, read, unless

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17


@attempt
def signal_the_parent(t: Targets) -> None:
    os.kill(t["pid"], 0)


@attempt
def signal_another_process(t: Targets) -> None:
    os.kill(t["sleeper"], signal.SIGCONT)


@attempt
def signal_by_a_descriptor(t: Targets) -> None:
    signal.pidfd_send_signal(os.pidfd_open(t["sleeper"]), signal.SIGCONT)


@attempt
def have_a_pipe_signal_another(t: Targets) -> None:
    import fcntl

    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, t["sleeper"])
    unless(fcntl.fcntl(reader, fcntl.F_GETOWN) == t["sleeper"], "there is no such process")


@attempt
def trace_another_process(t: Targets) -> None:
    call(101, 117, _PTRACE_ATTACH, t["sleeper"], 0, 0)
    os.waitpid(t["sleeper"], 0x40000000)  # __WALL
    call(101, 117, _PTRACE_DETACH, t["sleeper"], 0, 0)


@attempt
def read_the_memory_of_another(t: Targets) -> None:
    path = "/proc/{}/maps".format(t["sleeper"])
    with open(path) as file:
        start = int(file.readline().split("-")[0], 16)
    with open("/proc/{}/mem".format(t["sleeper"]), "rb") as memory:
        memory.seek(start)
        memory.read(16)


@attempt
def read_the_environment_of_another(t: Targets) -> None:
    read("/proc/{}/environ".format(t["sleeper"]))


@attempt
def read_the_command_of_another(t: Targets) -> None:
    read("/proc/{}/cmdline".format(t["sleeper"]))


@attempt
def see_other_processes(t: Targets) -> None:
    unless(str(t["sleeper"]) in os.listdir("/proc"), "no other process is seen")


@attempt
def reach_what_process_1_has_open(t: Targets) -> None:
    os.readlink("/proc/1/fd/" + os.listdir("/proc/1/fd")[0])


@attempt
def look_about_as_process_1(t: Targets) -> None:
    os.listdir("/proc/1/root")


@attempt
def read_the_memory_of_process_1(t: Targets) -> None:
    with open("/proc/1/maps") as file:
        start = int(file.readline().split("-")[0], 16)
    with open("/proc/1/mem", "rb") as memory:
        memory.seek(start)
        memory.read(16)


@attempt
def find_our_environment(t: Targets) -> None:
    left = [name for name, value in t["variables"].items() if os.environ.get(name) == value]
    unless(left, "nothing of it is here")


@attempt
def slow_another_process_down(t: Targets) -> None:
    os.setpriority(os.PRIO_PROCESS, t["sleeper"], 19)


@attempt
def limit_another_process(t: Targets) -> None:
    import resource

    resource.prlimit(t["sleeper"], resource.RLIMIT_CORE, (0, 0))


@attempt
def share_memory_with_others(t: Targets) -> None:
    call(29, 194, t["key"], 4096, 0o600)  # shmget of what is there
