"""Quantising on a GPU comes to what it comes to on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import qwenchat
from qwenchat.models.quantize import run
from qwenchat.models.quantize.solver import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("auto_gptq", "held_out"),
]


@pytest.mark.parametrize("recipe", [Recipe(8, 64), Recipe(4, 32, True)], ids=str)
def test_a_gpu_makes_as_good_a_checkpoint(
    tiny_chat: Path, tiny_calibration: Path, tmp_path: Path, recipe: Recipe
) -> None:
    here, there = (
        run.quantize(
            tiny_chat, tmp_path / device, recipe, calibration=tiny_calibration, device=torch.device(device)
        )
        for device in ("cuda", "cpu")
    )
    assert here.before == pytest.approx(there.before, rel=1e-4)
    assert here.after == pytest.approx(there.after, rel=1e-2)
    ids = list(b"Whatever is said here, both should go on alike.")
    found, expected = (
        qwenchat.load(folder, device="cuda", dtype="float32").logits(ids)
        for folder in (here.folder, tiny_chat)
    )
    assert (found - expected).norm() / expected.norm() < (0.02 if recipe.bits == 8 else 0.3)
