"""Checkpoints on the CPU kernels: prefill and decode, from a folder to logits."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwenchat.backends.load import load
from qwenchat.engine.cpu import assembly, support
from qwenchat.engine.cpu.codes_model import CodesModel
from qwenchat.engine.cpu.linear import BlockLayout
from qwenchat.engine.cpu.model import FEW, CPUModel
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.generate import Engine
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.model import Qwen, Rotary
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from tests.engine import golden, llama_checkpoint, random_model
from tests.places import GOLDEN

Teams = Callable[[int], Team]
Copy = Callable[[str], Path]

CPU = torch.device("cpu")
MOST = 2e-5


def plain(folder: Path, dtype: torch.dtype = torch.float32) -> Qwen:
    """The checkpoint in floats, for plain torch."""
    return load_model(folder, device=CPU, dtype=dtype, context=64)


def ours(folder: Path, team: Team, dtype: torch.dtype = torch.float32) -> CPUModel:
    """The checkpoint on the kernels."""
    model = load_model(folder, device=CPU, dtype=dtype, context=64, layout=BlockLayout(team))
    return assembly.assemble(model, dtype, team)


@torch.inference_mode()
def run(
    model: Qwen | CPUModel, ids: Tensor, *lengths: int, int8: bool = False, all_positions: bool = False
) -> Tensor:
    """The logits after chunks of so many ids each."""
    cache, rotary = model.new_cache(len(ids), int8=int8), Rotary(model.config, len(ids), CPU)
    chunks = ids.split(list(lengths))
    found = torch.cat([model(chunk, cache, rotary, all_positions=all_positions) for chunk in chunks])
    assert cache.length == len(ids)
    return found


def error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected, of the worst row."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


# --- the golden checkpoints --------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "name", ["fp16", "ntk_logn", "gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order"]
)
def test_a_loaded_checkpoint_gives_the_originals_logits_and_tokens_on_the_kernels(
    golden_folder: Copy, name: str, threads: int
) -> None:
    model = load(golden_folder(name), device="cpu", dtype="float32", threads=threads, notice=pytest.fail)
    assert isinstance(model.engine.runner.model, CodesModel if name.startswith("gptq") else CPUModel)
    assert model.description.endswith(f"kernels on {threads} thread{'s' * (threads > 1)}")
    expected = load_file(GOLDEN / name / "expected.safetensors")
    for length in (1, 16, 33, 131):
        reference = expected[f"prefill.{length}.logits"]
        found = model.logits(expected[f"prefill.{length}.ids"].tolist())
        assert error(found[-len(reference) :], reference) < MOST
    runner = model.engine.runner
    for length in (5, 26, 41):
        ids, tokens = expected[f"decode.{length}.ids"].tolist(), expected[f"decode.{length}.tokens"].tolist()
        found = list(model.generate(ids, temperature=0, max_new_tokens=len(tokens), ignore_eos=True))
        assert found == tokens
        cache = runner.new_cache(length + len(tokens))
        cache.begin(ids)
        rows = [runner.prefill(cache, part) for part in (ids, *([token] for token in tokens[:-1]))]
        decoded = torch.stack([torch.as_tensor(row) for row in rows])
        assert error(decoded, expected[f"decode.{length}.logits"][:-1]) < MOST


@pytest.mark.parametrize(("name", "bits"), [("gptq_int8", 8), ("gptq_int4", 4), ("gptq_int8_act_order", 8)])
def test_layers_stay_in_their_codes(own_teams: Teams, name: str, bits: int) -> None:
    model = ours(GOLDEN / name, own_teams(2))
    for layer in model.layers:
        assert {m.bits for m in layer.matrices} == {bits}
        assert all(m.data.nbytes == m.rows * m.columns * bits // 8 for m in layer.matrices)
    assert model.lm_head.data.dtype == np.float16
    assert model.embedding.dtype == torch.float16  # as it is stored
    weights = sum(load_file(GOLDEN / name / "model.safetensors")[f"lm_head.{x}"].nbytes for x in ("weight",))
    codes = 2 * bits * (4 * 128 * 128 + 3 * 128 * 256) // 8
    assert weights + codes < model.bytes_per_token < 1.1 * (weights + codes)


# --- prefill -----------------------------------------------------------------------------------


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", ["fp16", "gptq_int4_asym_g32", "gptq_int8_act_order"])
def test_a_prompt_gets_the_same_logits_however_it_is_cut(own_teams: Teams, name: str, int8: bool) -> None:
    reference, model = plain(GOLDEN / name), ours(GOLDEN / name, own_teams(2))
    ids = torch.randint(0, 320, (60,))
    most = 5e-3 if int8 else MOST  # numbers between two are rounded to the one or the other
    every = run(reference, ids, 60, int8=int8, all_positions=True)
    for lengths in ((60,), (1, 59), (30, 30), (FEW, FEW + 1, 51 - FEW, 2, 6 - FEW)):
        ends = torch.tensor(lengths).cumsum(0) - 1
        assert error(run(model, ids, *lengths, int8=int8), every[ends]) < most
        assert error(run(model, ids, *lengths, int8=int8, all_positions=True), every) < most


@pytest.mark.parametrize("name", ["fp16", "gptq_int8", "gptq_int4_asym_g32"])
def test_bfloat16_is_as_close_as_plain_torch_gets_with_it(own_teams: Teams, name: str) -> None:
    exact = plain(GOLDEN / name)
    model = ours(GOLDEN / name, own_teams(2), torch.bfloat16)
    ids = torch.randint(0, 320, (60,))
    lengths = (50, *[1] * 10)
    expected = run(exact, ids, *lengths)
    rounded = error(run(plain(GOLDEN / name, torch.bfloat16), ids, *lengths), expected)
    assert error(run(model, ids, *lengths), expected) < max(rounded, 1e-2)
    assert model.new_cache(4).layer(0).keys.dtype == torch.bfloat16


def test_a_tile_at_a_time_is_the_whole_matrix(own_teams: Teams, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = ours(GOLDEN / "gptq_int8_act_order", own_teams(2)), torch.randint(0, 320, (20,))
    whole = run(model, ids, 20, all_positions=True)
    monkeypatch.setattr("qwenchat.engine.cpu.model._TILE_BYTES", 1)  # 32 rows
    assert error(run(model, ids, 20, all_positions=True), whole) < 1e-6


def test_a_cancelled_prompt_leaves_the_cache_as_it_was(own_teams: Teams) -> None:
    model, cancel = ours(GOLDEN / "gptq_int8", own_teams(2)), threading.Event()
    ids = torch.randint(0, 320, (40,))
    expected = run(model, ids, 10, 30)[-1:]
    cache, rotary = model.new_cache(40), Rotary(model.config, 40, CPU)
    with torch.inference_mode():
        model(ids[:10], cache, rotary, cancel=cancel)
        cancel.set()
        for chunk in (ids[10:], ids[10:11], ids[10:13]):
            with pytest.raises(Cancelled):
                model(chunk, cache, rotary, cancel=cancel)
            assert cache.length == 10
        cancel.clear()
        assert torch.equal(model(ids[10:], cache, rotary, cancel=cancel), expected)


def test_a_few_tokens_that_are_cancelled_between_two_are_all_forgotten(
    own_teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cancel = ours(GOLDEN / "gptq_int8", own_teams(2)), threading.Event()
    step = model._step.run

    def cancelled_meanwhile(*arguments: Any) -> None:
        step(*arguments)
        cancel.set()

    monkeypatch.setattr(model._step, "run", cancelled_meanwhile)
    cache, rotary = model.new_cache(8), Rotary(model.config, 8, CPU)
    with torch.inference_mode(), pytest.raises(Cancelled):
        model(torch.tensor([1, 2, 3]), cache, rotary, cancel=cancel)
    assert cache.length == 0


# --- what the kernels do not run ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "dtype", "reason"),
    [
        ({"heads": 2, "head_dim": 32, "mlp_size": 48}, torch.float32, None),
        ({"heads": 2, "head_dim": 32, "mlp_size": 48}, torch.bfloat16, None),
        ({"heads": 2, "head_dim": 32, "mlp_size": 48}, torch.float16, "float16"),
        (
            {"heads": 2, "head_dim": 80, "mlp_size": 48},
            torch.float32,
            "a width of 80 is not a multiple of 32",
        ),
        (
            {"heads": 2, "head_dim": 16, "mlp_size": 48},
            torch.float32,
            "a width of 16 is not a multiple of 32",
        ),
        ({"heads": 2, "head_dim": 32, "mlp_size": 40}, torch.float32, "40"),
    ],
    ids=str,
)
def test_shapes_that_they_have_no_vectors_for_are_left_to_plain_torch(
    shapes: dict[str, int], dtype: torch.dtype, reason: str | None
) -> None:
    config = random_model.config(vocab_size=64, **shapes)
    why = support.unsupported_reason(config, str(dtype).removeprefix("torch."))
    assert why is None if reason is None else why is not None and reason in why


def test_a_model_of_other_shapes_is_loaded_and_the_reason_is_told_once(tmp_path: Path) -> None:
    config = {"kv_channels": 16, "num_attention_heads": 8}
    folder = golden.copy("fp16", tmp_path)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    told: list[str] = []
    model = load(folder, device="cpu", dtype="float32", notice=told.append)
    assert isinstance(model.engine.runner.model, Qwen)
    assert len(told) == 1
    assert "a width of 16 is not a multiple of 32" in told[0]
    assert len(list(model.generate([1, 2, 3], temperature=0, max_new_tokens=3, ignore_eos=True))) == 3


# --- heads that share keys and values ----------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("int8", [False, True])
def test_keys_and_values_that_heads_share_are_held_once(
    teams: Teams, tmp_path: Path, bits: int, int8: bool
) -> None:
    folder = llama_checkpoint.write(tmp_path, bits=bits)
    reference, model = plain(folder), ours(folder, teams(2))
    assert model.layers[0].qkv.rows == (9 + 2 * 3) * 32
    assert model.new_cache(10).layer(0).keys.shape == (3, 10, 32)
    ids = torch.randint(0, 64, (80,))
    for lengths in ([70, *[1] * 10], [1] * 80):
        found = run(model, ids, *lengths, int8=int8)
        assert error(found, run(reference, ids, *lengths, int8=int8)) < (5e-3 if int8 else MOST)


def test_projections_with_their_inputs_in_different_orders_become_floats(
    own_teams: Teams, tmp_path: Path
) -> None:
    folder = llama_checkpoint.write(tmp_path, bits=8)
    reference = plain(folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.k_proj.g_idx"
    tensors[name] = tensors[name].flip(0)  # the same groups with other inputs
    for part in ("scales", "qzeros"):
        key = name.replace("g_idx", part)
        tensors[key] = tensors[key].flip(0)
    save_file(tensors, folder / "model.safetensors")
    model, ids = ours(folder, own_teams(2)), torch.randint(0, 64, (12,))
    assert model.layers[0].qkv.bits == 32
    assert model.layers[1].qkv.bits == 8
    assert error(run(model, ids, 8, 1, 3), run(reference, ids, 8, 1, 3)) < MOST


# --- the built-in model ------------------------------------------------------------------------


def test_the_built_in_model_gives_plain_torchs_tokens(demo_folder: Path) -> None:
    model = load(demo_folder, device="cpu", dtype="float32", notice=pytest.fail)
    assert isinstance(model.engine.runner.model, CodesModel)
    prompt = model.tokenizer.encode("The capital of France is")
    greedy = {"temperature": 0, "repetition_penalty": 1, "ignore_eos": True}
    tokens = list(model.generate(prompt, max_new_tokens=500, **greedy))
    # If what plain torch finds the likeliest is always the next of these, then it decodes the same.
    logits = TorchRunner(plain(demo_folder)).logits(prompt + tokens)[len(prompt) - 1 : -1]
    best, second = logits.topk(2).values.T
    assert (best - second).min() > 1e-3  # none is a matter of rounding
    assert tokens == logits.argmax(-1).tolist()
    assert len(tokens) == 500


# --- what is let go, and what is not hidden ----------------------------------------------------


def test_a_cache_that_was_decoded_with_goes_when_it_is_given_up(
    golden_folder: Copy, own_teams: Teams
) -> None:
    engine = Engine(TorchRunner(ours(golden_folder("gptq_int8"), own_teams(2))), context=64)
    assert len(list(engine.generate([1, 2, 3], max_new_tokens=4))) == 4
    cache = weakref.ref(engine.cache.kv)
    engine.forget()
    assert cache() is None
    assert len(list(engine.generate([1, 2, 3], max_new_tokens=4))) == 4


def test_a_model_goes_when_it_is_let_go_of_without_waiting_for_the_collector(
    golden_folder: Copy, own_teams: Teams
) -> None:
    model = ours(golden_folder("gptq_int8"), own_teams(2))
    run(model, torch.arange(10), 8, 1, 1)
    weights = weakref.ref(model.layers[0].attention_norm)
    gc.disable()
    try:
        del model
        assert weights() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("part", ["qkv", "up"])
def test_what_is_no_number_stays_none(golden_folder: Copy, own_teams: Teams, part: str, int8: bool) -> None:
    model = ours(golden_folder("gptq_int8"), own_teams(2))
    scales = getattr(model.layers[0], part).scales
    assert scales is not None
    cache, rotary = model.new_cache(8, int8=int8), Rotary(model.config, 8, CPU)
    with torch.inference_mode():
        assert model(torch.tensor([1]), cache, rotary).isfinite().all()
        scales[0, 0, 3] = torch.nan  # a query of the first head, or one of the MLP
        assert model(torch.tensor([2]), cache, rotary).isnan().all()
