"""A byte-level BPE as checkpoints have it, words and merges, made a tokenizer of our own."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qwenchat.text.byte_characters import bytes_of_word
from qwenchat.text.byte_pair_tokenizer import BytePairTokenizer, Merging
from qwenchat.text.merges import Inexact, Ranking, rank
from qwenchat.text.split_patterns import SPLIT_PATTERNS
from qwenchat.text.vocabulary import Vocabulary
from qwenchat.tokenizer import find_kept, keep

MOST_ADDED = 2**14
"""Tokens that are not made of others; each costs far more than a word. Published models have hundreds."""
_MOST_WORDS, MOST_MERGES = 2**18, 2**19
_VERSION = b"ranks 2"
"""Goes into the digest: what is kept under it was checked as today."""


@dataclass(frozen=True, slots=True)
class NativeTokenizer:
    """A tokenizer of our own for a checkpoint.

    Attributes:
        tokenizer: text to token ids and back.
        begin: the ids that every text of the model begins with.
    """

    tokenizer: BytePairTokenizer
    begin: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Added:
    """A token that is not made of others.

    Attributes:
        special: whether it is a control token.
        verbatim: whether it is found before a text is normalised.
    """

    token_id: int
    form: str
    special: bool
    verbatim: bool


class NoMerge(Inexact):
    """A merge is not two words; its text is the argument."""


@dataclass(frozen=True, slots=True)
class BytePairs:
    """A byte-level BPE.

    Attributes:
        words: the ids of ordinary tokens, by how a vocabulary writes them; no added ones are among them.
        merges: two words each with a space between, the first to be merged first.
        whole: whether a piece that is a word is that token, whatever the merges say (``ignore_merges``).
        added: the other tokens.
        pattern: the name of the pattern that splits a text.
        normal_form: of a text before it is split.
    """

    words: Mapping[str, int]
    merges: Sequence[str]
    whole: bool
    added: Sequence[Added]
    pattern: str
    normal_form: Literal["NFC"] | None

    def tokenizer(self, n_ids: int | None = None) -> BytePairTokenizer:
        """The tokenizer of it.

        Args:
            n_ids: how many ids the model has.

        Raises:
            NoMerge: one of the merges is not two words.
            Inexact: ranks would not give the same tokens as the merges.
        """
        merging = self._merging()
        return BytePairTokenizer(
            merging,
            {token.form: token.token_id for token in self.added if token.special},
            added={token.form: token.token_id for token in self.added if not token.special},
            verbatim=[token.form for token in self.added if token.verbatim],
            n_ids=n_ids,
        )

    def _merging(self) -> Merging:
        digest = self._digest()
        pattern = SPLIT_PATTERNS[self.pattern]
        kept = find_kept(digest)
        if kept is not None:
            unmerged = self._outside(kept)
            if len(kept) + len(unmerged) == len(self.words):
                return Merging(kept, pattern, self.normal_form, unmerged=unmerged)
        found = self._ranking()
        vocabulary = Vocabulary.of(found.ranks)
        if found.ids is None:
            keep(digest, vocabulary)
        return Merging(vocabulary, pattern, self.normal_form, found.ids, found.unmerged)

    def _outside(self, kept: Vocabulary) -> dict[int, bytes]:
        """The words that no merges give, which a kept vocabulary does not have."""
        if len(kept) == len(self.words):
            return {}
        return {i: _bytes_of(word) for word, i in self.words.items() if kept.bytes_of(i) is None}

    def _ranking(self) -> Ranking:
        if len(self.words) > _MOST_WORDS or len(self.merges) > MOST_MERGES:
            raise Inexact("a great many words or merges")
        tokens = {token_id: bytes_of_word(word) for word, token_id in self.words.items()}
        # No text has the characters of the others, and no merge makes them.
        written = {token_id: token for token_id, token in tokens.items() if token}
        others = {i: word.encode("utf-8", "replace") for word, i in self.words.items() if i not in written}
        try:
            merges = [
                (self.words[left], self.words[right], self.words[left + right])
                for left, right in map(_two_words, self.merges)
            ]
        except KeyError:
            raise Inexact("a merge is of words that are not there") from None
        if others and any(i in others for merge in merges for i in merge):
            raise Inexact("a merge is of words that stand for no bytes")
        found = rank(written, merges)
        if self.whole and found.unmerged:
            raise Inexact("a word that no merge gives is found whole")
        if not found.ranks:
            raise Inexact("it has no tokens for bytes")
        return Ranking(found.ranks, found.ids, found.unmerged | others)

    def _digest(self) -> str:
        digest = hashlib.sha256(_VERSION + bytes([self.whole]))
        digest.update(array("q", self.words.values()))
        for texts in (self.words, self.merges):
            digest.update(array("q", [len(texts), *map(len, texts)]))
            digest.update("".join(texts).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _two_words(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right or " " in right:
        raise NoMerge(merge)
    return left, right


def _bytes_of(word: str) -> bytes:
    """What a word stands for; its own bytes where that is no text."""
    return bytes_of_word(word) or word.encode("utf-8", "replace")
