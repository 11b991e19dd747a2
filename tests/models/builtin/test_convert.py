"""The conversion: the tensors that transformers has, in a checkpoint that our engine reads."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import qwenchat
from qwenchat.engine.config import read_model_config
from qwenchat.engine.generation_config import read_generation_defaults
from qwenchat.engine.weights.gptq import Codes, dequantize
from qwenchat.errors import CheckpointError
from qwenchat.models.builtin.convert import FILES, GROUP_SIZE, convert, convert_float

LAYERS, HIDDEN, HEADS, KEY_VALUE_HEADS, MLP, VOCABULARY, SPECIAL = 2, 128, 4, 2, 192, 300, 17

WriteLlama = Callable[..., Path]


@pytest.fixture(scope="module")
def float_folder(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float")
    convert_float(tiny_gguf, folder)
    return folder


@pytest.fixture(scope="module")
def int8_folder(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    convert(tiny_gguf, folder)
    return folder


@pytest.fixture(scope="module")
def reference(tiny_gguf: Path) -> Any:
    return load_reference(tiny_gguf)


def load_reference(path: Path) -> Any:
    """The model as transformers reads the GGUF, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


def reference_logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


# Before rounding.


def test_every_weight_is_transformers_own_to_the_last_bit(float_folder: Path, reference: Any) -> None:
    found = load_file(float_folder / "model.safetensors")
    expected = {name: weight for name, weight in reference.state_dict().items() if name != "lm_head.weight"}
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_the_tiny_model_gives_transformers_logits(float_folder: Path, reference: Any) -> None:
    ids = np.random.default_rng(2).integers(0, VOCABULARY, 60).tolist()
    found = qwenchat.load(float_folder, device="cpu", dtype="float32").logits(ids)
    assert distance(found, reference_logits(reference, ids)) < 1e-4


def test_the_built_in_model_gives_transformers_logits(built_in_gguf: Path, tmp_path: Path) -> None:
    convert_float(built_in_gguf, tmp_path)
    model = qwenchat.load(tmp_path, device="cpu", dtype="float32")
    ids = model.tokenizer.encode("The lighthouse keeper counted 127 ships, naïve as ever: 你好!\n\n")
    found = model.logits(ids)
    del model
    (tmp_path / "model.safetensors").unlink()  # 700 MB that pytest would keep
    assert distance(found, reference_logits(load_reference(built_in_gguf), ids)) < 1e-4


# The rounding.


