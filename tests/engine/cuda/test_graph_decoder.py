"""The loop around the decode step, on a device that lags behind.

The device is played by a queue on the CPU, and the kernels by their twins: what the host asks for is done in
its order, but only while the host waits for it.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda import decode
from qwenchat.engine.cuda.decode import REPLAYS_AHEAD, DecodeStep, GraphDecoder
from qwenchat.engine.cuda.kernels import sample
from qwenchat.engine.cuda.linear import RowLayout
from qwenchat.engine.cuda.runner import GraphRunner
from qwenchat.engine.generate import Engine
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.torch_sampling import draw, filtered_logits
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import QwenchatError
from tests.engine import golden

CPU = torch.device("cpu")
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3] * 4
DRAWN = SamplingParams(temperature=0.9, top_p=0.9, repetition_penalty=1.2, seed=3)
BOTH = pytest.mark.parametrize("params", [None, DRAWN], ids=["greedy", "drawn"])


class LaggingDevice:
    """Does what is queued one by one, when the host asks how far it is.

    Attributes:
        replays: decode steps that the host has asked for.
        spoiled: makes every further logit NaN.
    """

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()
        self.replays = 0
        self.spoiled = False

    def queue(self, work: Callable[[], None]) -> None:
        self._queue.append(work)

    def query(self) -> bool:
        """As a stream's: whether all is done."""
        if self._queue:
            with torch.inference_mode():
                self._queue.popleft()()
        return not self._queue

    def finish(self) -> None:
        while not self.query():
            continue

    def graph(self, step: DecodeStep) -> SimpleNamespace:
        """What stands for a captured decode step."""

        def run() -> None:
            state = step.state
            state.logits.copy_(step.twin(int(state.token), int(state.position)))
            if self.spoiled:
                state.logits.fill_(float("nan"))
            choose(state)

        def replay() -> None:
            self.replays += 1
            self.queue(run)

        return SimpleNamespace(replay=replay)


def choose(state: sample.State) -> None:
    """The sampler kernel, by its definition."""
    temperature, top_k, top_p, min_p, penalty = state.settings.tolist()
    params = SamplingParams(temperature, int(top_k), top_p, min_p, penalty)
    step = int(state.step)
    try:
        left = filtered_logits(state.logits, params, state.seen > 0)
        token = draw(left, float(state.uniforms[step])) if temperature > 0 else int(left.argmax())
        state.tokens[step] = token
    except QwenchatError:
        token, state.tokens[step] = 0, sample.BROKEN
    state.seen[token] = 1
    state.token.fill_(token)
    state.step += 1
    state.position += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> LaggingDevice:
    """A lagging device in the place of the GPU."""
    lagging = LaggingDevice()
    begin, run = sample.State.begin, TorchRunner._run

    def begin_later(state: sample.State, *args: object) -> None:
        lagging.finish()  # its copies wait for the device
        begin(state, *args)

    def run_later(runner: TorchRunner, *args: object, **settings: object) -> torch.Tensor:
        lagging.finish()  # prefill is queued behind the decode steps
        return run(runner, *args, **settings)

    monkeypatch.setattr(sample.State, "begin", begin_later)
    monkeypatch.setattr(sample, "sample", lambda state: lagging.queue(lambda: choose(state)))
    monkeypatch.setattr(TorchRunner, "_run", run_later)
    monkeypatch.setattr(GraphDecoder, "_capture", lambda decoder: lagging.graph(decoder.step))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: lagging)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    return lagging


@pytest.fixture
def plain(tmp_path: Path) -> Engine:
    """The model without the kernels."""
    folder = golden.copy("fp16", tmp_path)
    model = load_model(folder, device=CPU, dtype=torch.float32, context=128)
    return Engine(TorchRunner(model), context=128)


@pytest.fixture
def fresh(device: LaggingDevice, tmp_path: Path) -> Callable[[], Engine]:
    """Makes an engine that decodes with the kernels, or what stands for them."""
    count = itertools.count()

    def make() -> Engine:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        golden.copy("fp16", folder)
        model = load_model(
            folder, device=CPU, dtype=torch.float32, context=128, layout=RowLayout(torch.float32)
        )
        weights = decode.assemble(model)
        assert weights is not None
        return Engine(GraphRunner(model, weights), context=128)

    return make


@pytest.fixture
def engine(fresh: Callable[[], Engine]) -> Engine:
    return fresh()


@BOTH
def test_tokens_are_those_of_the_engine_without_kernels(
    engine: Engine, plain: Engine, params: SamplingParams | None
) -> None:
    for prompt in (PROMPT, PROMPT[:1], PROMPT):
        expected = list(plain.generate(prompt, params, max_new_tokens=12))
        assert list(engine.generate(prompt, params, max_new_tokens=12)) == expected


