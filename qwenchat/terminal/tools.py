"""The tools of a chat: which there are, which rules hold, and the model seen through them."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.parts import Role, ToolResult
from qwenchat.paths import data_dir
from qwenchat.settings.schema import Settings
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.loop import ToolLoop
from qwenchat.tools.pins import Pins
from qwenchat.tools.rules import Rules
from qwenchat.tools.toolbox import Toolbox

RESULT_SHARE = 4
"""Of the context, the part that a tool's result may take."""

if TYPE_CHECKING:
    from qwenchat.tools.interpreter import Interpreter


class ChatTools:
    """The tools of one chat; to be closed.

    Args:
        python: runs Python and gives the observation.
        specs: the tools that the user named.
        allow, deny: the rules that the user wrote.
        unconfined: runs Python where nothing confines it, after a yes to each run; None: it is not run there.
        max_steps: steps with calls that an answer may take.
        pins: the file of what the user allowed before; None for none.

    Attributes:
        box, rules: the tools, the rules.

    Raises:
        UsageError: a tool or a rule is none.
    """

    def __init__(
        self,
        python: Callable[[str, threading.Event], str],
        specs: Iterable[str] = (),
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        *,
        unconfined: Callable[[str, threading.Event], str] | None = None,
        max_steps: int = 8,
        pins: Path | None = None,
    ) -> None:
        self.rules = Rules(allow, deny)
        self.box = Toolbox(python, unconfined)
        self._max_steps, self._pins = max_steps, Pins(pins)
        self._seen: ToolBackend | None = None
        try:
            for spec in specs:
                self.box.add(spec)
        except BaseException:
            self.box.close()
            raise

    @classmethod
    def of(
        cls,
        settings: Settings,
        python: Callable[[str, threading.Event], str],
        unconfined: Callable[[str, threading.Event], str] | None = None,
    ) -> ChatTools:
        """The tools and rules of the settings; raises as the class."""
        pins = data_dir() / "tools.json" if settings.save else None
        return cls(
            python,
            settings.tools,
            settings.allow,
            settings.deny,
            unconfined=unconfined,
            max_steps=settings.max_steps,
            pins=pins,
        )

    def loop(self, context: int) -> ToolLoop:
        """The loop of an answer, by a model with such a context."""
        return ToolLoop(
            self.box,
            self.rules,
            max_steps=self._max_steps,
            result_tokens=context // RESULT_SHARE,
            pins=self._pins,
        )

    def seen_through(self, backend: Backend) -> ToolBackend:
        """The model, which calls the tools that there are now."""
        if self._seen is None or self._seen.inner is not backend:
            self._seen = ToolBackend(backend)
        self._seen.tools = self.box.definitions
        return self._seen

    def close(self) -> None:
        """Ends what the tools have running."""
        self.box.close()


class ScratchPython:
    """Python in a folder that goes when it is closed.

    Args:
        python: the interpreter whose packages there are; empty for our own.
    """

    def __init__(self, python: str = "") -> None:
        self._python = python
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._interpreter: Interpreter | None = None

    def run(self, code: str, cancel: threading.Event) -> str:
        """Runs code after what ran before, and gives the observation; raises as the interpreter."""
        if self._interpreter is None:
            from qwenchat.tools.interpreter import Interpreter  # most never run any

            self._folder = tempfile.TemporaryDirectory(prefix="qwenchat-")
            self._interpreter = Interpreter(Path(self._folder.name), python=self._python)
        return self._interpreter.run(code, cancel).observation

    def close(self) -> None:
        """Ends the interpreter; its files go."""
        if self._interpreter is not None:
            self._interpreter.close()
        if self._folder is not None:
            self._folder.cleanup()


def results(conversation: Conversation) -> list[ToolResult]:
    """What came of the calls on the path, in order."""
    said = [node.message for node in conversation.path() if node.role is Role.TOOL]
    return [part for message in said for part in message.parts if isinstance(part, ToolResult)]
