"""What confines the code that a model writes, and whether it holds: attempts that it must deny."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qwenchat.doctor.findings import Finding
from qwenchat.errors import SandboxError
from qwenchat.i18n.language import plural, tr, translated
from qwenchat.sandbox import start
from qwenchat.sandbox.trial import run
from qwenchat.sandbox.trial.run import Outcome

_LIMITS = (
    "start more processes than allowed",
    "take more memory than allowed",
    "fill the disk with files",
    "outlive its end",
)


def sandbox() -> tuple[Finding, tuple[Outcome, ...]]:
    """Holds the trial. Without a sandbox a chat works, but asks before code runs."""
    try:
        name = start.in_force()
        outcomes = (*run.attempts(), *run.limits(_LIMITS))
    except SandboxError as error:
        none = {"sandbox": None, "attempts": ()}
        then = tr("a chat asks before each run of code") if start.lacking() else tr("no code is run here")
        return Finding("sandbox", "note", translated(error.message), then, none), ()
    facts: dict[str, Any] = {"sandbox": name, "attempts": [asdict(outcome) for outcome in outcomes]}
    holes = [outcome.attempt for outcome in outcomes if outcome.state == "done"]
    if holes:
        text = tr("{name} does not hold: code could {attempts}", name=name, attempts=tr(", ").join(holes))
        return Finding("sandbox", "bad", text, tr("run no code here"), facts), outcomes
    denied = sum(outcome.state == "denied" for outcome in outcomes)
    text = tr(
        "{name}; {attempts}",
        name=name,
        attempts=plural(denied, "one attempt to get out denied", "{count} attempts to get out denied"),
    )
    return Finding("sandbox", "good", text, facts=facts), outcomes
