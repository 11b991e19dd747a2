"""A chat template's rendering, taken apart: what the template wrote, and what the messages said.

A template writes both into one text, and there a message that says ``<|im_end|>`` ends its turn. So the
template is run twice. Once with a mark that nobody can guess in place of each content: what stands between
the marks is the template's own. Once with the contents, to see what it makes of them; only changes that leave
no doubt which part is whose are followed. Knows nothing of tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jinja2 import TemplateError

from qwenchat.backends.huggingface.sandbox import BoundedSandbox
from qwenchat.chat.messages import Message, Role
from qwenchat.errors import CheckpointError, PromptError
from qwenchat.language import tr

_END_OF_THINKING = "</think>"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered prompt.

    Attributes:
        text: what it says.
        verbatim: whether a message says it; else the template does.
    """

    text: str
    verbatim: bool


class ChatTemplate:
    """A checkpoint's chat template.

    Args:
        source: the Jinja template.
        specials: what it may name: ``bos_token`` and the like, with their written forms.

    Raises:
        CheckpointError: it is no template.
    """

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        try:
            self._sandbox = BoundedSandbox(source)
        except (TemplateError, RecursionError) as error:
            raise CheckpointError(
                tr("the chat template cannot be read: {reason}", reason=_line(error))
            ) from error
        self._specials = dict(specials)

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """The prompt that asks for a reply to ``messages``: the template's pieces and the messages', in turn,
        from a template's to a template's.

        A template that refuses a chat as it is, gets neighbours of one role as one message, and then the
        system prompt before the first message: so every chat can be had that other programs make of it.

        Raises:
            PromptError: it refuses them all, or changes a text in a way that cannot be followed.
        """
        refusal: PromptError | None = None
        for shape in _shapes(messages):
            try:
                return self._pieces(shape)
            except PromptError as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def takes_system(self) -> bool:
        """Whether the template has a place of its own for a system prompt."""
        try:
            self._pieces([Message(Role.SYSTEM, "a"), Message(Role.USER, "b")])
        except PromptError:
            return False
        return True

    def _pieces(self, messages: Sequence[Message]) -> list[Piece]:
        now = datetime.now()  # once, for a template that writes the time
        marks = [f"q{secrets.token_hex(16)}q" for _ in messages]
        literals = _between(self._render(messages, marks, now), marks)
        rendered = self._render(messages, [m.content for m in messages], now)
        pieces = [Piece(literals[0], verbatim=False)]
        at = len(literals[0])
        if not rendered.startswith(literals[0]):
            raise _changed(messages[0])
        for message, literal in zip(messages, literals[1:], strict=True):
            kept = next((k for k in _kept(message.content) if rendered.startswith(k + literal, at)), None)
            if kept is None:
                raise _changed(message)
            pieces += [Piece(kept, verbatim=True), Piece(literal, verbatim=False)]
            at += len(kept) + len(literal)
        if at != len(rendered):
            raise _changed(messages[-1])
        return pieces

    def _render(self, messages: Sequence[Message], contents: Sequence[str], now: datetime) -> str:
        chat = [{"role": m.role.value, "content": c} for m, c in zip(messages, contents, strict=True)]
        values = {"messages": chat, "tools": None, "documents": None, "add_generation_prompt": True}
        try:
            return self._sandbox.render(now, {**self._specials, **values})
        except TemplateError as error:
            raise PromptError(
                tr("the chat template refuses the chat: {reason}", reason=_line(error))
            ) from error


def _shapes(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The chat, and the shapes that it may be given where a template does not take it as it is."""
    yield list(messages)
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role is message.role:
            message = _join(joined.pop(), message)
        joined.append(message)
    if len(joined) < len(messages):
        yield joined
    if len(joined) > 1 and joined[0].role is Role.SYSTEM and joined[1].role is Role.USER:
        yield [_join(joined[0], joined[1]), *joined[2:]]


def _join(first: Message, second: Message) -> Message:
    return Message(second.role, "\n\n".join(filter(None, (first.content, second.content))))


def _between(text: str, marks: Sequence[str]) -> list[str]:
    """What stands before, between and behind the marks, each of which must be there once, in their order."""
    literals = []
    for mark in marks:
        literal, found, text = text.partition(mark)
        literals.append(literal)
        if not found or mark in text:
            raise PromptError(
                tr("the chat template leaves out a message, repeats it or moves it"),
                tr("this model cannot hold this chat"),
            )
    return [*literals, text]


def _kept(content: str) -> Iterator[str]:
    """What a template may make of a content: all of it, all but its ends, all after a reply's thinking."""
    for text in (content, content.rpartition(_END_OF_THINKING)[2]):
        yield from (text, text.strip(), text.lstrip(), text.rstrip())
        yield from (text.strip("\n"), text.lstrip("\n"), text.rstrip("\n"))


def _changed(message: Message) -> PromptError:
    return PromptError(
        tr(
            "the chat template changes what the {role} said, in a way that cannot be followed",
            role=message.role.value,
        ),
        tr("say it in other words; in a chat, /undo takes it back"),
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
