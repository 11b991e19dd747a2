"""Checkpoints in codes without torch: what plain torch gives, and nothing of it imported."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qwenchat.backends.load import load
from qwenchat.engine.cpu.codes_model import CodesModel
from qwenchat.engine.cpu.compiled import Enter
from qwenchat.engine.cpu.layout import COUNTER_WORDS, WORK
from qwenchat.engine.cpu.memory import Array, address
from qwenchat.engine.cpu.reading import read_weights, survey
from qwenchat.engine.cpu.runner import CodesRunner
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.generate import Engine
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from tests.places import GOLDEN

Teams = Callable[[int], Team]
IN_CODES = ("gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order")


def in_codes(folder: Path, team: Team, *, dtype: str = "float32", exact: bool = True) -> CodesModel:
    found = survey(folder, dtype="F32", context=64, int8_cache=False)
    assert found is not None
    return CodesModel(read_weights(found, team, lambda fraction: None), team, dtype=dtype, exact=exact)


def with_torch(folder: Path) -> TorchRunner:
    return TorchRunner(load_model(folder, device=torch.device("cpu"), dtype=torch.float32, context=64))


def rows(runner: CodesRunner, ids: list[int], *lengths: int) -> Array:
    """The logits after every token, of chunks of so many ids each."""
    cache, start, found = runner.new_cache(len(ids)), 0, []
    for length in lengths:
        found.append(runner.verify(cache, ids[start : start + length]).copy())
        start += length
    assert cache.ids == ids
    return np.concatenate(found)


def error(found: Array, expected: Array) -> float:
    """The norm of the difference over the norm of what is expected, of the worst row."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    norm = np.linalg.norm
    return float((norm(found - expected, axis=-1) / norm(expected, axis=-1)).max())


IDS = [(7 * i * i + 3) % 320 for i in range(60)]


@pytest.mark.parametrize("name", IN_CODES)
def test_a_prompt_gets_plain_torchs_logits_however_it_is_cut(own_teams: Teams, name: str) -> None:
    expected = with_torch(GOLDEN / name).logits(IDS).numpy()
    exact, rounded = (in_codes(GOLDEN / name, own_teams(2), exact=exact) for exact in (True, False))
    short = in_codes(GOLDEN / name, own_teams(1), dtype="bfloat16", exact=False)
    for lengths in ((60,), (1, 59), (30, 30), (1,) * 5 + (50, 2, 3)):
        assert error(rows(CodesRunner(exact), IDS, *lengths), expected) < 2e-5
        assert error(rows(CodesRunner(rounded), IDS, *lengths), expected) < 1e-3
        assert error(rows(CodesRunner(exact, int8_cache=True), IDS, *lengths), expected) < 2e-2
        assert error(rows(CodesRunner(short), IDS, *lengths), expected) < 1e-2


@pytest.mark.parametrize("name", IN_CODES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tokens_run_together_give_the_logits_of_one_after_another_to_the_bit(
    own_teams: Teams, name: str, threads: int
) -> None:
    for dtype, int8 in (("float32", False), ("bfloat16", False), ("float32", True)):
        runner = CodesRunner(in_codes(GOLDEN / name, own_teams(threads), dtype=dtype), int8_cache=int8)
        expected = rows(runner, IDS, *[1] * len(IDS))
        assert np.array_equal(rows(runner, IDS, 1, 2, 9, 3, 1, 8, 9, 9, 4, 9, 5), expected)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 1.2, "top_p": 0.9, "seed": 5}], ids=str
)
def test_a_reply_is_that_of_the_runner_with_torch(own_teams: Teams, settings: dict[str, float]) -> None:
    params = SamplingParams(**settings)
    ours = Engine(CodesRunner(in_codes(GOLDEN / "gptq_int8", own_teams(2))), context=64)
    theirs = Engine(with_torch(GOLDEN / "gptq_int8"), context=64)
    for ids in (IDS[:20], IDS[:1], IDS[:21]):
        found, expected = (list(engine.generate(ids, params, max_new_tokens=30)) for engine in (ours, theirs))
        assert found == expected


