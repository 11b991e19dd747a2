"""What a model thinks before it answers, on stderr; and what it cannot do of what is asked of that."""

from __future__ import annotations

import sys
from contextlib import suppress

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import GenerationOptions
from qwenchat.errors import OutputClosed, QwenchatError
from qwenchat.i18n.language import tr
from qwenchat.terminal.console import PlainWriter, colors, stderr_console
from qwenchat.terminal.theme import current


class ThoughtWriter:
    """Writes thoughts on stderr as they come, dim on a terminal; a closed stderr is nobody reading."""

    def __init__(self) -> None:
        self._text: PlainWriter | None = None

    def push(self, text: str) -> None:
        """Writes the next piece."""
        if sys.stderr is None:
            return
        if self._text is None:
            self._text = PlainWriter(sys.stderr, _painted)
        with suppress(OutputClosed, QwenchatError):
            self._text.push(text)

    def finish(self) -> None:
        """Sets the answer apart, if anything was thought."""
        text, self._text = self._text, None
        if text is not None:
            with suppress(OutputClosed, QwenchatError):
                text.finish()
                text.push("\n")


def _painted(text: str) -> str:
    """A text on stderr in the look of what is said beside the answer."""
    palette = colors(stderr_console())
    if palette is None:
        return text
    from qwenchat.terminal.rows import Span, paint

    return paint([Span(text, current().notice)], palette)


def unheard(backend: Backend, options: GenerationOptions) -> str:
    """What to say where a model cannot do what is asked of its thinking; empty where it can."""
    if backend.call_form == "openai" and options.think_tokens is not None:
        return tr("--think-tokens does nothing with a model on a server")
    if backend.thinks == "always" and options.think is False:
        return tr("this model always thinks before it answers; --think-tokens N limits that")
    if backend.thinks == "never" and (options.think or options.think_tokens is not None):
        return tr("this model does not think before it answers")
    return ""
