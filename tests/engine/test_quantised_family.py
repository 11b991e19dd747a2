"""Matrices quantised in ways of their own, quantised output layers, and AWQ: held to their floats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwenchat.backends.native.load import load_native
from qwenchat.backends.request import LoadRequest
from qwenchat.engine.config import read_model_config
from qwenchat.engine.generate import Engine
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights import gptq
from qwenchat.engine.weights.awq import as_gptq
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import CheckpointError
from tests.engine import llama_checkpoint
from tests.engine.cpu.test_codes_model import error

IDS = [(7 * i * i + 3) % 64 for i in range(40)]
SHAPES = {"hidden": 128, "heads": 4, "key_value_heads": 2, "head_dim": 32, "mlp_size": 256}
How = tuple[int, int]  # bits and group


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def write(
    folder: Path,
    how_of: Callable[[str], How | None],
    quantization: dict[str, Any],
    *,
    plus: int = 0,
    **more: Any,
) -> Path:
    """Writes a checkpoint of floats in ``floats``, and beside it the same in codes.

    Args:
        how_of: the bits and the group of a matrix, None for floats.
        plus: what stored zero points are more than gptq's are.
    """
    llama_checkpoint.write(folder / "floats", **SHAPES, **more)
    floats = load_file(folder / "floats" / "model.safetensors")
    codes: dict[str, Tensor] = {}
    for name, weight in list(floats.items()):
        how = how_of(name) if weight.ndim == 2 and "embed" not in name else None
        if how is None:
            codes[name] = weight
            continue
        packed = gptq.quantize_rtn(weight.float(), bits=how[0], group_size=how[1])
        floats[name] = gptq.dequantize(gptq.Codes(**packed, bits=how[0], group=how[1])).contiguous()
        packed["qzeros"] = packed["qzeros"] + sum(plus << how[0] * i for i in range(32 // how[0]))
        layer = name.removesuffix(".weight")
        codes |= {f"{layer}.{part}": tensor.contiguous() for part, tensor in packed.items()}
    save_file(floats, folder / "floats" / "model.safetensors")
    config = json.loads((folder / "floats" / "config.json").read_text())
    config["quantization_config"] = {"bits": 4, "group_size": 64, "quant_method": "gptq"} | quantization
    (folder / "config.json").write_text(json.dumps(config))
    save_file(codes, folder / "model.safetensors")
    return folder


def check(folder: Path, *, told: int = 0) -> None:
    """On our kernels and on plain torch the codes give their floats' logits and tokens."""
    cpu, notices = torch.device("cpu"), list[str]()
    expected = TorchRunner(load_model(folder / "floats", device=cpu, dtype=torch.float32, context=96))
    logits = expected.logits(IDS).numpy()
    plain = TorchRunner(load_model(folder, device=cpu, dtype=torch.float32, context=96))
    assert error(plain.logits(IDS).numpy(), logits) < 1e-4
    request = LoadRequest(folder, device="cpu", dtype="float32", context=96, notice=notices.append)
    engine = load_native(folder, request).engine
    assert error(engine.logits(IDS).numpy(), logits) < 1e-4
    reference = Engine(expected, context=96)
    for ids in (IDS[:20], IDS[:9]):
        assert list(engine.generate(ids, max_new_tokens=64)) == list(
            reference.generate(ids, max_new_tokens=64)
        )
    assert len(notices) == told


def test_matrices_of_other_bits_and_groups_are_read_as_they_are_stored(tmp_path: Path) -> None:
    def how_of(name: str) -> How | None:
        if "layers.1.mlp.down" in name or "lm_head" in name:
            return None
        return (8, 32) if "o_proj" in name or "layers.0.mlp.gate" in name else (4, 64)

    rules = {"+:.*o_proj.*": {"bits": 8, "group_size": 32}, "(a+)+$": {"bits": 8}, "-:.*1.mlp.down.*": {}}
    check(write(tmp_path, how_of, {"dynamic": rules}))


def test_parts_of_a_matrix_may_be_quantised_each_in_its_own_way(tmp_path: Path) -> None:
    def how_of(name: str) -> How | None:
        return None if "lm_head" in name else (8, 32) if "v_proj" in name else (4, 64)

    check(write(tmp_path, how_of, {"dynamic": {".*v_proj": {"bits": 8, "group_size": 32}}}))


