"""A tool: what a model is told of it, and what runs when it is called."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from qwenchat.tools.forms import Definition


class ToolError(Exception):
    """A call failed; its text, in English, is what the model reads."""


class Tool(Protocol):
    """What a model can call."""

    @property
    def definition(self) -> Definition:
        """What the model is told."""

    @property
    def origin(self) -> str:
        """Where it is from, or what it may do, in a few words for the user."""

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        """Does it. Setting ``cancel``, from any thread, ends it soon.

        Args:
            arguments: as the definition says; of code, under the name ``code``.

        Raises:
            ToolError: it failed.
        """

    def preview(self, arguments: Mapping[str, Any]) -> str:
        """What the user should see before saying yes, besides the arguments; empty if that is all.

        Raises:
            ToolError: it cannot be done.
        """

    def rule(self, arguments: Mapping[str, Any]) -> str:
        """The rule that allows this call and those like it."""

    def pin(self, cancel: threading.Event) -> str:
        """What must be as it was when the user allowed the tool; empty if that cannot change.

        Raises:
            ToolError: it cannot be had.
        """

    def risk(self) -> Risk | None:
        """What no rule may allow; None if a rule may."""

    def close(self) -> None:
        """Ends what it has running."""


@dataclass(frozen=True, slots=True)
class Risk:
    """A tool that cannot run as it should. Only a yes of the user, to each call, lets it run otherwise.

    Attributes:
        reason: why it cannot.
        tool: what runs after a yes, once.
    """

    reason: str
    tool: Tool


class PlainTool:
    """What is so of most tools: nothing to see before a call but its arguments, nothing that runs on."""

    def preview(self, arguments: Mapping[str, Any]) -> str:
        return ""

    def pin(self, cancel: threading.Event) -> str:
        return ""

    def risk(self) -> Risk | None:
        return None

    def close(self) -> None:
        pass
