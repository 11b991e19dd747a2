"""What 8 and 4 bits cost the built-in model; the figures for all of its layers are the script's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import quantization
from benchmarks.fidelity import TEXT, Fidelity, compare
from benchmarks.quantization import GROUP_SIZE, Row
from qwenchat.cli.output import print_tables
from qwenchat.engine.model import Qwen, Rotary
from qwenchat.engine.weights.loader import load_model
from qwenchat.models.quantize import calibration, run
from qwenchat.models.quantize.layers import MATRICES
from qwenchat.models.quantize.solver import Recipe
from qwenchat.tokenizer import QwenTokenizer

LAYERS, TOKENS, CHATS = 4, 300, 15
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def floats(demo_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model's float weights."""
    return quantization.float_model(tmp_path_factory.mktemp("float"), demo_wheel)


def first_layers(source: Path, folder: Path) -> Path:
    """A model of the first layers alone. They are quantised as they are in the whole one."""
    folder.mkdir()
    for path in source.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))
    tensors = load_file(source / "model.safetensors")
    kept = tuple(f"model.layers.{layer}." for layer in range(LAYERS))
    save_file(
        {name: t for name, t in tensors.items() if ".layers." not in name or name.startswith(kept)},
        folder / "model.safetensors",
    )
    return folder


@torch.inference_mode()
def logits(model: Qwen, ids: list[int]) -> torch.Tensor:
    cache, rotary = model.new_cache(len(ids)), Rotary(model.config, len(ids), CPU)
    return model(torch.tensor(ids), cache, rotary, all_positions=True)


def put_in(model: Qwen, made: Path) -> None:
    """Gives a float model the matrices of a quantised one, as far as that goes."""
    quantized = load_model(made, device=CPU, dtype=torch.float32, context=TOKENS)
    for layer in range(LAYERS):
        for matrix in MATRICES:
            name = f"layers.{layer}.{matrix}.weight"
            model.get_parameter(name).data.copy_(quantized.get_parameter(name))


@pytest.mark.skipif(importlib.util.find_spec("auto_gptq") is None, reason="auto-gptq has no wheel here")
@pytest.mark.usefixtures("one_thread")
def test_eight_bits_cost_nothing_and_four_cost_far_less_by_gptq_than_rounded(
    floats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "held-out.txt"
    text.write_text("Their own perplexity says nothing of two layers.")
    monkeypatch.setattr(run, "HELD_OUT", text)
    chats = tmp_path / "chats.jsonl"
    shipped = calibration.DEFAULT.read_text(encoding="utf-8").splitlines(keepends=True)
    chats.write_text("".join(shipped[:CHATS]), encoding="utf-8")
    source = first_layers(floats, tmp_path / "first")
    ids = QwenTokenizer.from_folder(floats).encode(TEXT.read_text(encoding="utf-8"))[:TOKENS]
    model = load_model(floats, device=CPU, dtype=torch.float32, context=TOKENS)
    reference = logits(model, ids)

    def made(way: str, bits: int) -> Fidelity:
        folder = tmp_path / f"{way}-{bits}"
        if way == "rounded":
            quantization.round_to(source, folder, Recipe(bits, GROUP_SIZE))
        else:
            run.quantize(source, folder, Recipe(bits, GROUP_SIZE), calibration=chats, device=CPU)
        put_in(model, folder)
        return compare(logits(model, ids), reference, ids)

    eight = made("gptq", 8)
    assert eight.perplexity < 1.005 * eight.reference_perplexity
    rounded, by_gptq = made("rounded", 4), made("gptq", 4)
    assert by_gptq.perplexity < 1.3 * by_gptq.reference_perplexity
    assert by_gptq.divergence < 0.7 * rounded.divergence


def test_the_table_says_what_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("float32", 29.164, 0.0, 0.0, 538 * 10**6),
        Row("Int4, GPTQ", 34.618, 0.18702, 305.3, 179 * 10**6),
    ]
    print_tables(quantization.table(rows))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["float32", "29.164", "538"] in lines
    assert ["Int4,", "GPTQ", "34.618", "+18.70%", "179", "305"] in lines
