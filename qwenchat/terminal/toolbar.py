"""The toolbar below the prompt: the model, the context, the speed, and what else matters just now.

Owns its words, and what is left out where it is narrow. Reads the chat and changes nothing; does not draw.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prompt_toolkit.utils import get_cwidth

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import ReplyEnd
from qwenchat.i18n.language import tr
from qwenchat.terminal.sanitize import sanitize_line
from qwenchat.terminal.stats import about, speed_text

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

log = logging.getLogger("qwenchat")

_SEPARATOR = " · "
_MOST_ROWS = 3  # that are taken from what stands above


def render(chat: Chat) -> str:
    """The toolbar of a chat as it stands."""
    try:
        return _of_chat(chat)
    except Exception:  # the line below must never cost the line above
        log.debug("the toolbar failed", exc_info=True)
        return _line([chat.model])


def _of_chat(chat: Chat) -> str:
    loading, columns = chat.loading, shutil.get_terminal_size().columns
    if chat.prompt.hint:
        return chat.prompt.hint
    if loading.progress:
        return _line([tr("{path}: {reason}", path=chat.model, reason=loading.progress)])
    if loading.error is not None:
        return of_failure(chat.model, loading.error.message, columns)
    if loading.backend is None:
        return _line([chat.model])
    extras = list(_extras(chat, loading.backend))
    return of_model(loading.backend, chat.context_tokens(), chat.last, extras, columns)


def _extras(chat: Chat, backend: Backend) -> Iterator[str]:
    """What else there is to know."""
    if chat.editing is not None:
        yield tr("question {n} in other words", n=chat.editing)
    yield from chat.draft.marks(chat.prompt.text, backend)
    if chat.prompt.multiline:
        yield tr("Alt-Enter sends")
    if chat.code.sandbox:
        told = tr("Python in {sandbox}", sandbox=chat.code.sandbox)
        yield told if chat.code.is_confined else tr("Python with no sandbox")
    if not chat.is_saved:
        yield tr("not saved")


def of_model(
    backend: Backend, tokens: int, last: ReplyEnd | None, extras: Sequence[str], columns: int
) -> str:
    """What it says of a model that is there: what matters least goes first where it is narrow.

    Args:
        backend: the model.
        tokens: of the context that are taken.
        last: the end of the last reply.
        extras: what else there is to know, each a few words.
        columns: of the terminal.
    """
    used = f"{about(backend)}{tokens:,}"
    meter = tr("context {used}/{size}", used=used, size=f"{backend.context:,}")
    rate = ""
    if last is not None and last.timings.decode > 0 and last.usage.completion_tokens:
        rate = speed_text(last.usage.completion_tokens, last.timings.decode)
    full = tr("{value} ({origin})", value=backend.name, origin=backend.description)
    short = backend.name.rstrip("/").rpartition("/")[2]
    choices = (
        [full, meter, rate, *extras],
        [short, meter, rate, *extras],
        [short, meter, *extras],
        [meter, *extras],
    )
    texts = [_line([part for part in parts if part]) for parts in choices]
    fitting = next((text for text in texts if get_cwidth(text) <= columns), None)
    if fitting is not None:
        return fitting
    rows = _in_rows(texts[-1], columns)
    return rows if rows.count("\n") < _MOST_ROWS else texts[-1]


def of_failure(model: str, why: str, columns: int) -> str:
    """What it says where the model could not be loaded: all of it, in as many rows as it takes."""
    told = tr("{message}; {hint}", message=why, hint=tr("/model NAME tries another"))
    return _in_rows(_line([tr("{path}: {reason}", path=model, reason=told)]), columns)


def _in_rows(line: str, columns: int) -> str:
    """All of a line, in as many rows as it takes."""
    from qwenchat.terminal.rows import wrap_line  # brings Rich, for which the prompt need not wait

    return "\n".join(wrap_line(line, columns, hang=2))


def _line(parts: Sequence[str]) -> str:
    """Parts as one line."""
    return sanitize_line(_SEPARATOR.join(parts))
