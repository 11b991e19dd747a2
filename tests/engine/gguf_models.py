"""Tiny GGUF files of random models, in every kind of numbers, and the floats that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from qwenchat.engine.gguf_config import rows_in_halves, stored_name
from qwenchat.gguf.blocks import dequantise
from qwenchat.gguf.kinds import KINDS

HIDDEN, HEADS, KEY_VALUE_HEADS, HEAD_DIM, MLP, VOCABULARY, LAYERS = 256, 4, 2, 64, 512, 320, 2
Floats = npt.NDArray[np.float32]

_KINDS = {kind.name: kind for kind in KINDS.values()}
# Of a block: where its float16 numbers lie, and about how large each is beside the numbers of the matrix.
_SCALES = {
    "Q8_0": {0: 1 / 128},
    "Q4_0": {0: 1 / 8},
    "Q5_0": {0: 1 / 16},
    "Q4_1": {0: 1 / 8, 2: -1.0},
    "Q5_1": {0: 1 / 16, 2: -1.0},
    "Q4_K": {0: 1 / 256, 2: 1 / 32},
    "Q5_K": {0: 1 / 512, 2: 1 / 32},
    "Q6_K": {208: 1 / 2000},
    "IQ4_NL": {0: 1 / 128},
    "Q2_K": {80: 1 / 16, 82: 1 / 8},
    "Q3_K": {108: 1 / 64},
}


@dataclass(frozen=True)
class Made:
    """A file, and the model in it as transformers has it."""

    path: Path
    model: Any

    def logits(self, ids: list[int]) -> Floats:
        """Of transformers, float32 [T, vocabulary]."""
        with torch.no_grad():
            found: Floats = self.model(torch.tensor([ids])).logits[0].numpy()
        return found

    def is_greedy(self, ids: list[int], tokens: list[int]) -> bool:
        """Whether each of the tokens after ``ids`` is the likeliest, or as likely but for rounding."""
        logits = self.logits([*ids, *tokens[:-1]])[len(ids) - 1 :]
        chosen = logits[np.arange(len(tokens)), tokens]
        return bool((logits.max(axis=-1) - chosen < 1e-4 * np.abs(logits).max()).all())


def stored(kind: str, rows: int, columns: int, size: float, random: np.random.Generator) -> Any:
    """Random numbers as a kind stores them, uint8 [rows, row_bytes]; floats as they are."""
    if kind in ("F32", "F16"):
        numbers = random.normal(0, size, (rows, columns))
        return numbers.astype(np.float32 if kind == "F32" else np.float16)
    if kind == "BF16":
        bits = random.normal(0, size, (rows, columns)).astype(np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16).view(np.uint8)
    layout = _KINDS[kind]
    blocks = random.integers(0, 256, (rows * columns // layout.elements, layout.size), dtype=np.uint8)
    for place, share in _SCALES[kind].items():
        scales = (random.uniform(0.5, 1.5, len(blocks)) * share * size).astype("<f2")
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def numbers_of(data: Any, kind: str) -> Floats:
    """The numbers that are stored."""
    if data.dtype != np.uint8:
        return np.asarray(data, np.float32)
    if kind in ("IQ4_NL", "Q2_K", "Q3_K"):
        from gguf import quants

        return np.asarray(quants.dequantize(data, gguf.GGMLQuantizationType[kind]))
    return dequantise(data, _KINDS[kind])


def write(
    path: Path,
    arch: str,
    kinds: Mapping[str, str] | str = "F32",
    *,
    tied: bool = False,
    factors: list[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    split: int = 0,
) -> Made:
    """Writes a file.

    Args:
        kinds: of the numbers of each matrix, by the last part of its name in GGUF; "" for all others.
        tied: whether the embedding is the output layer, too.
        factors: of the rotary embedding.
        settings: further settings of transformers' configuration, which ``keys`` say in the file.
        split: tensors a part, of a file in parts.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    random = np.random.default_rng(3)
    kinds = {"": kinds} if isinstance(kinds, str) else kinds
    config = AutoConfig.for_model(
        arch, vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KEY_VALUE_HEADS, head_dim=HEAD_DIM, rms_norm_eps=1e-6,
        max_position_embeddings=512, rope_theta=1e4, tie_word_embeddings=tied, **(settings or {}),
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=split)
    said = {
        f"{arch}.context_length": 512, f"{arch}.embedding_length": HIDDEN, f"{arch}.block_count": LAYERS,
        f"{arch}.feed_forward_length": MLP, f"{arch}.attention.head_count": HEADS,
        f"{arch}.attention.head_count_kv": KEY_VALUE_HEADS, f"{arch}.attention.key_length": HEAD_DIM,
        f"{arch}.attention.value_length": HEAD_DIM, f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{arch}.rope.freq_base": 1e4, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"<{i}>" for i in range(VOCABULARY)], **(keys or {}),
    }  # fmt: skip
    for key, value in said.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            kind = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            kind[type(value)](key, value)
    state = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        place = stored_name(name)
        if tensor.ndim == 1:
            value = (
                random.uniform(0.5, 1.5, len(tensor))
                if "norm" in name
                else random.normal(0, 0.5, len(tensor))
            )
            data, kind = value.astype(np.float32), "F32"
        else:
            kind = kinds.get(place.split(".")[-2], kinds.get("", "F32"))
            sharp = 3.0 if "attn_q" in place or "attn_k" in place else 1.0
            size = 1.0 if "embd" in place else sharp / np.sqrt(tensor.shape[1])
            data = stored(kind, *tensor.shape, size, random)
        raw = gguf.GGMLQuantizationType[kind] if data.dtype == np.uint8 else None
        writer.add_tensor(place, data, raw_dtype=raw)
        numbers = numbers_of(data, kind)
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            numbers = rows_in_halves(numbers, HEADS if "q_proj" in name else KEY_VALUE_HEADS)
        state[name] = torch.from_numpy(numbers.copy())
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
        rotary = model.model.rotary_emb
        rotary.inv_freq = rotary.original_inv_freq = rotary.inv_freq / torch.tensor(factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(state, strict=False)
    return Made(path, model)
