"""Messages to the prompt of a model: its chat template and its tokenizer, joined.

Owns which tokens are control tokens, which texts divide turns where no token does, and what ends a reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

from qwenchat.backends.prompt import Asked, Decoder, text_to_complete
from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer
from qwenchat.backends.prompts.renderer import Piece
from qwenchat.backends.prompts.template import SWITCH, ChatTemplate
from qwenchat.backends.thinking import BEHIND, CLOSE, CUT_SHORT, OPEN, parted
from qwenchat.chat.backend import Thinks
from qwenchat.chat.chatml import content_ids
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Thought
from qwenchat.chat.rendering import shown_text
from qwenchat.errors import CheckpointError, PromptError

_PROBE = (
    Message.of_text(Role.SYSTEM, "one"),
    Message.of_text(Role.USER, "two"),
    Message.of_text(Role.ASSISTANT, "three"),
    Message.of_text(Role.USER, "four"),
)
_NO_SYSTEM = Message.of_text(Role.SYSTEM, "")
_BRACKETED = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|<<[^\s<>]+>>")


class ChatPrompt:
    """The prompt of a chat: messages to token ids by the model's template.

    Args:
        raw: the model's tokenizer.
        source: the chat template.

    Attributes:
        tokenizer: for whoever wants ids without a chat.
        template: the chat template.
        system: the system prompt that the template has of itself; None where it has no place for one.
        ends: ids that end a turn, as the template says.
        plain_borders: texts that tell turns apart, where no control token does.
        calls_in_tags: whether the template speaks of tool calls in ``<tool_call>``.
        tells_tools: whether it does so of tools, calls and results that it is given as such.
        thinks: whether the model thinks before it answers: so it is where the template, or the vocabulary,
            knows the end of thinking.

    Raises:
        CheckpointError: the template cannot hold a chat.
    """

    def __init__(self, raw: RawTokenizer, source: str) -> None:
        self.template = ChatTemplate(source, raw.names)
        written, after_reply = self._probe()
        *between, tail = written
        # Not only those that call themselves special: also what the template has for itself, as far as it is
        # no white space, of which some vocabularies have tokens too.
        words = [form for form in raw.added if form.strip()]
        self._told_thoughts = CLOSE in source
        knows_thinking = self._told_thoughts or {OPEN, CLOSE} <= raw.added.keys()
        self.thinks: Thinks = "never" if not knows_thinking else "switch" if SWITCH in source else "always"
        tags = {OPEN, CLOSE}.intersection(raw.added) if knows_thinking else set()
        borders = {*raw.special}.union(form for form in words if any(form in text for text in between)) - tags
        control = borders.union(tags, (form for form in words if form in source or form in tail))
        self.tokenizer = raw.guarded(
            {form: raw.added[form] for form in control}, [raw.added[form] for form in borders]
        )
        forms = re.compile("|".join(map(re.escape, sorted(borders, key=len, reverse=True))) or r"(?!)")
        self.plain_borders = _plain_borders(written, forms)
        end = forms.search(after_reply)
        self.ends = {raw.added[end[0]]} if end else set()
        self.system = self.template.own_system
        self.calls_in_tags = "<tool_call>" in source
        self.tells_tools = self.calls_in_tags and self.template.tells_tools
        self._begin = tuple(raw.begin)

    def text_ids(self, text: str) -> list[int]:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return [*self._begin, *self.tokenizer.encode(text)]

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of :meth:`ask`, which leaves it to the template whether the model thinks."""
        return self.ask(messages).ids

    def ask(
        self,
        messages: Sequence[Message],
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Asked:
        """The prompt that asks for the assistant's next turn.

        If the last message is the assistant's, its turn is left open, to be gone on with.

        Raises:
            PromptError: the template refuses the messages, or one of them could be taken for more than it is.
        """
        reply: Message | None = None
        if messages and messages[-1].role is Role.ASSISTANT:
            *messages, reply = messages
            think = True if reply.thought else think  # to go on with what was begun
        if messages and messages[0] == _NO_SYSTEM and not self.system:
            messages = messages[1:]  # there is none to be taken away
        switched = think if self.thinks == "switch" else None
        chat = [self._with_thought(message) for message in messages]
        pieces, said = self.template.shaped(chat, switched, tools)
        self._refuse_borders(pieces, said)
        tokens = [part for piece in pieces for part in self._with_tokens(piece, said)]
        tail = "".join(p.text for p in [*takewhile(lambda p: p.message is None, reversed(pieces))][::-1])
        opened = self.thinks != "never" and tail.rfind(OPEN) > tail.rfind(CLOSE)
        begun = [] if reply is None else self._begun(reply, opened)
        return Asked([*self.tokenizer.encode_pieces(tokens), *begun], begun, opened)

    def _begun(self, reply: Message, opened: bool) -> list[int]:
        """The tokens of a reply that is to be gone on with: those it was made of, where they are known.

        Args:
            opened: whether the prompt before it has opened the thinking.
        """
        text, thought = content_ids(self.tokenizer, reply), reply.thought
        if self.thinks == "never" or not (thought or opened):
            return text
        parts = [part for part in reply.parts if isinstance(part, Thought)]
        known = parts[0].token_ids if len(parts) == 1 else None
        read = None if known is None else self.tokenizer.reply_text(known)
        # They come from a file, and must not say more than the thought does.
        if known is not None and read is not None and parted(read, opened) == (thought, ""):
            return [*known, *text]
        return [*self.tokenizer.encode_pieces(_thinking(thought, not opened, bool(reply.text))), *text]

    def _with_thought(self, message: Message) -> Message:
        """A reply with its thoughts in its text, for a template that has its own way with them."""
        if not message.thought or not self._told_thoughts or message.role is not Role.ASSISTANT:
            return message
        pieces = [*_thinking(message.thought, True, True), Piece(message.text, 0)]
        ids = tuple(self.tokenizer.encode_pieces(pieces))
        return Message.of_text(Role.ASSISTANT, "".join(piece.text for piece in pieces), ids)

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt; of one that is refused those of its texts.

        For who counts does not ask for a reply: a toolbar has no use for a refusal.
        """
        try:
            return len(self.ids(messages))
        except PromptError:
            return sum(self.tokenizer.count(shown_text(message)) for message in messages)

    def decoder(self) -> Decoder:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        # A model that writes such a text goes on with the user's turn, and no later prompt could hold it.
        return self.tokenizer.decoder(self.plain_borders)

    def end_of_thinking(self) -> list[int]:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return self.tokenizer.encode_pieces([Piece(CUT_SHORT, 0), Piece(CLOSE), Piece(BEHIND, 0)])

    def _refuse_borders(self, pieces: Iterable[Piece], said: Sequence[Message]) -> None:
        for by_template, stretch in groupby(pieces, lambda piece: piece.message is None):
            if by_template:
                continue
            first, *rest = stretch
            text = "".join(piece.text for piece in (first, *rest))
            border = next((b for b in self.plain_borders if b in text), None)
            if border is not None and first.message is not None:
                raise PromptError(
                    "the {role} says {border}, with which this model tells turns apart",
                    "say it in other words; in a chat, /undo takes it back",
                    role=said[first.message].role.value,
                    border=border,
                )

    def _with_tokens(self, piece: Piece, said: Sequence[Message]) -> Iterator[Piece]:
        """A piece, in which the control tokens that the model itself wrote into a reply are such again."""
        at, start = 0, piece.start
        if piece.message is not None and start is not None:
            for place, form in self._places(said[piece.message]):
                begin = place - start
                if at <= begin and begin + len(form) <= len(piece.text):
                    yield Piece(piece.text[at:begin], piece.message)
                    yield Piece(form)
                    at = begin + len(form)
        yield Piece(piece.text[at:], piece.message)

    def _places(self, message: Message) -> list[tuple[int, str]]:
        return self.tokenizer.control_places(message.token_ids or (), message.text)

    def _probe(self) -> tuple[list[str], str]:
        """Probe what the template writes before, between and behind messages, and behind a reply."""
        try:
            pieces, said = self.template.shaped(_PROBE)
        except PromptError as error:
            raise CheckpointError(error.message, "this model cannot hold a chat") from error
        for number, message in enumerate(said):
            text = "".join(piece.text for piece in pieces if piece.message == number)
            if message.text.casefold() not in text.casefold():
                raise CheckpointError(
                    "the chat template leaves out a part of what is said", "this model cannot hold a chat"
                )
        written, behind, last = [""], {}, None
        for piece in pieces:
            if piece.message is None:
                written[-1] += piece.text
            elif piece.message != last:
                last = piece.message
                behind[said[last].role] = len(written)
                written.append("")
        return written, written[behind[Role.ASSISTANT]]


class TextPrompt:
    """What turns a text into the prompt of a model that is to go on with it: its ids, and what every text of
    this tokenizer begins with.

    Args:
        raw: the model's tokenizer.

    Attributes:
        tokenizer, system, ends, calls_in_tags, tells_tools, thinks: as of :class:`ChatPrompt`.
    """

    thinks: Thinks = "never"

    def __init__(self, raw: RawTokenizer) -> None:
        control = {form: raw.added[form] for form in raw.special}
        self.tokenizer = raw.guarded(control, control.values())
        self.system: str | None = ""
        self.ends: set[int] = set()
        self.calls_in_tags = self.tells_tools = False
        self._begin = tuple(raw.begin)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of :meth:`ask`."""
        return self.ask(messages).ids

    def ask(
        self,
        messages: Sequence[Message],
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Asked:
        """The prompt.

        Raises:
            PromptError: there is more than a text, or it could be taken for more than it is.
        """
        return Asked(self.text_ids(text_to_complete(messages)))

    def text_ids(self, text: str) -> list[int]:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return [*self._begin, *self.tokenizer.encode(text)]

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt."""
        return len(self.ids(messages))

    def decoder(self) -> Decoder:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return self.tokenizer.decoder(())

    def end_of_thinking(self) -> list[int]:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return []


def _thinking(thought: str, opens: bool, closes: bool) -> list[Piece]:
    """Thoughts and the tags around them, which are the template's."""
    before = [Piece(OPEN), Piece("\n", 0)] if opens else []
    behind = [Piece("\n", 0), Piece(CLOSE), Piece(BEHIND, 0)] if closes else []
    return [*before, Piece(thought, 0), *behind]


def _plain_borders(written: Sequence[str], control: re.Pattern[str]) -> tuple[str, ...]:
    """The texts that tell turns apart, if somewhere no control token does.

    Args:
        written: what a template wrote before, between and behind the messages of a chat.
        control: finds control tokens.
    """
    if all(control.search(text) or not text.strip() for text in written[1:]):
        return ()
    borders = set(_lines(control, written[0])[-1:])
    for text in written[1:]:
        borders.update(_lines(control, text))
    borders.update(word for line in [*borders] for word in _BRACKETED.findall(line))
    return tuple(sorted(borders, key=len))


def _lines(control: re.Pattern[str], text: str) -> list[str]:
    """The lines of plain text between control tokens, without white space around them."""
    return [line.strip() for part in control.split(text) for line in part.splitlines() if line.strip()]
