"""The vocabulary of a GGUF file as a tokenizer: the ids of the one it was made from, or a refusal by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qwenchat.backends.native import bpe
from qwenchat.backends.native.gguf_tokenizer import read_gguf_tokenizer
from qwenchat.errors import CheckpointError
from qwenchat.gguf.vocabulary import GGUFVocabulary
from tests.backends.native.hub_tokenizers import DEFINED, tokenizer_of, tricky_texts, vocabulary_of


@pytest.fixture(scope="module")
def small() -> GGUFVocabulary:
    return vocabulary_of(tokenizer_of("gpt2"), "gpt-2")


@pytest.mark.parametrize(
    ("family", "pre"), [("gpt2", "gpt-2"), ("llama3", "llama-bpe"), ("smollm", "smollm")]
)
def test_the_ids_are_those_of_the_tokenizer_that_it_was_made_from(family: str, pre: str) -> None:
    peer = tokenizer_of(family)
    ours = read_gguf_tokenizer(vocabulary_of(peer, pre)).tokenizer
    for text in tricky_texts():
        assert ours.encode(text, allowed_special="all") == peer.encode(text, add_special_tokens=False).ids, (
            text
        )


def test_control_and_user_defined_tokens_are_one_id_each(small: GGUFVocabulary) -> None:
    ours = read_gguf_tokenizer(small).tokenizer
    assert set(ours.special_tokens) == {"<|endoftext|>", "<|im_start|>"}
    assert set(ours.added) == {*DEFINED, "né"}
    assert len(ours.encode("<|im_start|>")) > 1
    assert ours.encode("<|im_start|>", allowed_special="all") == [ours.special_tokens["<|im_start|>"]]
    assert ours.encode("<tool_call>") == [ours.added["<tool_call>"]]


def test_words_that_fill_up_the_models_ids_cost_no_start_the_time_that_the_first_took(
    small: GGUFVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    padding = [f"[PAD{i}]" for i in range(3)]
    types = np.concatenate((small.types, np.full(3, 5, np.uint8)))
    filled = replace(small, tokens=[*small.tokens, *padding], types=types)
    first = read_gguf_tokenizer(filled).tokenizer
    monkeypatch.setattr(bpe, "rank", lambda *_: pytest.fail("ranked again"))
    again = read_gguf_tokenizer(filled).tokenizer
    for text in (*tricky_texts(), *padding):
        assert again.encode(text) == first.encode(text), text
    for token_id in range(len(filled.tokens)):
        assert again.decode_token(token_id) == first.decode_token(token_id)


def test_a_text_begins_with_what_the_file_says(small: GGUFVocabulary) -> None:
    assert read_gguf_tokenizer(replace(small, ids={"bos": 700}, begins=True)).begin == (700,)
    assert read_gguf_tokenizer(replace(small, ids={"bos": 700}, begins=False)).begin == ()
    assert read_gguf_tokenizer(replace(small, ids={}, begins=True)).begin == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "llama"}, "of the kind SentencePiece"),
        ({"model": "rwkv"}, "of the kind 'rwkv'"),
        ({"pre": "tekken"}, "its pre-tokenizer is 'tekken'"),
        ({"pre": None}, "its pre-tokenizer is 'default'"),
        ({"merges": ["a b c"]}, "'a b c' is no merge"),
        ({"merges": ["a"]}, "'a' is no merge"),
        ({"merges": ["x y"]}, "its merges do not give its tokens"),
        ({"tokens": ["a"] * 3, "types": np.ones(3, np.uint8)}, "a token is there twice"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    small: GGUFVocabulary, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason) as error:
        read_gguf_tokenizer(replace(small, **changes))
    assert "\n" not in str(error.value)
