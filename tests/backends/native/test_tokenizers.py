"""Tokenizers on the native path: the tokenizers library's ids on tricky texts, or a reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from qwenchat.backends.native.tokenizer_json import NeedsLibrary, read_tokenizer_json
from qwenchat.errors import CheckpointError
from tests.backends.native.hub_tokenizers import DEFINED, FAMILIES, tokenizer_of, tricky_texts

Layout = dict[str, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def peer(request: pytest.FixtureRequest) -> Tokenizer:
    return tokenizer_of(request.param)


@pytest.fixture(scope="module")
def small() -> Layout:
    layout: Layout = json.loads(tokenizer_of("gpt2").to_str())
    return layout


def written(folder: Path, layout: Layout | str) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(layout if isinstance(layout, str) else json.dumps(layout), encoding="utf-8")
    return path


def test_the_ids_of_tricky_texts_are_the_librarys(peer: Tokenizer, tmp_path: Path) -> None:
    path = written(tmp_path, peer.to_str())
    texts = tricky_texts()
    assert len(texts) >= 100
    for _ in range(2):  # the second time from what the first one kept
        ours = read_tokenizer_json(path).tokenizer
        for text in texts:
            expected = peer.encode(text, add_special_tokens=False).ids
            assert ours.encode(text, allowed_special="all") == expected, text
    peer.encode_special_tokens = True
    # It takes no added token from a text then, not even those that are no control tokens.
    plain = [text for text in texts if not any(form in text for form in (*DEFINED, "né", "ne\u0301"))]
    for text in plain:
        assert ours.encode(text) == peer.encode(text, add_special_tokens=False).ids, text
    peer.encode_special_tokens = False


def test_tokens_are_decoded_as_the_library_does(peer: Tokenizer, tmp_path: Path) -> None:
    ours = read_tokenizer_json(written(tmp_path, peer.to_str())).tokenizer
    assert ours.n_vocab == peer.get_vocab_size()
    # The library takes the letters of an added token for bytes.
    for text in (text for text in tricky_texts() if "né" not in text and "ne\u0301" not in text):
        ids = peer.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == peer.decode(ids, skip_special_tokens=False)


def test_control_tokens_are_text_and_others_are_found_in_it(small: Layout, tmp_path: Path) -> None:
    ours = read_tokenizer_json(written(tmp_path, small)).tokenizer
    assert ours.special_tokens["<|im_start|>"] not in ours.encode("<|im_start|>user")
    assert ours.encode("<think>") == [ours.added["<think>"]]
    assert ours.reply_bytes(ours.added["<think>"]) == b"<think>"
    assert ours.reply_bytes(ours.special_tokens["<|im_start|>"]) == b""


def test_ids_in_another_order_than_the_merges_are_mapped(small: Layout, tmp_path: Path) -> None:
    words = small["model"]["vocab"]
    turned = {word: len(words) - 1 - i for word, i in words.items()}
    layout = {**small, "model": {**small["model"], "vocab": turned}}
    peer = Tokenizer.from_str(json.dumps(layout))
    ours = read_tokenizer_json(written(tmp_path, layout)).tokenizer
    for text in tricky_texts():
        ids = peer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special="all") == ids
        assert ours.decode(ids) == text


def test_a_word_that_no_merge_gives_is_no_texts_but_is_decoded(small: Layout, tmp_path: Path) -> None:
    words = small["model"]["vocab"]
    model = {**small["model"], "vocab": {**words, "Ġthequick": len(words)}}
    layout = {**small, "model": model, "added_tokens": []}
    ours = read_tokenizer_json(written(tmp_path, layout)).tokenizer
    assert len(words) not in ours.encode("so thequick is here")
    assert ours.decode_token(len(words)) == b" thequick"


def test_what_every_text_begins_with_is_read(small: Layout, tmp_path: Path) -> None:
    peer = Tokenizer.from_str(json.dumps(small))
    bos = peer.token_to_id("<|endoftext|>")
    peer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]),
        ]
    )
    assert read_tokenizer_json(written(tmp_path, peer.to_str())).begin == (bos,)
    assert read_tokenizer_json(written(tmp_path, small)).begin == ()


def _in_model(**changes: Any) -> Callable[[Layout], Layout]:
    return lambda layout: {**layout, "model": {**layout["model"], **changes}}


def _with(**changes: Any) -> Callable[[Layout], Layout]:
    return lambda layout: {**layout, **changes}


def _without_a_merge(layout: Layout) -> Layout:
    merges = layout["model"]["merges"]
    return {**layout, "model": {**layout["model"], "merges": merges[1:], "ignore_merges": True}}


def _with_a_wrong_merge(layout: Layout) -> Layout:
    merges = layout["model"]["merges"]
    return {**layout, "model": {**layout["model"], "merges": [*merges[100:], *merges[:100]]}}


@pytest.mark.parametrize(
    "change",
    [
        _in_model(type="Unigram"),
        _in_model(dropout=0.1),
        _in_model(byte_fallback=True),
        _in_model(end_of_word_suffix="</w>"),
        _with(normalizer={"type": "Lowercase"}),
        _with(pre_tokenizer=None),
        _with(pre_tokenizer={"type": "Metaspace"}),
        _with(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}),
        _with(decoder={"type": "Metaspace"}),
        _with(added_tokens=[{"id": 9999, "content": "<x>", "special": True}]),
        _with(added_tokens=[{"id": 700, "content": "<x>", "special": True, "lstrip": True}]),
        _without_a_merge,
        _with_a_wrong_merge,
    ],
)
def test_what_would_give_other_ids_is_left_to_the_library(
    change: Callable[[Layout], Layout], small: Layout, tmp_path: Path
) -> None:
    with pytest.raises(NeedsLibrary):
        read_tokenizer_json(written(tmp_path, change(small)))


@pytest.mark.parametrize("content", ["", "[1]", "{}", "{", '{"model": 3}', '{"model": {"merges": [3]}}'])
def test_a_damaged_file_is_told_in_a_line(content: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, NeedsLibrary)) as error:
        read_tokenizer_json(written(tmp_path, content))
    assert "\n" not in str(error.value)
