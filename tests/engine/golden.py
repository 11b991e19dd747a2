"""The golden checkpoints, and one made of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.places import GOLDEN

FOLDER = GOLDEN
NAMES = ("fp16", "ntk_logn", "gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order")
ONE_ORDER = "gptq_int8_act_order_one_order"
"""As the last of them, but w1 and w2 have their inputs in the same order, as GPTQ leaves them."""


def copy(name: str, folder: Path) -> Path:
    """Puts a checkpoint into ``folder``, which it returns; ntk_logn has the weights of fp16."""
    source = FOLDER / name.removesuffix("_one_order")
    weights = source / "model.safetensors"
    shutil.copyfile(source / "config.json", folder / "config.json")
    if name != ONE_ORDER:
        shutil.copyfile(
            weights if weights.exists() else FOLDER / "fp16" / weights.name, folder / weights.name
        )
        return folder
    tensors = load_file(weights)
    for key in [key for key in tensors if key.endswith("mlp.w2.g_idx")]:
        tensors[key] = tensors[key.replace("w2", "w1")].clone()
    save_file(tensors, folder / weights.name)
    return folder


def prompts(name: str) -> list[list[int]]:
    """The prompts of a folder that tokens were decoded after; ids are below 320."""
    expected = load_file(FOLDER / name.removesuffix("_one_order") / "expected.safetensors")
    return [ids.tolist() for key, ids in expected.items() if key.startswith("decode") and key.endswith("ids")]
