"""Short plain texts encoded by ourselves: the same ids as tiktoken's, or none at all."""

from __future__ import annotations

import json
import random

import pytest
import tiktoken

from qwenchat.text.byte_pairs import MOST_LETTERS, encode_short
from qwenchat.text.split_patterns import SPLIT_PATTERNS
from qwenchat.text.vocabulary import Vocabulary
from qwenchat.tokenizer import QwenTokenizer
from tests.places import GOLDEN


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return QwenTokenizer.default().vocabulary


@pytest.fixture(scope="module")
def words(vocabulary: Vocabulary) -> list[str]:
    """Pieces to put texts together from: tokens, and what the pattern looks at."""
    tokens = [token.decode("utf-8", "ignore") for token in vocabulary.ranks()]
    plain = [t for t in tokens if encode_short(t, SPLIT_PATTERNS["qwen"], vocabulary) is not None]
    return [*random.Random(1).sample(plain, 3000), *(" \n\r\t'0!a中，。" * 40), "'LL", "'re", "\r\n", "    "]


@pytest.mark.parametrize("pattern", SPLIT_PATTERNS)
def test_the_ids_are_tiktokens(pattern: str, vocabulary: Vocabulary, words: list[str]) -> None:
    peer = tiktoken.Encoding(
        pattern, pat_str=SPLIT_PATTERNS[pattern], mergeable_ranks=vocabulary.ranks(), special_tokens={}
    )
    draw = random.Random(2)
    for _ in range(1500):
        text = "".join(draw.choices(words, k=draw.randrange(1, 12)))
        ids = encode_short(text, SPLIT_PATTERNS[pattern], vocabulary)
        assert ids is None or ids == peer.encode_ordinary(text), text


def test_rare_letters_long_words_and_long_texts_are_left_to_tiktoken(vocabulary: Vocabulary) -> None:
    for text in ("naïve", "x" * (MOST_LETTERS + 1), "qx" * 50, "a\x0bb", "a\u3000b", "½", "<|im_end|>é"):
        assert encode_short(text, SPLIT_PATTERNS["qwen"], vocabulary) is None


def test_most_golden_texts_that_are_plain_take_the_short_way(vocabulary: Vocabulary) -> None:
    rows = json.loads((GOLDEN / "tokenizer.json").read_text())
    short = [encode_short(row["text"], SPLIT_PATTERNS["qwen"], vocabulary) for row in rows]
    assert sum(ids is not None for ids in short) >= len(rows) / 4
    for row, ids in zip(rows, short, strict=True):
        assert ids is None or ids == row["ids_no_special"]
