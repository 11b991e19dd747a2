"""A tokenizer of the tokenizers library, in which no text but the template's makes control tokens.

A second tokenizer, alike but for its control tokens, which are written as random words in it, encodes
prompts: the template's control tokens are put in by these words, and the written forms that others know are
plain text to it. So the rest is encoded to the letter as transformers would.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import Any

from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer, control_places
from qwenchat.backends.prompts.renderer import Piece
from qwenchat.errors import PromptError
from qwenchat.text.byte_characters import bytes_of_characters
from qwenchat.text.byte_pair_tokenizer import cut
from qwenchat.tokenizer import StopStrings

_HALF = "\ufffd"
_SPACE = "\u2581"
"""Stands for a space in the vocabularies of SentencePiece."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_PATIENCE = 8
"""Tokens that a character may take; what is no character after so many never becomes one."""


def raw_tokenizer(
    tokenizer: Any, names: Mapping[str, str], merged: Callable[[str], list[int]] | None = None
) -> RawTokenizer:
    """A ``tokenizers.Tokenizer`` before its control tokens are chosen.

    Args:
        names: as of :class:`RawTokenizer`.
        merged: as of :class:`HubTokenizer`.
    """
    tokens = tokenizer.get_added_tokens_decoder().items()
    letter = tokenizer.encode("a")
    marked = zip(letter.ids, letter.special_tokens_mask, strict=True)
    return RawTokenizer(
        added={str(token.content): token_id for token_id, token in tokens},
        special={str(token.content) for _, token in tokens if token.special},
        names=names,
        begin=[token_id for token_id, _ in takewhile(lambda pair: pair[1], marked)],
        guarded=partial(HubTokenizer, tokenizer, merged=merged),
    )


