"""Merges as ranks: where they are taken for the same they give the same tokens, on any text."""

from __future__ import annotations

import random

import pytest
import tiktoken
from tokenizers import Tokenizer, models

from qwenchat.text.merges import Inexact, rank

LETTERS = "abc"


def random_vocabulary(draw: random.Random) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Three letters and a few tokens, most of them of one merge, some of several, some of a wrong one."""
    words = list(LETTERS)
    merges: list[tuple[str, str]] = []
    for _ in range(draw.randrange(1, 9)):
        left, right = draw.choice(words), draw.choice(words)
        if left + right not in words:
            words.append(left + right)
            merges.append((left, right))
            if draw.random() < 0.3:
                whole = left + right
                others = [(whole[:i], whole[i:]) for i in range(1, len(whole))]
                merges += [m for m in others if m != merges[-1] and set(m) <= set(words[:-1])]
    return {word: i for i, word in enumerate(words)}, merges


def reference(words: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    return Tokenizer(models.BPE(vocab=words, merges=merges))


def test_ranks_give_the_tokens_of_the_merges_on_any_text_or_are_refused() -> None:
    outcomes = {"exact": 0, "refused": 0}
    draw = random.Random(1)
    for _ in range(800):
        words, merges = random_vocabulary(draw)
        peer = reference(words, merges)
        themselves = all(peer.encode(word).ids == [i] for word, i in words.items())
        try:
            found = rank(
                {i: word.encode() for word, i in words.items()},
                [(words[a], words[b], words[a + b]) for a, b in merges],
            )
        except Inexact:
            outcomes["refused"] += 1
            assert not themselves, (words, merges)
            continue
        outcomes["exact"] += 1
        assert themselves
        ours = tiktoken.Encoding("x", pat_str=r"[\s\S]+", mergeable_ranks=found.ranks, special_tokens={})
        for _ in range(20):
            text = "".join(draw.choices(LETTERS, k=draw.randrange(1, 24)))
            assert ours.encode_ordinary(text) == peer.encode(text).ids, (words, merges, text)
    assert min(outcomes.values()) > 100, outcomes


def test_ids_in_another_order_than_the_merges_come_beside_the_ranks() -> None:
    found = rank({0: b"abc", 1: b"c", 2: b"ab", 3: b"b", 4: b"a"}, [(4, 3, 2), (2, 1, 0)])
    assert found.ids is not None
    assert [found.ids[found.ranks[token]] for token in (b"abc", b"ab", b"a")] == [0, 2, 4]
    assert found.ranks[b"ab"] < found.ranks[b"abc"]


def test_tokens_that_no_merge_gives_are_set_apart() -> None:
    found = rank({0: b"a", 1: b"b", 2: b"ab", 3: b"<end>"}, [(0, 1, 2)])
    assert (found.ids, found.unmerged) == (None, {3: b"<end>"})
    assert b"<end>" not in found.ranks


@pytest.mark.parametrize(
    ("tokens", "merges", "reason"),
    [
        ({0: b"a", 1: b"b", 2: b"ab", 3: b"ab"}, [(0, 1, 2), (0, 1, 3)], "same bytes"),
        ({0: b"a", 1: b"b", 2: b"ba"}, [(0, 1, 2)], "other bytes"),
        ({0: b"a", 1: b"b", 2: b"bb", 3: b"abb"}, [(0, 2, 3), (1, 1, 2)], "its own merge"),
        ({0: b"a", 1: b"bb", 2: b"abb"}, [(0, 1, 2)], "that none gives"),
        ({0: b"a", 1: b"b", 2: b"ab", 3: b"abab"}, [(0, 1, 2), (2, 2, 3), (0, 1, 2)], "one after another"),
        ({0: b"a", 1: b"a" * 2000}, [], "too long"),
    ],
)
def test_merges_that_are_no_ranks_are_refused(
    tokens: dict[int, bytes], merges: list[tuple[int, int, int]], reason: str
) -> None:
    with pytest.raises(Inexact, match=reason):
        rank(tokens, merges)
