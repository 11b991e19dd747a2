"""Attempts on files: by their paths, by links, by what is in /proc, by what was left open."""

from __future__ import annotations

import os
from contextlib import suppress

from qwenchat.sandbox.trial.registry import Targets, attempt, read, unless


@attempt
def list_the_home(t: Targets) -> None:
    unless(set(t["at_home"]) <= set(os.listdir(t["home"])), "not all of it is there")


@attempt
def read_a_file_outside(t: Targets) -> None:
    read(t["secret"])


@attempt
def list_a_folder_outside(t: Targets) -> None:
    os.listdir(t["outside"])


@attempt
def write_a_file_outside(t: Targets) -> None:
    with open(t["victim"], "ab") as file:
        file.write(b"x")


@attempt
def make_a_file_outside(t: Targets) -> None:
    os.close(os.open(t["outside"] + "/made", os.O_CREAT | os.O_WRONLY))


@attempt
def make_a_folder_outside(t: Targets) -> None:
    os.mkdir(t["outside"] + "/folder")


@attempt
def empty_a_file_outside(t: Targets) -> None:
    os.truncate(t["victim"], 0)


@attempt
def rename_a_file_outside(t: Targets) -> None:
    os.rename(t["victim"], t["victim"] + "2")
    os.rename(t["victim"] + "2", t["victim"])


@attempt
def take_a_file_in(t: Targets) -> None:
    os.rename(t["victim"], "taken")
    os.rename("taken", t["victim"])


@attempt
def put_a_file_out(t: Targets) -> None:
    with open("mine", "wb"):
        os.rename("mine", t["outside"] + "/put")


@attempt
def link_a_file_in(t: Targets) -> None:
    with suppress(FileNotFoundError):
        os.unlink("linked")
    os.link(t["secret"], "linked")
    read("linked")


@attempt
def remove_a_file_outside(t: Targets) -> None:
    os.unlink(t["doomed"])


@attempt
def read_by_a_symlink(t: Targets) -> None:
    read(_link(t["secret"], "read"))


@attempt
def write_by_a_symlink(t: Targets) -> None:
    with open(_link(t["victim"], "write"), "ab") as file:
        file.write(b"x")


@attempt
def list_by_a_symlink(t: Targets) -> None:
    os.listdir(_link(t["outside"], "list"))


@attempt
def climb_out_of_the_folder(t: Targets) -> None:
    read(os.path.relpath(t["secret"], os.getcwd()))


@attempt
def climb_by_a_symlink_to_the_root(t: Targets) -> None:
    read(_link("/", "root") + t["secret"])


@attempt
def go_outside_and_read(t: Targets) -> None:
    here = os.getcwd()
    os.chdir(t["outside"])
    try:
        read(os.path.basename(t["secret"]))
    finally:
        os.chdir(here)


@attempt
def read_by_proc_root(t: Targets) -> None:
    read("/proc/self/root" + t["secret"])


@attempt
def read_by_the_parents_root(t: Targets) -> None:
    read("/proc/{}/root{}".format(t["pid"], t["secret"]))


@attempt
def change_a_mode_outside(t: Targets) -> None:
    os.chmod(t["victim"], 0o640)


@attempt
def change_a_time_outside(t: Targets) -> None:
    os.utime(t["victim"], (1, 1))


@attempt
def change_an_owner_outside(t: Targets) -> None:
    os.chown(t["victim"], os.getuid(), os.getgid())


@attempt
def write_into_the_interpreter(t: Targets) -> None:
    path = t["package"] + "/made"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)


@attempt
def find_what_was_left_open(t: Targets) -> None:
    unless(any(_is_open(number, t["secret"]) for number in range(3, 64)), "nothing is open")


def _link(target: str, name: str) -> str:
    path = os.path.join(os.getcwd(), "link-" + name)
    with suppress(FileNotFoundError):
        os.unlink(path)
    os.symlink(target, path)
    return path


def _is_open(number: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False
