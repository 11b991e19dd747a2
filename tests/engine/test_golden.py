"""The engine against the original implementation's logits and tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import qwenchat
from qwenchat.backends.native.backend import NativeBackend
from tests.places import GOLDEN

FOLDERS = ("fp16", "ntk_logn", "gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order")
TOLERANCE = 1e-4


@pytest.fixture(params=FOLDERS)
def case(
    request: pytest.FixtureRequest, golden_folder: Callable[[str], Path]
) -> tuple[NativeBackend, dict[str, torch.Tensor]]:
    model = qwenchat.load(golden_folder(request.param), device="cpu", dtype="float32")
    return model, load_file(GOLDEN / request.param / "expected.safetensors")


def error(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """The norm of the difference over the norm of the reference, of the worst row."""
    return float(((logits - reference).norm(dim=-1) / reference.norm(dim=-1)).max())


def prompts(expected: dict[str, torch.Tensor], kind: str) -> list[tuple[list[int], str]]:
    keys = [key for key in expected if key.startswith(kind) and key.endswith(".ids")]
    assert keys
    return [(expected[key].tolist(), key.removesuffix(".ids")) for key in keys]


def test_prefill_logits_equal_the_originals(case: tuple[NativeBackend, dict[str, torch.Tensor]]) -> None:
    model, expected = case
    for ids, name in prompts(expected, "prefill"):
        reference = expected[f"{name}.logits"]
        logits = model.logits(ids)
        assert logits.shape == (len(ids), 320)
        assert logits.dtype == torch.float32
        assert error(logits[-len(reference) :], reference) < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 7, 128])
def test_decode_tokens_and_logits_equal_the_originals_however_prefill_is_cut(
    case: tuple[NativeBackend, dict[str, torch.Tensor]], chunk: int
) -> None:
    model, expected = case
    runner = model.engine.runner
    runner.chunk = chunk
    for ids, name in prompts(expected, "decode"):
        tokens = expected[f"{name}.tokens"].tolist()
        got = list(model.generate(ids, temperature=0, max_new_tokens=len(tokens), ignore_eos=True))
        assert got == tokens
        # After the prompt, then after each token but the last, which nothing follows.
        cache = runner.new_cache(len(ids) + len(tokens))
        cache.begin(ids)
        cuts = [ids[i : i + chunk] for i in range(0, len(ids), chunk)]
        rows = [runner.prefill(cache, part) for part in (*cuts, *([token] for token in tokens[:-1]))]
        decoded = torch.stack([torch.as_tensor(row) for row in rows[-len(tokens) :]])
        assert error(decoded, expected[f"{name}.logits"][:-1]) < TOLERANCE
        assert error(model.logits(ids + tokens[:1])[-1:], decoded[1:2]) < TOLERANCE or "ntk" in model.name
