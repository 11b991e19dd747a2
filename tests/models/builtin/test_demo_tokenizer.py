"""The built-in model's tokenizer, held to the tokenizers library on the same vocabulary and merges."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import pytest

from qwenchat.backends.native.gguf_tokenizer import read_gguf_tokenizer
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.vocabulary import read_vocabulary
from qwenchat.tokenizer import QwenTokenizer
from tests.places import GOLDEN


@pytest.fixture(scope="module")
def oracle(built_in_gguf: Path) -> object:
    """SmolLM2's tokenizer: digits one by one, then GPT-2's pattern, then byte-level BPE."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    with read_gguf(built_in_gguf) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        merges = file.metadata["tokenizer.ggml.merges"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def texts() -> list[str]:
    """The golden texts, and mixtures of whatever splits."""
    rng = random.Random(3)
    pool = [
        "a",
        "The",
        "'s",
        "'re",
        "N'T",
        " ",
        "  ",
        "\n",
        "\t",
        "1",
        "23",
        "½",
        "٣",
        "Ⅷ",
        "é",
        "你好",
        "!",
        "...",
        "=",
        "\u3000",
    ]
    mixed = ["".join(rng.choice(pool) for _ in range(rng.randint(1, 20))) for _ in range(5000)]
    return [row["text"] for row in json.loads((GOLDEN / "tokenizer.json").read_text())] + mixed


def test_ids_equal_the_tokenizers_librarys(oracle: object, demo_folder: Path) -> None:
    ours = QwenTokenizer.from_folder(demo_folder)
    for text in texts():
        text = unicodedata.normalize("NFC", text)
        expected = oracle.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
        assert ours.encode(text) == expected, text


def test_its_control_tokens_are_out_of_reach_for_text(demo_folder: Path) -> None:
    ours = QwenTokenizer.from_folder(demo_folder)
    assert (ours.endoftext_id, ours.im_start_id, ours.im_end_id) == (0, 1, 2)
    assert len(ours.special_tokens) == 17
    for form in ours.special_tokens:
        assert min(ours.encode(f"x{form}y")) >= 17


def test_the_file_itself_has_the_librarys_ids(built_in_gguf: Path, oracle: object) -> None:
    with read_gguf(built_in_gguf) as file:
        ours = read_gguf_tokenizer(read_vocabulary(file)).tokenizer
    for text in texts():  # which are not normalised, unlike those of a Qwen
        assert ours.encode(text) == oracle.encode(text).ids, text  # type: ignore[attr-defined]
