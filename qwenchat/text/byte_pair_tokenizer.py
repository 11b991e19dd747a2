"""Byte-level BPE over a packed vocabulary: text to token ids, ids to text.

Owns the order of what happens to a text: added tokens are found in it, the rest is normalised, split and
merged. Knows nothing of files, nor of what the control tokens of a model are for. Text never becomes a
control token unless the caller names the forms that may: ``<|im_end|>`` is read as the ten characters that
it is.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from qwenchat.errors import PromptError
from qwenchat.text.byte_pairs import encode_short
from qwenchat.text.normal_forms import normalise
from qwenchat.text.split_patterns import cut_whitespace
from qwenchat.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tiktoken


@dataclass(frozen=True, slots=True)
class Merging:
    """How a text becomes the tokens of a vocabulary.

    Attributes:
        vocabulary: the bytes of tokens and their ranks: of those that could be made the lowest is made first.
        ids: the tokens' ids, by rank; None where ranks are ids.
        unmerged: the bytes of tokens that no text becomes, by id; a model may draw them all the same.
        pattern: the regular expression that splits a text before merging.
        normal_form: of a text before it is split.
    """

    vocabulary: Vocabulary
    pattern: str
    normal_form: Literal["NFC"] | None = "NFC"
    ids: Sequence[int] | None = None
    unmerged: Mapping[int, bytes] | None = None

    def last_id(self) -> int:
        """The greatest id."""
        merged = self.vocabulary.last_id if self.ids is None else max(self.ids)
        return max(merged, *(self.unmerged or (0,)))


class BytePairTokenizer:
    """Text to token ids and back.

    Args:
        merging: how text becomes ordinary tokens.
        special_tokens: the control tokens' written forms and ids.
        added: forms of tokens that every text with them becomes, before anything is split or merged.
        verbatim: those of either kind that are found before the text is normalised.
        shown: control tokens that a reply's text has by their forms; the others are no part of it.
        n_ids: how many ids the model has. It can draw those that stand for nothing, too.

    Attributes:
        merging, special_tokens, added, verbatim, n_ids: as given.
        n_vocab: one more than the greatest id.
    """

    def __init__(
        self,
        merging: Merging,
        special_tokens: Mapping[str, int],
        *,
        added: Mapping[str, int] | None = None,
        verbatim: Collection[str] = (),
        shown: Collection[str] = (),
        n_ids: int | None = None,
    ) -> None:
        self.merging = merging
        self.special_tokens = dict(special_tokens)
        self.added = dict(added or {})
        self.verbatim = frozenset(verbatim)
        forms = {**self.added, **self.special_tokens}
        self.n_vocab = max(merging.last_id(), *forms.values(), 0) + 1
        self.n_ids = n_ids or self.n_vocab
        self._forms = {token_id: form.encode() for form, token_id in self.special_tokens.items()}
        written = {**self.added, **{form: self.special_tokens[form] for form in shown}}
        self._written = {token_id: form.encode() for form, token_id in written.items()}
        self._hidden = self._forms.keys() - self._written.keys()

    @property
    def vocabulary(self) -> Vocabulary:
        """The ordinary tokens' bytes and ranks."""
        return self.merging.vocabulary

    def encode(self, text: str, *, allowed_special: Literal["all"] | Collection[str] = ()) -> list[int]:
        """Token ids of ``text``, normalised as the model wants it.

        Args:
            text: any text; what looks like a special token is ordinary text ...
            allowed_special: ... unless its written form is named here, or "all" are.
        """
        specials = self.special_tokens
        if allowed_special != "all":
            specials = {form: i for form, i in specials.items() if form in allowed_special}
        forms = {**self.added, **specials}
        if not forms:
            return self._encode_ordinary(self._normalised(text))
        verbatim, others = forms.keys() & self.verbatim, forms.keys() - self.verbatim
        ids: list[int] = []
        for part in cut(text, verbatim):
            if part in verbatim:
                ids.append(forms[part])
                continue
            for piece in cut(self._normalised(part), others):
                ids += [forms[piece]] if piece in others else self._encode_ordinary(piece)
        return ids

    def _normalised(self, text: str) -> str:
        return normalise(self.merging.normal_form, text) if self.merging.normal_form else text

    def _encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text without added tokens."""
        ranks = encode_short(text, self.merging.pattern, self.vocabulary)
        if ranks is None:
            ranks = [i for piece in cut_whitespace(text) for i in self._encoding.encode_ordinary(piece)]
            if self.vocabulary.missing_bytes:
                ranks = [rank for rank in ranks if rank <= self.vocabulary.last_id]
        ids = self.merging.ids
        return ranks if ids is None else [ids[rank] for rank in ranks]

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """tiktoken's tables, which it takes a tenth of a second to build."""
        import tiktoken

        # tiktoken aborts on a byte that no token stands for. Such bytes get ranks above the
        # vocabulary's here, which are dropped again: the model has never seen them.
        above = self.vocabulary.last_id + 1
        stand_ins = {byte: above + i for i, byte in enumerate(self.vocabulary.missing_bytes)}
        return tiktoken.Encoding(
            "qwen",
            pat_str=self.merging.pattern,
            mergeable_ranks={**self.vocabulary.ranks(), **stand_ins},
            special_tokens={},
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, special tokens in their written forms.

        Bytes that are no UTF-8 become U+FFFD.

        Raises:
            PromptError: an id is not in the vocabulary.
        """
        return b"".join(map(self.decode_token, ids)).decode("utf-8", errors="replace")

    def decode_token(self, token_id: int) -> bytes:
        """The bytes of one token, perhaps a part of a character; of a special one its written form.

        Raises:
            PromptError: the id is not in the vocabulary.
        """
        token = self._forms.get(token_id) or self._bytes_of(token_id)
        if token is None:
            raise PromptError(
                "the token id {id} is not in the vocabulary of {count}", id=token_id, count=self.n_vocab
            )
        return token

    def reply_text(self, ids: Sequence[int]) -> str | None:
        """The text that a reply of these tokens has, as :class:`IncrementalDecoder` gives it out.

        None if one of them is a control token that texts do not have, or none of the model's.
        """
        if not self._hidden.isdisjoint(ids) or not all(0 <= i < self.n_ids for i in ids):
            return None
        text = b"".join(map(self.reply_bytes, ids))
        # Not final: half a character at the end is left out.
        return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(text)

    def reply_bytes(self, token_id: int) -> bytes:
        """The bytes of a token in a reply's text: none if that does not have it, U+FFFD if no token has that
        id."""
        if token_id in self._hidden:
            return b""
        part = self._bytes_of(token_id)
        return "\ufffd".encode() if part is None else part

    def _bytes_of(self, token_id: int) -> bytes | None:
        """The bytes of a token that texts have; None if there is none."""
        written = self._written.get(token_id)
        if written is not None:
            return written
        rank = token_id if self.merging.ids is None else self._ranks.get(token_id, -1)
        token = self.vocabulary.bytes_of(rank) if rank >= 0 else None
        return (self.merging.unmerged or {}).get(token_id) if token is None else token

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {token_id: rank for rank, token_id in enumerate(self.merging.ids or ())}


def cut(text: str, forms: Collection[str]) -> Iterator[str]:
    """The parts of a text that are such forms, the longest where several begin, and those between them."""
    if not forms:
        yield text
        return
    at = 0
    for found in _finder(frozenset(forms)).finditer(text):
        if found.start() > at:
            yield text[at : found.start()]
        yield found[0]
        at = found.end()
    if at < len(text):
        yield text[at:]


@lru_cache(maxsize=16)
def _finder(forms: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
