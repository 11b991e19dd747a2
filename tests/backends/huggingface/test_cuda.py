"""Models of the Hub on a GPU: the tokens of the CPU, sampling, cancelling, and GPTQ by auto-gptq."""

from __future__ import annotations

import importlib.util
import json
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import qwenchat
from qwenchat.backends.huggingface.backend import HuggingFaceBackend
from qwenchat.chat.messages import ReplyEnd
from qwenchat.engine.weights import gptq

pytest.importorskip("transformers_stream_generator", reason="Hub models need transformers_stream_generator")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

HELLO = [{"role": "user", "content": "hello"}]


def load(folder: Path, **options: Any) -> HuggingFaceBackend:
    model = qwenchat.load(folder, backend="huggingface", **{"device": "cuda", "dtype": "float32", **options})
    assert isinstance(model, HuggingFaceBackend)
    return model


@pytest.mark.parametrize("style", ["qwen2", "llama3", "gemma"])
def test_greedy_tokens_are_those_of_the_cpu(hub_folders: Callable[[str], Path], style: str) -> None:
    here, there = load(hub_folders(style)), load(hub_folders(style), device="cpu")
    prompt = there.tokenizer.encode("The quick brown fox jumps over the lazy dog.")
    assert "cuda" in here.description
    expected, found = there.logits(prompt), here.logits(prompt)
    assert (found - expected).norm() / expected.norm() < 1e-4
    options: dict[str, Any] = {"temperature": 0, "max_new_tokens": 20, "ignore_eos": True}
    assert list(here.generate(prompt, **options)) == list(there.generate(prompt, **options))


def test_a_reply_is_sampled_reused_and_cancelled(hub_folders: Callable[[str], Path]) -> None:
    model = load(hub_folders("qwen2"), dtype="auto")
    options: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_new_tokens": 30}
    first, again = (list(model.chat(HELLO, **options)) for _ in range(2))
    assert "".join(e.text for e in first) == "".join(e.text for e in again)
    assert isinstance(again[-1], ReplyEnd)
    assert again[-1].usage.reused_tokens > 0
    cancel = threading.Event()
    events = model.chat(HELLO, cancel=cancel, temperature=1.0, seed=3)
    while not next(events).text:
        pass
    cancel.set()
    *_, end = events
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "cancelled"


def rounded(folder: Path) -> dict[str, torch.Tensor]:
    """Rounds a checkpoint's matrices to GPTQ codes, in auto-gptq's layout; their values by name."""
    tensors = load_file(folder / "model.safetensors")
    values, made = {}, {}
    for name, tensor in tensors.items():
        if not name.endswith("proj.weight"):
            made[name] = tensor
            continue
        scale = (tensor.abs().amax(1) / 7).half()
        codes = (tensor / scale.float()[:, None]).round().clamp(-8, 7).add(8).to(torch.uint8)
        zeros = torch.full((1, len(tensor)), 8, dtype=torch.uint8)
        packed = gptq.pack(codes.T.contiguous(), scale[None], zeros, bits=4)
        packed["g_idx"] = torch.zeros(tensor.shape[1], dtype=torch.int32)
        layer = name.removesuffix(".weight")
        made |= {f"{layer}.{part}": value for part, value in packed.items()}
        values[name] = (codes.float() - 8) * scale.float()[:, None]
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    return tensors | values


@pytest.mark.skipif(importlib.util.find_spec("auto_gptq") is None, reason="auto-gptq has no wheel here")
def test_gptq_codes_of_another_family_are_read_by_auto_gptq(
    write_hub_model: Callable[..., Path], styles: dict[str, Any], tmp_path: Path
) -> None:
    shapes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    folder = write_hub_model(tmp_path / "codes", styles["llama3"], **shapes)
    plain = write_hub_model(tmp_path / "values", styles["llama3"], **shapes)
    save_file(rounded(folder), plain / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    quantization = {"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": False, "sym": True}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    (folder / "quantize_config.json").write_text(json.dumps(quantization))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of what is newer than it
        model = load(folder, dtype="float16")
    prompt = model.tokenizer.encode("The quick brown fox")
    expected, found = load(plain).logits(prompt), model.logits(prompt)
    assert "GPTQ" in model.description
    assert (found - expected).norm() / expected.norm() < 2e-2