def test_a_rounded_weight_is_within_half_a_step_of_the_float(float_folder: Path, int8_folder: Path) -> None:
    floats = load_file(float_folder / "model.safetensors")
    rounded = load_file(int8_folder / "model.safetensors")
    linears = [name.removesuffix(".qweight") for name in rounded if name.endswith(".qweight")]
    assert len(linears) == 7 * LAYERS
    for name in linears:
        parts = {part: rounded[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}
        expected = floats[f"{name}.weight"]
        found = dequantize(Codes(**parts, bits=8, group=GROUP_SIZE))
        step = parts["scales"].float()[parts["g_idx"].long()].T  # [out, in]
        # Of a group's 256 codes the outermost is met exactly, but for the rounding of the scale to fp16.
        assert ((found - expected).abs() <= step * 0.5 + expected.abs() * 2**-10).all()
        assert parts["scales"].dtype == torch.float16
        assert parts["scales"].shape == (expected.shape[1] // GROUP_SIZE, expected.shape[0])


def test_what_is_not_rounded_is_kept_in_half_precision(float_folder: Path, int8_folder: Path) -> None:
    floats = load_file(float_folder / "model.safetensors")
    rounded = load_file(int8_folder / "model.safetensors")
    kept = [name for name in rounded if name in floats]
    assert len(kept) == 2 + 2 * LAYERS
    for name in kept:
        assert torch.equal(rounded[name], floats[name].half()), name


def test_rounding_moves_the_logits_only_a_little(float_folder: Path, int8_folder: Path) -> None:
    ids = np.random.default_rng(3).integers(0, VOCABULARY, 60).tolist()
    floats = qwenchat.load(float_folder, device="cpu", dtype="float32").logits(ids)
    rounded = qwenchat.load(int8_folder, device="cpu", dtype="float32").logits(ids)
    assert 0 < distance(rounded, floats) < 0.05


# The files.


def test_the_folder_holds_the_files_that_it_is_known_by(int8_folder: Path) -> None:
    assert {path.name for path in int8_folder.iterdir()} == set(FILES)


def test_who_may_read_the_config_may_read_the_weights(int8_folder: Path) -> None:
    modes = {path.stat().st_mode for path in int8_folder.iterdir()}
    assert len(modes) == 1


def test_the_config_says_what_the_model_is(int8_folder: Path, float_folder: Path) -> None:
    config = read_model_config(int8_folder)
    assert (config.vocab_size, config.hidden_size, config.num_layers) == (VOCABULARY, HIDDEN, LAYERS)
    assert (config.num_heads, config.head_dim, config.mlp_size) == (HEADS, HIDDEN // HEADS, MLP)
    assert (config.seq_length, config.max_position_embeddings) == (64, 64)
    assert (config.rope_base, config.norm_eps) == (100000.0, 1e-5)
    assert config.num_key_value_heads == KEY_VALUE_HEADS
    assert not (config.use_dynamic_ntk or config.use_logn_attn or config.qkv_bias or config.mlp_bias)
    assert config.tie_word_embeddings
    assert config.quant is not None
    assert (config.quant.bits, config.quant.group_size, config.quant.zeros_minus_one) == (8, GROUP_SIZE, True)
    assert read_model_config(float_folder).quant is None


def test_the_generation_defaults_end_replies_at_the_end_token(int8_folder: Path) -> None:
    defaults = read_generation_defaults(int8_folder)
    assert defaults.eos_token_ids == (2,)
    assert defaults.temperature == 0
    assert defaults.repetition_penalty == 1.03


def test_the_vocabulary_holds_bytes_and_leaves_control_tokens_out(int8_folder: Path) -> None:
    lines = [line.split() for line in (int8_folder / "smollm2.tiktoken").read_bytes().splitlines()]
    tokens = {int(token_id): base64.b64decode(token) for token, token_id in lines}
    assert list(tokens) == list(range(SPECIAL, VOCABULARY))
    assert [tokens[SPECIAL + byte] for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tokens[SPECIAL + 256] == b"aa"
    config = json.loads((int8_folder / "tokenizer_config.json").read_text())
    assert config["split_pattern"] == "smollm"
    names = {int(key): value for key, value in config["added_tokens_decoder"].items()}
    assert list(names) == list(range(SPECIAL))
    assert names[2] == {"content": "<|im_end|>", "special": True}
    assert names[16] == {"content": "<|control_16|>", "special": True}


def test_the_built_in_vocabulary_is_in_merge_order(built_in_gguf: Path, demo_folder: Path) -> None:
    """What lets ranks stand for merges: the pair that BPE merges first is the pair of the lowest id."""
    lines = [line.split() for line in (demo_folder / "smollm2.tiktoken").read_bytes().splitlines()]
    assert [int(token_id) for _, token_id in lines] == list(range(17, 49152))
    by_bytes = {base64.b64decode(token): int(token_id) for token, token_id in lines}
    assert len(by_bytes) == len(lines)
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    merges = gguf.GGUFReader(built_in_gguf).fields["tokenizer.ggml.merges"].contents()
    ids = [by_bytes[bytes(byte_of[c] for c in merge.replace(" ", ""))] for merge in merges]
    assert ids == sorted(set(ids))


def test_progress_goes_up_to_one(tiny_gguf: Path, tmp_path: Path) -> None:
    fractions: list[float] = []
    convert(tiny_gguf, tmp_path, fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1


def test_torch_has_its_threads_back_afterwards(tiny_gguf: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        convert(tiny_gguf, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Models that are not of this kind.


def put(key: str, value: Any) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0][key].value = value

    return change


def without(key: str) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0][key]

    return change


def without_tensor(name: str) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.tensors[0][name]

    return change


def with_tensor(name: str, numbers: np.ndarray) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.tensors[0][name]
        writer.add_tensor(name, numbers)

    return change


NAN = np.full(HIDDEN, np.nan, np.float32)
UNFIT = {
    "another architecture": (put("general.architecture", "qwen2"), "'llama', not 'qwen2'"),
    "no layer count": (without("llama.block_count"), "llama.block_count, not nothing"),
    "a head count of zero": (put("llama.attention.head_count", 0), "llama.attention.head_count, not 0"),
    "heads that do not divide": (put("llama.attention.head_count", 3), "is 128, which 3 does not divide"),
    "key heads that do not divide": (
        put("llama.attention.head_count_kv", 3),
        "is 4, which 3 does not divide",
    ),
    "heads of odd size": (put("llama.attention.head_count", 128), "is 1, which 2 does not divide"),
    "part of a head rotating": (put("llama.rope.dimension_count", 16), "all 32 dimensions"),
    "an infinite epsilon": (put("llama.attention.layer_norm_rms_epsilon", float("inf")), "epsilon, not inf"),
    "widths without groups": (put("llama.feed_forward_length", 96), "64 divides"),
    "another tokenizer": (put("tokenizer.ggml.model", "llama"), "('gpt2', 'smollm')"),
    "tokens of a number": (put("tokenizer.ggml.token_type", [3] * 17 + [1] * 282 + [6]), "token 299"),
    "a token of no bytes": (put("tokenizer.ggml.tokens", ["語"] * VOCABULARY), "token 17"),
    "too few tokens": (put("tokenizer.ggml.tokens", ["a"] * 5), "300 tokens"),
    "an end past the vocabulary": (put("tokenizer.ggml.eos_token_id", 300), "below 300"),
    "a missing tensor": (without_tensor("blk.1.ffn_up.weight"), "a tensor 'blk.1.ffn_up.weight'"),
    "more layers than tensors": (put("llama.block_count", 2**31 - 1), "a tensor 'blk.2.attn_norm.weight'"),
    "a tensor of another shape": (
        with_tensor("blk.0.attn_k.weight", np.zeros((HIDDEN, HIDDEN), np.float32)),
        "[64, 128] of blk.0.attn_k.weight, not [128, 128]",
    ),
    "a number that is none": (with_tensor("blk.0.ffn_norm.weight", NAN), "finite numbers in blk.0.ffn_norm"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_of_another_kind_is_refused_by_name(
    case: str, write_llama: WriteLlama, tmp_path: Path
) -> None:
    change, expected = UNFIT[case]
    path = write_llama(tmp_path / "unfit.gguf", change)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError) as caught:
        convert(path, tmp_path / "folder")
    assert str(path) in caught.value.message
    assert expected in caught.value.message
