"""The sandbox: what it must deny is denied, by each way of confining, and what it must not deny works.

Every attempt is made without a sandbox too, where it succeeds: else its denial would prove nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from qwenchat.errors import SandboxError
from qwenchat.sandbox import landlock, start
from qwenchat.sandbox.policy import MIB, Ended, Policy
from qwenchat.sandbox.trial import run
from tests.places import ROOT

SLOW_LIMITS = ("compute longer than allowed", "open more files than allowed", "run longer than allowed")
OF_ROOT = {
    *("write into the interpreter", "mount something", "make a mount namespace", "change the root"),
    *("enter the namespaces of another", "become another user", "load a program into the kernel"),
    *("make a device", "set the kernels values"),
}
"""What only root can do without a sandbox."""
OF_NAMESPACES = {"make a user namespace", "make a mount namespace"}
MAY_BE_MISSING = {
    *("connect by tcp of ipv6", "ask for the machines routes", "trace another process"),
    *("read the memory of another", "open a ring of calls", "keep a secret in the kernel"),
    *("make a user namespace", "share memory with others", "reach what process 1 has open"),
    *("look about as process 1", "read the memory of process 1"),
}
"""What a machine may be without, or forbid everybody."""

INTERPRETER = (Path(sys.prefix), Path(sys.base_prefix))


@pytest.fixture(scope="module", autouse=True)
def a_sandbox() -> str:
    try:
        return start.in_force()
    except SandboxError as error:
        pytest.skip(str(error))


def tried(*where: str) -> dict[str, Any]:
    """The trial as another user, without namespaces, without Landlock, or by bubblewrap."""
    if not landlock.abi() and "old" not in where:
        pytest.skip("this kernel has no Landlock")
    if "bubblewrap" in where and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    if "user" in where and os.getuid() != 0:
        pytest.skip("only root can become an ordinary user")
    command = [sys.executable, "-m", "tests.sandbox.trial_program", *where]
    with tempfile.TemporaryDirectory(prefix="qwenchat-tests-") as place:
        environment = {**os.environ, "TRIAL_PLACE": place}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    if "user" in where and "unshare" in done.stderr:
        pytest.skip("no mount namespace, in which another user could see Python")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def hold(outcomes: list[dict[str, str]], may_be_untried: set[str]) -> None:
    """All is denied, and what of it could not be tried is known."""
    assert [outcome for outcome in outcomes if outcome["state"] == "done"] == []
    untried = {outcome["attempt"] for outcome in outcomes if outcome["state"] == "untried"}
    assert untried <= may_be_untried | MAY_BE_MISSING
    assert sum(outcome["state"] == "denied" for outcome in outcomes) >= 40


# --- attempts ----------------------------------------------------------------------------------------


def test_every_attempt_is_denied_here() -> None:
    hold([asdict(outcome) for outcome in run.attempts()], set() if os.getuid() == 0 else OF_ROOT)


WHERE = {
    "forbidden": "seccomp + Landlock",
    "user": "namespaces + Landlock",
    "old": "namespaces",
    "user forbidden": "seccomp + Landlock",
    "user old": "namespaces",
    "bubblewrap": "bubblewrap + Landlock",
    "user old bubblewrap": "bubblewrap",
}
"""Without namespaces, as an ordinary user, without Landlock: what confines there."""


@pytest.mark.parametrize("where", ["forbidden", "user", "old"])
def test_every_attempt_is_denied_elsewhere(where: str) -> None:
    said = tried(*where.split())
    hold(said["outcomes"], OF_ROOT | OF_NAMESPACES)


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_every_limit_holds_everywhere(where: str) -> None:
    said = tried(*where.split(), *run.LIMITS)
    assert said["sandbox"] == WHERE[where]
    broken = [outcome for outcome in said["outcomes"] if outcome["kind"] == "limits"]
    limits = {outcome["attempt"]: outcome["state"] for outcome in broken}
    assert limits == dict.fromkeys(run.LIMITS, "denied")
    hold(said["outcomes"], OF_ROOT | OF_NAMESPACES)


def test_limits_hold() -> None:
    outcomes = list(run.limits([name for name in run.LIMITS if name not in SLOW_LIMITS]))
    assert {outcome.state for outcome in outcomes} == {"denied"}, outcomes


def test_nothing_runs_where_nothing_can_confine(tmp_path: Path) -> None:
    """Neither namespaces nor Landlock, as on an old kernel in a container."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.sandbox.trial_program import forbid_namespaces, forbid\n"
        "from qwenchat.sandbox import start; from qwenchat.sandbox.policy import Policy\n"
        "forbid_namespaces(); forbid('landlock_create_ruleset')\n"
        "start.shutil.which = lambda name: None\n"
        f"start.run(Policy((Path({str(tmp_path)!r}),)), ['/bin/sh', '-c', 'echo > ran'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "SandboxError: nothing here can confine a program, so none is run: namespaces: " in done.stderr
    assert "seccomp: this kernel has no Landlock" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- what works --------------------------------------------------------------------------------------


def sh(folder: Path, script: str, **policy: Any) -> Ended:
    return start.run(Policy((folder,), **policy), ["/bin/sh", "-c", script], given=b"given\n")


def test_a_program_reads_prints_and_writes_its_folder(tmp_path: Path) -> None:
    script = 'read line; echo "$line" > out; pwd; echo bad >&2; exit 3'
    ended = sh(tmp_path / "new", script)
    assert (ended.code, ended.stdout, ended.stderr) == (3, f"{tmp_path}/new\n".encode(), b"bad\n")
    assert (tmp_path / "new" / "out").read_text() == "given\n"


def test_a_program_has_a_folder_of_its_own_for_what_is_temporary(tmp_path: Path) -> None:
    ended = sh(tmp_path, 'echo x > "$TMPDIR/y" && echo "$TMPDIR" && echo x > /dev/null')
    assert ended.code == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_is_told_a_few_variables_and_those_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    policy = Policy((tmp_path,), INTERPRETER)
    command = [sys.executable, "-I", "-c", "import os; print(sorted(os.environ), os.environ['GIVEN'])"]
    ended = start.run(policy, command, {"GIVEN": "yes"})
    assert b"HF_TOKEN" not in ended.stdout
    assert ended.stdout.endswith(b" yes\n")


def test_a_folder_to_read_is_read_and_not_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("a")
    ended = start.run(
        Policy((tmp_path / "w",), (data,)), ["/bin/sh", "-c", f"cat {data}/a; echo b > {data}/a || echo no"]
    )
    assert ended.stdout == b"ano\n"
    assert (data / "a").read_text() == "a"


def test_of_what_is_printed_no_more_is_kept_than_allowed(tmp_path: Path) -> None:
    ended = sh(tmp_path, "head -c 3000000 /dev/zero", output=MIB)
    assert (len(ended.stdout), ended.limit) == (MIB, "output")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="/no/such/program"):
        start.run(Policy((tmp_path,)), ["/no/such/program"])


def test_with_the_launcher_ends_all_that_it_started(tmp_path: Path) -> None:
    """The launcher's own end, by a kill -9, is the worst that can befall it."""
    script = "sleep 600 & echo started; sleep 600"
    confined = start.start(Policy((tmp_path,), wall_seconds=None), ["/bin/sh", "-c", script])
    with contextlib.closing(confined):
        assert confined.stdout.read(1)
        confined.kill()
        confined.stdout.read()  # ends when nobody is left who could write
