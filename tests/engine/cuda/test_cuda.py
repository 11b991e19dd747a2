"""The plain-torch path on a CUDA device gives what it gives on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import qwenchat
from tests.places import GOLDEN

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(
    "name", ["fp16", "ntk_logn", "gptq_int8", "gptq_int4_asym_g32", "gptq_int8_act_order"]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 1e-2), ("bfloat16", 5e-2)])
def test_logits_equal_the_originals(
    golden_folder: Callable[[str], Path], name: str, dtype: str, tolerance: float
) -> None:
    model = qwenchat.load(golden_folder(name), device="cuda", dtype=dtype)
    expected = load_file(GOLDEN / name / "expected.safetensors")
    for key in [k for k in expected if k.startswith("prefill") and k.endswith("ids")]:
        reference = expected[key.replace("ids", "logits")]
        logits = model.logits(expected[key].tolist())[-len(reference) :]
        assert (logits - reference).norm() / reference.norm() < tolerance


@pytest.mark.parametrize("name", ["fp16", "ntk_logn", "gptq_int8"])
def test_greedy_tokens_equal_the_originals(golden_folder: Callable[[str], Path], name: str) -> None:
    model = qwenchat.load(golden_folder(name), device="cuda", dtype="float32")
    expected = load_file(GOLDEN / name / "expected.safetensors")
    for key in [k for k in expected if k.startswith("decode") and k.endswith("ids")]:
        tokens = expected[key.replace("ids", "tokens")].tolist()
        assert (
            list(model.generate(expected[key].tolist(), temperature=0, max_new_tokens=len(tokens))) == tokens
        )


def test_a_chat_with_sampling_answers_on_the_device(tiny_chat: Path) -> None:
    model = qwenchat.load(tiny_chat, device="cuda")
    events = list(
        model.chat([{"role": "user", "content": "hi"}], temperature=0.8, top_p=0.9, max_new_tokens=8)
    )
    assert "cuda" in model.description
    assert events[-1].usage.completion_tokens == 8