@pytest.mark.parametrize("vocab_size", [64, 72])
def test_a_quantised_output_layer_is_multiplied_in_its_codes(tmp_path: Path, vocab_size: int) -> None:
    check(write(tmp_path, lambda name: (4, 64), {"lm_head": True}, vocab_size=vocab_size))


@pytest.mark.parametrize(("kind", "plus", "told"), [("gptq_v2", 1, 0), ("gptq", 1, 1), ("gptq_v2", 0, 1)])
def test_zero_points_are_read_as_they_are_stored_whatever_the_label(
    tmp_path: Path, kind: str, plus: int, told: int
) -> None:
    def how_of(name: str) -> How | None:
        return None if "lm_head" in name else (4, 64)

    check(write(tmp_path, how_of, {"checkpoint_format": kind}, plus=plus), told=told)


def test_awq_is_read_as_it_is_packed(tmp_path: Path) -> None:
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def packed(numbers: Tensor) -> Tensor:
        eights = numbers.long().reshape(len(numbers), -1, 8)[:, :, order]
        words = (eights << torch.arange(0, 32, 4)).sum(-1)
        return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)

    llama_checkpoint.write(tmp_path / "floats", **SHAPES, biases=True)
    floats = load_file(tmp_path / "floats" / "model.safetensors")
    codes: dict[str, Tensor] = {}
    for name, weight in list(floats.items()):
        if weight.ndim < 2 or "embed" in name or "lm_head" in name or "layers.1.mlp.up" in name:
            codes[name] = weight
            continue
        outputs, inputs = weight.shape
        numbers, zeros = (
            torch.randint(0, 16, (inputs, outputs)),
            torch.randint(0, 16, (inputs // 32, outputs)),
        )
        scales = ((torch.rand(inputs // 32, outputs) + 0.5) * inputs**-0.5 / 4).half()
        layer = name.removesuffix(".weight")
        codes |= {
            f"{layer}.qweight": packed(numbers),
            f"{layer}.qzeros": packed(zeros),
            f"{layer}.scales": scales,
        }
        each = torch.arange(inputs) // 32
        floats[name] = ((numbers - zeros[each]) * scales.float()[each]).T.contiguous()
        qweight, qzeros = as_gptq(codes[f"{layer}.qweight"].numpy(), codes[f"{layer}.qzeros"].numpy())
        assert np.array_equal(qweight, gptq.pack_words(numbers.to(torch.uint8), 4).numpy())
        assert np.array_equal(qzeros, gptq.pack_words(zeros.T.to(torch.uint8), 4).T.numpy())
    save_file(floats, tmp_path / "floats" / "model.safetensors")
    save_file(codes, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "floats" / "config.json").read_text())
    how = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    config["quantization_config"] = {**how, "modules_to_not_convert": ["model.layers.1.mlp.up_proj"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check(tmp_path)


def test_a_label_of_another_packing_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, lambda name: (4, 64), {"quant_method": "awq"})
    with pytest.raises(CheckpointError, match=r"quant_method is 'awq', and .*q_proj is packed as GPTQ packs"):
        load_native(tmp_path, LoadRequest(tmp_path, device="cpu", dtype="float32", complete=True))


@pytest.mark.parametrize(
    ("quantization", "reason"),
    [
        ({"dynamic": []}, None),
        ({"dynamic": "x"}, "dynamic is not an object"),
        ({"dynamic": {".*": {"format": "marlin"}}}, r"dynamic\.format is 'marlin'"),
        ({"quant_method": "awq", "version": "gemv"}, "version is 'gemv', expected 'gemm'"),
        ({"quant_method": "awq", "zero_point": False}, "zero_point is False"),
        ({"quant_method": "awq", "bits": 8}, "bits is 8"),
        ({"quant_method": "bitsandbytes"}, "quant_method is 'bitsandbytes', expected 'gptq' or 'awq'"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    tmp_path: Path, quantization: dict[str, Any], reason: str | None
) -> None:
    llama_checkpoint.write(
        tmp_path, **SHAPES, quantization_config={"bits": 4, "group_size": 64} | quantization
    )
    if reason is None:
        assert read_model_config(tmp_path).quant is not None
        return
    with pytest.raises(CheckpointError, match=reason):
        read_model_config(tmp_path)
