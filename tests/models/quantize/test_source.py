"""The float checkpoint that is quantised: its tensors by the model's names, and by the checkpoint's again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwenchat.engine.weights.gptq import quantize_rtn
from qwenchat.models.quantize.solver import Recipe
from qwenchat.models.quantize.source import Source
from tests.engine import llama_checkpoint


@pytest.mark.parametrize("bits", [4, 8])
def test_what_a_checkpoint_stores_in_parts_is_read_whole_and_written_in_parts(
    tmp_path: Path, bits: int
) -> None:
    floats = load_file(llama_checkpoint.write(tmp_path, layers=1, biases=True) / "model.safetensors")
    source = Source(tmp_path, Recipe(bits, 32))
    prefix = "model.layers.0.self_attn"
    parts = [floats[f"{prefix}.{name}_proj.weight"] for name in "qkv"]
    whole = source.read("layers.0.attention.qkv.weight")
    assert torch.equal(whole, torch.cat(parts))
    bias = source.as_stored("layers.0.attention.qkv.bias")
    codes = quantize_rtn(whole.float(), bits=bits, group_size=32)
    found = source.by_stored_names(
        {f"layers.0.attention.qkv.{field}": tensor for field, tensor in codes.items()}
        | {"layers.0.attention.qkv.bias": bias, "norm.weight": source.as_stored("norm.weight")}
    )
    assert torch.equal(found.pop("model.norm.weight"), floats["model.norm.weight"])
    for name, part in zip("qkv", parts, strict=True):
        stored = f"{prefix}.{name}_proj"
        assert torch.equal(found.pop(f"{stored}.bias"), floats[f"{stored}.bias"])
        for field, tensor in quantize_rtn(part.float(), bits=bits, group_size=32).items():
            assert torch.equal(found.pop(f"{stored}.{field}"), tensor), field
    assert not found
