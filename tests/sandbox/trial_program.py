"""Holds the trial of the sandbox where a test cannot: as another user, or where namespaces are forbidden.

    python -m tests.sandbox.trial_program [user] [forbidden] [old] [bubblewrap] [limit ...]

Standard library and our own package alone: another user may see no environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from qwenchat.sandbox import kernel, namespaces, seccomp, start
from qwenchat.sandbox.trial import run
from tests.places import ROOT

USER = 65534
MS_BIND = 4096


def become_a_user() -> None:
    """Goes on as an ordinary user, who sees Python and the repository, wherever root keeps them.

    TRIAL_PLACE names an empty folder, which only this process sees filled.
    """
    kernel.call("unshare", kernel.CLONE_NEWNS)
    kernel.call("mount", b"none", b"/", None, namespaces.MS_REC | namespaces.MS_PRIVATE, None)
    place = Path(os.environ["TRIAL_PLACE"])
    kernel.call("mount", b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"mode=755")
    for name, source in (("python", Path(sys.base_prefix)), ("repository", ROOT)):
        (place / name).mkdir()
        target = os.fsencode(place / name)
        kernel.call("mount", os.fsencode(source), target, None, MS_BIND | namespaces.MS_REC, None)
    for name in ("home", "tmp"):
        (place / name).mkdir()
        os.chown(place / name, USER, USER)
    os.chdir(place / "home")
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    python = place / "python" / "bin" / Path(sys.executable).resolve().name
    environment = {
        "HOME": str(place / "home"),
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(place / "repository"),
        "TMPDIR": str(place / "tmp"),
    }
    arguments = [argument for argument in sys.argv[1:] if argument != "user"]
    os.execve(python, [str(python), "-m", "tests.sandbox.trial_program", *arguments], environment)


def forbid_namespaces() -> None:
    """Takes namespaces from this process and all it starts, as containers and some systems do."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    rules = [*seccomp.deny(["unshare"]), *seccomp.deny(["clone3"], 38)]
    seccomp.install([*rules, *seccomp.if_any_bit("clone", 0, seccomp.NAMESPACES)])


def forbid(name: str) -> None:
    """Takes one call away, as a kernel without it."""
    seccomp.install(seccomp.deny([name], 38))


def main(arguments: Sequence[str]) -> None:
    if "user" in arguments:
        become_a_user()
    if "forbidden" in arguments:
        forbid_namespaces()
    if "old" in arguments:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        forbid("landlock_create_ruleset")
    if "bubblewrap" in arguments:
        start.prefer("bubblewrap")
    limits = [argument for argument in arguments if argument in run.LIMITS]
    outcomes = [*run.attempts(), *run.limits(limits)]
    rows = [asdict(outcome) for outcome in outcomes]
    print(json.dumps({"sandbox": start.in_force(), "uid": os.getuid(), "outcomes": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
