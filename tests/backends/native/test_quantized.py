"""Float checkpoints of the later generations become quantised ones: what they answer, and what is in them."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qwenchat.backends.native.chat_prompt import folder_prompt
from qwenchat.backends.native.encoder import folder_encoder
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.engine.config import QuantConfig, read_model_config
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from qwenchat.models import catalog, places
from qwenchat.models.offers import to_quantize
from qwenchat.models.quantize import run
from qwenchat.models.quantize.solver import Recipe

CPU = torch.device("cpu")
CHAT = [Message.of_text(Role.USER, "hi there"), Message.of_text(Role.ASSISTANT, "so <|im_end|> it is")]
needs_auto_gptq = pytest.mark.skipif(
    importlib.util.find_spec("auto_gptq") is None, reason="auto-gptq has no wheel for this Python or platform"
)


@pytest.fixture
def quantized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_hub_model: Callable[..., Path], styles: Any
) -> Callable[..., tuple[Path, run.Result]]:
    """Quantises a tiny model of a style; its folder, and what was made of it."""
    words = [line for line in Path(__file__).read_text().split() if line.isalpha()]
    text = " ".join(random.Random(0).choices(words, k=600))
    for name in ("held-out", "calibration"):
        (tmp_path / f"{name}.txt").write_text(text)
    monkeypatch.setattr(run, "HELD_OUT", tmp_path / "held-out.txt")

    def make(style: str, recipe: Recipe, **changes: Any) -> tuple[Path, run.Result]:
        source = write_hub_model(tmp_path / "floats", styles[style], **{"initializer_range": 0.1, **changes})
        calibration = tmp_path / "calibration.txt"
        made = run.quantize(
            source, tmp_path / "made", recipe, calibration=calibration, encoder=folder_encoder, device=CPU
        )
        return source, made

    return make


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    return TorchRunner(load_model(folder, device=CPU, dtype=torch.float32, context=256)).logits(ids)


@needs_auto_gptq
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("style", "recipe", "changes"),
    [
        ("qwen2", Recipe(8, 32), {"tie_word_embeddings": True}),
        ("qwen3", Recipe(8, -1, act_order=True), {"head_dim": 16}),  # its heads are wider than the model
        ("qwen3", Recipe(4, 32), {"head_dim": 16, "tie_word_embeddings": True}),
        ("llama3", Recipe(8, 32), {}),
    ],
    ids=str,
)
def test_a_quantised_model_answers_like_the_floats_that_it_was_made_of(
    quantized: Callable[..., tuple[Path, run.Result]], style: str, recipe: Recipe, changes: dict[str, Any]
) -> None:
    source, made = quantized(style, recipe, **changes)
    ids = list(range(3, 60))
    expected, found = logits(source, ids), logits(made.folder, ids)
    assert (found - expected).norm() / expected.norm() < (0.03 if recipe.bits == 8 else 0.4)
    assert abs(made.change) < (0.02 if recipe.bits == 8 else 0.5)
    assert read_model_config(made.folder).quant == QuantConfig(
        recipe.bits, recipe.group_size, recipe.act_order, zeros_minus_one=True
    )
    # It is asked as before.
    theirs, ours = (folder_prompt(folder, 10**6, complete=False) for folder in (source, made.folder))
    assert theirs.ids(CHAT) == ours.ids(CHAT)


@needs_auto_gptq
@pytest.mark.usefixtures("one_thread")
def test_the_tensors_are_those_of_auto_gptqs_layout(
    quantized: Callable[..., tuple[Path, run.Result]],
) -> None:
    source, made = quantized("qwen2", Recipe(4, 32), tie_word_embeddings=True)
    floats, stored = load_file(source / "model.safetensors"), load_file(made.folder / "model.safetensors")
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    matrices = [*attention, *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]
    layers = [f"model.layers.{n}.{name}" for n in range(2) for name in matrices]
    codes = {f"{layer}.{part}" for layer in layers for part in ("qweight", "qzeros", "scales", "g_idx")}
    assert stored.keys() == (floats.keys() - {f"{layer}.weight" for layer in layers}) | codes
    assert "lm_head.weight" not in stored
    for name in stored.keys() - codes:  # biases among them
        assert torch.equal(stored[name], floats[name].half())
    config = json.loads((made.folder / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "gptq"
    assert (config["model_type"], config["tie_word_embeddings"]) == ("qwen2", True)
    assert "fp16" not in config  # which the first generation alone has
    dtypes = {config[key] for key in ("dtype", "torch_dtype") if key in config}
    assert dtypes == {"float16"}


def test_a_chat_is_encoded_as_the_model_meets_it_and_its_last_turn_ended(
    hub_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = hub_folders("qwen2")
    prompt, encoder = folder_prompt(folder, 10**6, complete=False), folder_encoder(folder)
    assert encoder.chat(CHAT) == [*prompt.ids(CHAT), *prompt.ends]
    assert encoder.chat(CHAT[:1]) == prompt.ids(CHAT[:1])
    assert encoder.text("so <|im_end|>") == prompt.tokenizer.encode("so <|im_end|>")
    assert not prompt.ends & set(encoder.text("so <|im_end|>"))


def test_float_checkpoints_that_our_engine_reads_are_offered_to_be_quantised(
    hub_folders: Callable[[str], Path],
) -> None:
    for style in ("qwen2", "gemma"):
        (places.ours() / "mine").mkdir(parents=True, exist_ok=True)
        (places.ours() / "mine" / style).symlink_to(hub_folders(style))
    assert {place.name for place in catalog.on_this_machine()} == {"mine/qwen2", "mine/gemma"}
    assert list(to_quantize()) == ["mine/qwen2"]
