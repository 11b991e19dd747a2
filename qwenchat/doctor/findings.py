"""What was found, as values; how it is told is ``cli/doctor.py``'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwenchat.models.published import Published
from qwenchat.sandbox.trial.run import Outcome

State = Literal["good", "note", "bad"]
"""Good; worth knowing; or something that is broken or missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: what it is about, a word that stays the same in every language.
        state: how it is.
        text: what was found, in a line.
        hint: what to do about it.
        facts: the same for programs.
    """

    area: str
    state: State
    text: str
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fit:
    """The fit of a model on a device: its memory, and the kernels that would run it.

    Attributes:
        device: "cpu" or "cuda:N".
        needed, free: bytes of memory.
        kernels: what would multiply.
        why_not: why that is not our own kernels, or None.
    """

    device: str
    needed: int
    free: int
    kernels: str
    why_not: str | None

    @property
    def fits(self) -> bool:
        """True if the memory suffices now."""
        return self.needed <= self.free


@dataclass(frozen=True, slots=True)
class ModelFit:
    """A known model, and how it would do on this machine.

    Attributes:
        model: which.
        folder: where it is on this machine, or None.
        fits: on each device, the fastest first.
    """

    model: Published
    folder: Path | None
    fits: tuple[Fit, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a chat would do.

    Attributes:
        text: the model that it would answer with, in a line.
        system: the system prompt that the model has of itself; None where it has no place for one.
    """

    text: str
    system: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found.

    Attributes:
        findings: in the order in which they are told.
        models: the known ones; none where torch cannot be imported.
        attempts: to get out of the sandbox; none where there is none.
        chat: what a chat would do; bad where it would fail.
        exit_code: what the chat would end with; 0 if it would work.
    """

    findings: tuple[Finding, ...]
    models: tuple[ModelFit, ...]
    attempts: tuple[Outcome, ...]
    chat: Finding
    exit_code: int