def test_a_cancelled_prompt_leaves_the_cache_as_it_was(own_teams: Teams) -> None:
    runner, cancel = CodesRunner(in_codes(GOLDEN / "gptq_int8", own_teams(2))), threading.Event()
    whole, cache = runner.new_cache(40), runner.new_cache(40)
    runner.prefill(whole, IDS[:10])
    expected = runner.prefill(whole, IDS[10:40])
    runner.prefill(cache, IDS[:10], cancel)
    cancel.set()
    with pytest.raises(Cancelled):
        runner.prefill(cache, IDS[10:40], cancel)
    assert cache.ids == IDS[:10]
    assert np.array_equal(runner.prefill(cache, IDS[10:40]), expected)
    with pytest.raises(ValueError, match="the cache is full with 40 positions"):
        runner.prefill(cache, [1])


def test_a_thread_that_does_not_come_holds_nobody_up(own_teams: Teams, enter: Enter) -> None:
    model = in_codes(GOLDEN / "gptq_int8", own_teams(2))
    cache, step = model.new_cache(8), model._step
    expected = model.step(cache, 7).copy()
    step.place(7, 0)
    step.logits[:] = 0
    first = threading.Thread(target=enter, args=(WORK, address(step._job), 0, 0, 0), daemon=True)
    first.start()
    done = step._counters[-1, COUNTER_WORDS // 2 :]  # of the output layer, whose ten blocks are eight pieces
    while done[0] < 8:
        first.join(0.001)
    assert np.array_equal(step.logits, expected)
    enter(WORK, address(step._job), 1, 0, 0)  # comes late, finds nothing to do
    first.join()
    assert np.array_equal(step.logits, expected)


def test_two_caches_can_take_turns(own_teams: Teams) -> None:
    runner = CodesRunner(in_codes(GOLDEN / "gptq_int8", own_teams(2)))
    texts = IDS[:20], IDS[20:40]
    expected = []
    for text in texts:
        cache = runner.new_cache(20)
        expected.append([runner.prefill(cache, [token]) for token in text])
    caches = [runner.new_cache(20), runner.new_cache(33)]
    for i in range(20):
        for cache, text, reference in zip(caches, texts, expected, strict=True):
            assert np.array_equal(runner.prefill(cache, [text[i]]), reference[i])


def test_what_is_let_go_of_goes_without_waiting_for_the_collector(own_teams: Teams) -> None:
    engine = Engine(CodesRunner(in_codes(GOLDEN / "gptq_int8", own_teams(2))), context=64)
    assert len(list(engine.generate([1, 2, 3], max_new_tokens=4))) == 4
    cache, model = weakref.ref(engine.cache), weakref.ref(engine.runner.model)
    gc.disable()
    try:
        engine.forget()
        assert cache() is None
        del engine
        assert model() is None
    finally:
        gc.enable()


def test_logits_are_a_tensor(golden_folder: Callable[[str], Path]) -> None:
    found = load(golden_folder("gptq_int8"), device="cpu", dtype="float32").logits(IDS[:5])
    assert isinstance(found, torch.Tensor)
    assert found.shape == (5, 320)


# --- no torch ----------------------------------------------------------------------------------


PROGRAM = """
import sys
from qwenchat.backends.load import load
model = load(sys.argv[1], device="auto" if sys.argv[2] == "auto" else "cpu", dtype="auto")
assert len(list(model.generate(list(range(30)), max_new_tokens=5, ignore_eos=True, temperature=1))) == 5
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numba", "transformers"}))
"""


def test_a_reply_of_a_checkpoint_in_codes_imports_no_torch(kernels_folder: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(kernels_folder.parent), "CUDA_VISIBLE_DEVICES": ""}
    for device in ("cpu", "auto"):
        told = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(GOLDEN / "gptq_int8"), device],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        assert told.stdout.strip() == ""
