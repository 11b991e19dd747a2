"""Damaged vocabularies by the thousand: read, left to the library, or refused in a line, at no great cost."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from qwenchat.backends.native.gguf_tokenizer import read_gguf_tokenizer
from qwenchat.backends.native.tokenizer_json import NeedsLibrary, read_tokenizer_json
from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.head import read_head
from tests.backends.native import scored_words
from tests.backends.native.hub_tokenizers import tokenizer_of
from tests.backends.native.test_sentencepiece import prompt_in, prompt_of
from tests.stress.damaged_files import bomb, bytes_changed, json_changed

INPUTS, SECONDS, BYTES = 3000, 2.0, 500 * 2**20

pytestmark = pytest.mark.slow


def outcomes(path: Path, spoil: Callable[[random.Random], bytes], read: Callable[[], object]) -> Counter[str]:
    """What came of reading so many damaged files, each in a line and at no great cost."""
    counted: Counter[str] = Counter()
    tracemalloc.start()
    try:
        for seed in range(INPUTS):
            path.write_bytes(spoil(random.Random(seed)))
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            try:
                read()
                counted["read"] += 1
            except (CheckpointError, NeedsLibrary) as error:
                assert "\n" not in str(error), seed
                assert len(str(error)) < 2000, seed
                counted[type(error).__name__] += 1
            assert time.process_time() - start < SECONDS, seed
            assert tracemalloc.get_traced_memory()[1] - before < BYTES, seed
    finally:
        tracemalloc.stop()
    return counted


def spoiled(content: bytes, rng: random.Random) -> bytes:
    """A GGUF file, damaged."""
    chance = rng.random()
    if chance < 0.02:
        return bomb("x.gguf", rng)
    if chance < 0.5:
        return bytes_changed(content, rng)
    flipped = bytearray(content)  # of the same length, and so read further
    for _ in range(rng.randint(1, 3)):
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def test_gguf_heads(tmp_path: Path) -> None:
    peer = tokenizer_of("gpt2")
    layout = json.loads(peer.to_str())
    words = sorted(peer.get_vocab(with_added_tokens=True), key=peer.token_to_id)
    path = tmp_path / "whole.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_uint32("qwen2.context_length", 512)
    writer.add_string("qwen2.rope.scaling.type", "yarn")
    writer.add_float32("qwen2.rope.scaling.factor", 4.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([1] * 700 + [3] * (len(words) - 700))
    writer.add_token_merges([" ".join(merge) for merge in layout["model"]["merges"]])
    writer.add_eos_token_id(700)
    writer.add_chat_template("{{ messages }}")
    for kind in ("F32", "Q8_0", "Q6_K"):
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
        tensor = np.zeros((4, max(4, size)), np.uint8 if size > 4 else np.float32)
        writer.add_tensor(kind, tensor, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content, damaged = path.read_bytes(), tmp_path / "damaged.gguf"

    def read() -> None:
        with read_gguf(damaged) as file:
            head = read_head(file)
            head.rope_scaling()
            read_gguf_tokenizer(head.vocabulary)
            for name in file.tensors:
                file.tensor(name)

    counted = outcomes(damaged, lambda rng: spoiled(content, rng), read)
    assert min(counted["read"], counted["CheckpointError"]) > 50, counted


def test_words_with_scores(tmp_path: Path) -> None:
    prompt_of(tmp_path / "whole.gguf", scored_words.keys(700))
    content, damaged = (tmp_path / "whole.gguf").read_bytes(), tmp_path / "damaged.gguf"

    def read() -> None:
        tokenizer = prompt_in(damaged).tokenizer
        tokenizer.decode(tokenizer.encode("The fox, 1234!"))

    counted = outcomes(damaged, lambda rng: spoiled(content, rng), read)
    assert min(counted["read"], counted["CheckpointError"]) > 50, counted


def test_tokenizer_json(tmp_path: Path) -> None:
    content, damaged = tokenizer_of("llama3").to_str().encode(), tmp_path / "tokenizer.json"

    def spoil(rng: random.Random) -> bytes:
        chance = rng.random()
        if chance < 0.02:
            return bomb("tokenizer.json", rng)
        changed = json_changed if chance < 0.6 else lambda _, data, rng: bytes_changed(data, rng)
        return changed("tokenizer.json", content, rng)

    def read() -> None:
        tokenizer = read_tokenizer_json(damaged).tokenizer
        tokenizer.decode(tokenizer.encode("The fox, 1234!", allowed_special="all"))

    counted = outcomes(damaged, spoil, read)
    assert min(counted["read"], counted["CheckpointError"], counted["NeedsLibrary"]) > 50, counted
