"""Messages to the prompt of a model: its chat template and its tokenizer, joined.

Owns which tokens are control tokens, which texts divide turns where no token does, and what ends a reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from qwenchat.backends.local import Decoder, text_to_complete
from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer
from qwenchat.backends.prompts.renderer import Piece
from qwenchat.backends.prompts.template import ChatTemplate
from qwenchat.chat.chatml import content_ids
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
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
        borders = {*raw.special}.union(form for form in words if any(form in text for text in between))
        control = borders.union(form for form in words if form in source or form in tail)
        self.tokenizer = raw.guarded(
            {form: raw.added[form] for form in control}, [raw.added[form] for form in borders]
        )
        forms = re.compile("|".join(map(re.escape, sorted(borders, key=len, reverse=True))) or r"(?!)")
        self.plain_borders = _plain_borders(written, forms)
        end = forms.search(after_reply)
        self.ends = {raw.added[end[0]]} if end else set()
        self.system = self.template.own_system
        self.calls_in_tags = "<tool_call>" in source

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt that asks for the assistant's next turn.

        If the last message is the assistant's, its turn is left open, to be gone on with.

        Raises:
            PromptError: the template refuses the messages, or one of them could be taken for more than it is.
        """
        begun: list[int] = []
        if messages and messages[-1].role is Role.ASSISTANT:
            begun = content_ids(self.tokenizer, messages[-1])
            messages = messages[:-1]
        if messages and messages[0] == _NO_SYSTEM and not self.system:
            messages = messages[1:]  # there is none to be taken away
        pieces, said = self.template.shaped(messages)
        self._refuse_borders(pieces, said)
        tokens = [part for piece in pieces for part in self._with_tokens(piece, said)]
        return [*self.tokenizer.encode_pieces(tokens), *begun]

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt; of one that is refused those of its texts.

        For who counts does not ask for a reply: a toolbar has no use for a refusal.
        """
        try:
            return len(self.ids(messages))
        except PromptError:
            return sum(self.tokenizer.count(shown_text(message)) for message in messages)

    def decoder(self, stop: Sequence[str]) -> Decoder:
        """As of :class:`~qwenchat.backends.local.Prompt`."""
        # A model that writes such a text goes on with the user's turn, and no later prompt could hold it.
        return self.tokenizer.decoder((*stop, *self.plain_borders))

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
        tokenizer, system, ends, calls_in_tags: as of :class:`ChatPrompt`.
    """

    def __init__(self, raw: RawTokenizer) -> None:
        control = {form: raw.added[form] for form in raw.special}
        self.tokenizer = raw.guarded(control, control.values())
        self.system: str | None = ""
        self.ends: set[int] = set()
        self.calls_in_tags = False
        self._begin = tuple(raw.begin)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt.

        Raises:
            PromptError: there is more than a text, or it could be taken for more than it is.
        """
        return [*self._begin, *self.tokenizer.encode(text_to_complete(messages))]

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt."""
        return len(self.ids(messages))

    def decoder(self, stop: Sequence[str]) -> Decoder:
        """As of :class:`~qwenchat.backends.local.Prompt`."""
        return self.tokenizer.decoder(stop)


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