class HubTokenizer:
    """Text to token ids and back.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        control: the written forms that no text may make, with their ids.
        special_ids: ids that are never part of a reply's text.
        merged: the ids of a text without added tokens, where the library's are not the model's.
    """

    def __init__(
        self,
        tokenizer: Any,
        control: Mapping[str, int],
        special_ids: Collection[int],
        merged: Callable[[str], list[int]] | None = None,
    ) -> None:
        self._merged = merged
        self._tokenizer = tokenizer
        self._control = {token_id: form for form, token_id in control.items()}
        self._special_ids = frozenset(special_ids)
        self._words = {form: secrets.token_hex(16) for form in control}
        self._forms = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
        layout = json.loads(tokenizer.to_str())
        self._guarded, self._ids = self._guard(layout)
        self._added: dict[int, str] = {token["id"]: token["content"] for token in layout["added_tokens"]}
        self._decoders = _kinds(layout["decoder"])

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; what looks like a control token is ordinary text.

        Raises:
            PromptError: the vocabulary has no ordinary tokens for it.
        """
        return self.encode_pieces([Piece(text, message=0)])

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt.

        Raises:
            PromptError: a message's text would become a control token even so.
        """
        placed: list[str] = []

        def place(found: re.Match[str]) -> str:
            placed.append(found[0])
            return self._words[found[0]]

        text = "".join(self._forms.sub(place, p.text) if p.message is None else p.text for p in pieces)
        ids = [self._ids.get(i, i) for i in self._encode(text)]
        if [i for i in ids if i in self._control] != [self._tokenizer.token_to_id(f) for f in placed]:
            raise PromptError(
                "the message holds what this model's tokenizer can only read as a control token",
                "say it in other words; in a chat, /undo takes it back",
            )
        return ids

    def count(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self._encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without special tokens. It is not tidied up, as transformers may do: that would
        change code."""
        with _told_in_a_line():
            text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def decode_token(self, token_id: int) -> bytes:
        """The bytes of one token, perhaps a part of a character; of an added one, as control tokens are, its
        written form. A space that :meth:`decode` leaves out at the begin of a text is there.

        Raises:
            PromptError: the id is not in the vocabulary.
        """
        if token_id in self._added:
            return self._added[token_id].encode()
        form: str | None = self._tokenizer.id_to_token(token_id) if 0 <= token_id < 2**32 else None
        if form is None:
            size = self._tokenizer.get_vocab_size()
            raise PromptError(
                "the token id {id} is not in the vocabulary of {count}", id=token_id, count=size
            )
        if "ByteLevel" in self._decoders:
            byte_of = bytes_of_characters()
            if all(letter in byte_of for letter in form):
                return bytes(byte_of[letter] for letter in form)
        if "ByteFallback" in self._decoders and _BYTE.fullmatch(form):
            return bytes([int(form[3:5], 16)])
        return form.replace(_SPACE, " ").encode()

    def reply_text(self, ids: Sequence[int]) -> str | None:
        """The text that a reply of these tokens has, as :class:`WindowDecoder` gives it out.

        None if one of them is special, or none of this vocabulary.
        """
        known = range(self._tokenizer.get_vocab_size())
        if not self._special_ids.isdisjoint(ids) or not all(i in known for i in ids):
            return None
        return self.decode(ids).rstrip(_HALF)

    def control_places(self, ids: Sequence[int], text: str) -> list[tuple[int, str]]:
        """The control tokens in a reply's text: their offsets and forms.

        There are none where the ids are not those of the text: they come from a file.
        """
        marked = any(token_id in self._control for token_id in ids)
        if not marked or self.reply_text(ids) != text:
            return []
        return control_places(ids, self._control, self.decode)

    def decoder(self, stop: Sequence[str]) -> WindowDecoder:
        """Token ids to text as they come."""
        return WindowDecoder(self, stop)

    def _encode(self, text: str) -> list[int]:
        # As tiktoken does: halves of a surrogate pair are one character, one alone is none.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if self._merged is not None:
            parts = cut(text, self._placed)
            return [i for part in parts for i in self._placed.get(part) or self._merged(part)]
        with _told_in_a_line():
            ids: list[int] = self._guarded.encode(text, add_special_tokens=False).ids
        return ids

    def _guard(self, layout: dict[str, Any]) -> tuple[Any, dict[int, int]]:
        """The tokenizer for prompts, and which of its ids stand for others."""
        forms = [token["content"] for token in layout["added_tokens"]]
        names = {form: self._words.get(form, form) for form in forms}
        added = [{**token, "content": names[token["content"]]} for token in layout["added_tokens"]]
        # Prompts are cut and filled up by nobody.
        layout = {**layout, "truncation": None, "padding": None, "added_tokens": added}
        guarded = type(self._tokenizer).from_str(json.dumps(layout))
        ids = {guarded.token_to_id(name): self._tokenizer.token_to_id(form) for form, name in names.items()}
        self._placed = {name: [guarded.token_to_id(name)] for name in names.values()}
        return guarded, ids


def _kinds(decoder: dict[str, Any] | None) -> set[str]:
    """The kinds of decoders that one of the tokenizers library is made of."""
    if decoder is None:
        return set()
    return {str(decoder["type"])}.union(*map(_kinds, decoder.get("decoders", ())))


@contextmanager
def _told_in_a_line() -> Iterator[None]:
    """Turn the library's errors about texts or ids that its tokenizer cannot take into one line."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        reason = " ".join(str(error).split())[:200]
        raise PromptError("the model's tokenizer fails: {reason}", reason=reason) from error


class WindowDecoder:
    """Token ids to text as they come, for a reply, whatever the tokenizer.

    What a token adds may depend on those before it, so it is read off from a decoding of the last few. A
    character is given out once it is whole.

    Args:
        tokenizer: of the ids.
        stop: as of :class:`~qwenchat.tokenizer.StopStrings`.
    """

    def __init__(self, tokenizer: HubTokenizer, stop: Sequence[str] = ()) -> None:
        self._decode = tokenizer.decode
        self._stops = StopStrings(stop)
        # The last tokens, how many of them have been given out, and the text of these.
        self._ids: list[int] = []
        self._told, self._told_text = 0, ""

    @property
    def stopped(self) -> str:
        """The stop string that was met; empty while none was."""
        return self._stops.stopped

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that became certain, perhaps none."""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        waiting = text.endswith(_HALF) and len(self._ids) - self._told < _PATIENCE
        if waiting or len(text) <= len(self._told_text):
            return ""
        fresh = text[len(self._told_text) :]
        self._ids = self._ids[self._told :]
        self._told, self._told_text = len(self._ids), self._decode(self._ids)
        return self._stops.push(fresh)

    def finish(self) -> str:
        """The text still held back. Half a character at the very end is dropped."""
        rest = self._decode(self._ids)[len(self._told_text) :].rstrip(_HALF)
        return self._stops.push(rest) + self._stops.finish()