def test_a_step_is_asked_for_before_the_token_in_front_is_read_but_none_beyond_the_limit(
    engine: Engine, device: LaggingDevice
) -> None:
    asked = []
    for token in engine.generate(PROMPT, max_new_tokens=8):
        asked.append(device.replays)
        assert 0 <= token < 320
    assert asked[0] == REPLAYS_AHEAD
    assert asked == [min(i + REPLAYS_AHEAD, 7) for i in range(8)]
    device.replays = 0
    assert len(list(engine.generate(PROMPT, max_new_tokens=1))) == 1
    assert device.replays == 0


@BOTH
def test_a_cancel_gives_out_no_further_token_and_leaves_nothing_behind(
    engine: Engine, fresh: Callable[[], Engine], params: SamplingParams | None
) -> None:
    expected = list(fresh().generate(PROMPT, params, max_new_tokens=10))
    for given in range(1, 10):
        cancel = threading.Event()
        generation = engine.generate(PROMPT, params, max_new_tokens=10, cancel=cancel)
        assert list(itertools.islice(generation, given)) == expected[:given]
        cancel.set()
        assert list(generation) == []
        assert generation.stats.finish_reason == "cancelled"
        assert generation.stats.new_tokens == given
        # Needs no prefill, so it begins while the device is still at the old reply.
        assert list(engine.generate(PROMPT, params, max_new_tokens=10)) == expected


def test_a_reply_closed_early_leaves_nothing_behind(engine: Engine, fresh: Callable[[], Engine]) -> None:
    expected = list(fresh().generate(PROMPT, DRAWN, max_new_tokens=10))
    for given in range(1, 10):
        generation = engine.generate(PROMPT, DRAWN, max_new_tokens=10)
        list(itertools.islice(generation, given))
        generation.close()
        assert list(engine.generate(PROMPT, DRAWN, max_new_tokens=10)) == expected


@pytest.mark.parametrize("given", [1, 2, 5])
@pytest.mark.parametrize("how", ["cancelled", "stopped", "closed"])
def test_a_chat_goes_on_after_a_reply_that_ended_early(
    engine: Engine, plain: Engine, given: int, how: str
) -> None:
    reply = list(plain.generate(PROMPT, DRAWN, max_new_tokens=given + 1))
    cancel = threading.Event()
    stop = reply[given] if how == "stopped" else -1
    generation = engine.generate(PROMPT, DRAWN, max_new_tokens=20, stop_ids=[stop], cancel=cancel)
    if how == "stopped":
        assert stop not in reply[:given]
        assert list(generation) == reply[:given]
    else:
        assert list(itertools.islice(generation, given)) == reply[:given]
        cancel.set() if how == "cancelled" else generation.close()
        assert list(generation) == []
    follow_up = [*PROMPT, *reply[:given], 7, 8, 9]
    after = engine.generate(follow_up, max_new_tokens=8)
    tokens = list(after)
    assert tokens == list(plain.generate(follow_up, max_new_tokens=8))
    # All that was asked for again is in the cache, but a last token that nobody went on from.
    assert after.stats.reused_tokens == len(PROMPT) + given - (how != "stopped")


def test_an_undone_turn_leaves_nothing_behind(engine: Engine, plain: Engine) -> None:
    reply = list(engine.generate(PROMPT, max_new_tokens=10))
    list(engine.generate([*PROMPT, *reply, 1, 2, 3], max_new_tokens=10))
    branch = [*PROMPT, *reply[:4], 9, 9]
    generation = engine.generate(branch, max_new_tokens=10)
    assert list(generation) == list(plain.generate(branch, max_new_tokens=10))
    assert generation.stats.reused_tokens == len(PROMPT) + 4


@BOTH
def test_logits_that_are_not_numbers_are_an_error_after_the_tokens_before_them(
    engine: Engine, device: LaggingDevice, params: SamplingParams | None
) -> None:
    expected = list(engine.generate(PROMPT, params, max_new_tokens=10))
    generation = engine.generate(PROMPT, params, max_new_tokens=10)
    found = list(itertools.islice(generation, 3))
    device.finish()  # two more are under way, and sound
    device.spoiled = True
    with pytest.raises(QwenchatError, match="NaN"):
        for token in generation:
            found.append(token)
    assert found == expected[: 3 + REPLAYS_AHEAD]
    device.spoiled = False
    assert list(engine.generate(PROMPT, params, max_new_tokens=10)) == expected


def test_a_device_that_ends_without_a_token_is_no_endless_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "sample", lambda state: None)
    with pytest.raises(RuntimeError, match="without a token"):
        list(engine.generate(PROMPT, max_new_tokens=1))
