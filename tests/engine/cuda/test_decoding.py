"""Decoding on a CUDA device: the tokens are the CPU engine's, and nothing stays behind after a reply."""

from __future__ import annotations

import gc
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

import qwenchat
from qwenchat.backends.native.load import load_native
from qwenchat.backends.request import LoadRequest
from qwenchat.engine.architectures import ARCHITECTURES, Architecture
from qwenchat.engine.cuda.decode import PARTS, DecodeStep
from qwenchat.engine.cuda.kernels import sample
from qwenchat.engine.cuda.runner import GraphCache, GraphRunner
from qwenchat.engine.generate import Engine
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_runner import TorchCache
from qwenchat.errors import InsufficientMemoryError, QwenchatError
from qwenchat.models import catalog
from qwenchat.models.builtin import demo
from tests.engine import golden, llama_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BUILT_IN = demo.is_cached(catalog.made_models_dir())
"""The built-in model if the user has it; looked for before a test moves the folders."""
MIXED = SamplingParams(top_p=0.9, temperature=0.8, repetition_penalty=1.1, seed=5)


def on_device(folder: Path, **settings: object) -> Engine:
    model = qwenchat.load(folder, device="cuda", dtype="float16", **settings)
    # Only that folder has w1 and w2 with their inputs in different orders.
    assert "CUDA graph" in model.description or folder.name == "gptq_int8_act_order"
    return model.engine


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A small Int8 model with 256 positions of context; tests leave it as they find it, or so they claim."""
    return on_device(golden.copy("gptq_int8", tmp_path_factory.mktemp("shared")), context=256)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Engine]:
    """The same model, of which nothing was ever asked."""
    count = itertools.count()

    def make() -> Engine:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return on_device(golden.copy("gptq_int8", folder), context=256)

    return make


def some_ids(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(300), k=count)


# --- the tokens are the CPU engine's ---------------------------------------------------------------


def forward_logits(engine: Engine, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """The logits that each token of a reply is chosen from, by the model's own forward."""
    cache = engine.runner.new_cache(len(prompt) + len(reply))
    cache.begin(prompt)  # its rotation is that of the prompt, however long the reply
    calls = [prompt, *([token] for token in reply[:-1])]
    return torch.stack([torch.as_tensor(engine.runner.prefill(cache, ids)) for ids in calls]).cpu()


@torch.inference_mode()
def kernel_logits(engine: Engine, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """The same by the decode kernels, if they are used, on the cache of a generation."""
    list(engine.generate(prompt, max_new_tokens=1))
    cache = engine.cache
    if not isinstance(cache, GraphCache):
        return forward_logits(engine, prompt, reply)
    rows = [cache.end_logits]
    step = cache.decoder.step
    for position, token in enumerate(reply[:-1], len(prompt)):
        step.state.token.fill_(token)
        step.state.position.fill_(position)
        step.launch(step.parts[:-1])
        rows.append(step.state.logits.clone())
    return torch.stack(rows).cpu()


def assert_same_tokens(cpu: Engine, gpu: Engine, prompt: list[int], tokens: int) -> tuple[float, int]:
    """Greedy tokens agree wherever the CPU's two best logits are further apart than the measured error.

    Returns the relative error of the logits, and how many tokens the two have in common before they part.
    """
    reply = list(gpu.generate(prompt, max_new_tokens=tokens))
    assert len(reply) == tokens
    expected = forward_logits(cpu, prompt, reply)
    found = kernel_logits(gpu, prompt, reply)
    difference = found - expected
    # How far the distance between two logits of a row was moved, at most.
    error = (difference.amax(-1) - difference.amin(-1)).max()
    lead = expected.amax(-1) - expected[torch.arange(tokens), torch.tensor(reply)]
    assert (lead <= error).all()
    theirs = list(cpu.generate(prompt, max_new_tokens=tokens))
    parted = next((i for i in range(tokens) if theirs[i] != reply[i]), tokens)
    if parted < tokens:
        best, second = expected[parted].topk(2).values
        assert best - second <= error
    return float((difference.norm(dim=-1) / expected.norm(dim=-1)).max()), parted


@pytest.mark.parametrize("name", [*golden.NAMES, golden.ONE_ORDER])
def test_greedy_tokens_of_every_golden_folder_equal_the_cpus(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    folder = golden.copy(name, tmp_path / name)
    gpu = on_device(folder, context=256)
    cpu = qwenchat.load(folder, device="cpu", dtype="float32", context=256).engine
    prompts = golden.prompts(name)
    prompts += [some_ids(length, seed=length) for length in (1, 33, 100)]
    errors, common = zip(*(assert_same_tokens(cpu, gpu, ids, 48) for ids in prompts), strict=True)
    print(f"{name}: relative error {max(errors):.1e}, equal tokens {common} of 48")
    assert max(errors) < 1e-2
    assert sum(common) / len(common) > 24  # or the error would excuse anything


@pytest.mark.skipif(BUILT_IN is None, reason="the built-in model is not downloaded")
def test_greedy_tokens_of_the_built_in_model_equal_the_cpus() -> None:
    assert BUILT_IN is not None
    gpu = qwenchat.load(BUILT_IN, device="cuda", dtype="float16", context=512)
    cpu = qwenchat.load(BUILT_IN, device="cpu", dtype="float32", context=512)
    for question in ("What is the capital of France?", "Write a haiku about rain."):
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        prompt = gpu.tokenizer.encode(text, allowed_special="all")
        error, common = assert_same_tokens(cpu.engine, gpu.engine, prompt, 40)
        print(f"built-in: relative error {error:.1e}, equal tokens {common} of 40")
        assert error < 2e-2


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(
    ("heads", "key_value_heads", "norms", "cache"),
    [
        (9, 3, False, "auto"),
        (14, 2, False, "int8"),
        (4, 4, True, "auto"),
        (16, 2, True, "int8"),
        (5, 1, False, "auto"),
    ],
)
def test_greedy_tokens_of_heads_that_share_keys_and_values_equal_the_cpus(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bits: int,
    heads: int,
    key_value_heads: int,
    norms: bool,
    cache: str,
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "normed", Architecture("normed", qk_norm=True))
    folder = llama_checkpoint.write(
        tmp_path, heads=heads, key_value_heads=key_value_heads, head_dim=64, norms=norms, bits=bits,
        model_type="normed" if norms else "llama",
        attention_scale=1.5,  # sharper attention makes much of what 8 bits round differently
    )  # fmt: skip
    cpu, gpu = (
        load_native(folder, LoadRequest(folder, device=device, dtype=dtype, context=128, kv_cache=cache))
        for device, dtype in (("cpu", "float32"), ("cuda", "float16"))
    )
    assert "CUDA graph" in gpu.description
    prompts = [random.Random(length).choices(range(64), k=length) for length in (1, 33, 70)]
    errors, common = zip(*(assert_same_tokens(cpu.engine, gpu.engine, p, 40) for p in prompts), strict=True)
    print(f"{heads} heads on {key_value_heads}: relative error {max(errors):.1e}, equal {common} of 40")
    assert max(errors) < 2e-2


def test_a_prompt_that_changes_the_ntk_alpha_is_prefilled_whole(tmp_path: Path) -> None:
    folder = golden.copy("ntk_logn", tmp_path)
    engine = on_device(folder, context=256)
    short, longer = some_ids(30, 1), some_ids(30, 1) + some_ids(60, 2)
    first = list(engine.generate(short, max_new_tokens=20))
    generation = engine.generate(longer, max_new_tokens=20)
    tokens = list(generation)
    assert generation.stats.reused_tokens == 0
    assert tokens == list(on_device(folder, context=256).generate(longer, max_new_tokens=20))
    assert list(engine.generate(short, max_new_tokens=20)) == first


def test_logits_that_are_not_numbers_end_the_reply_with_an_error(shared_engine: Engine) -> None:
    engine = shared_engine
    prompt = some_ids(20, 3)
    expected = list(engine.generate(prompt, max_new_tokens=8))
    norm = engine.runner.model.norm.weight
    before = norm.clone()
    for broken in (float("nan"), float("inf")):
        generation = engine.generate(prompt, MIXED, max_new_tokens=8)  # its prefill is remembered, and sound
        norm.fill_(broken)
        with pytest.raises(QwenchatError, match="NaN"):
            list(generation)
        norm.copy_(before)
        assert list(engine.generate(prompt, max_new_tokens=8)) == expected


# --- cancelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [None, MIXED], ids=["greedy", "drawn"])
def test_a_cancel_ends_the_reply_within_a_token_and_leaves_nothing_behind(
    shared_engine: Engine, fresh: Callable[[], Engine], params: SamplingParams | None
) -> None:
    prompt, other = some_ids(60, 4), some_ids(50, 5)
    untouched = fresh()
    expected = list(untouched.generate(prompt, params, max_new_tokens=40))
    expected_other = list(untouched.generate(other, params, max_new_tokens=40))
    for given in [*range(1, 12), 25, 38, 39]:
        cancel = threading.Event()
        generation = shared_engine.generate(prompt, params, max_new_tokens=40, cancel=cancel)
        assert list(itertools.islice(generation, given)) == expected[:given]
        cancel.set()
        assert list(generation) == []
        assert generation.stats.finish_reason == "cancelled"
        assert generation.stats.new_tokens == given
        # The same prompt needs no prefill, so its tokens follow at once on what the device still does.
        assert list(shared_engine.generate(prompt, params, max_new_tokens=40)) == expected
        assert list(shared_engine.generate(other, params, max_new_tokens=40)) == expected_other


def test_closing_a_reply_early_leaves_nothing_behind(
    shared_engine: Engine, fresh: Callable[[], Engine]
) -> None:
    prompt = some_ids(60, 6)
    expected = list(fresh().generate(prompt, MIXED, max_new_tokens=40))
    for given in range(1, 8):
        generation = shared_engine.generate(prompt, MIXED, max_new_tokens=40)
        assert list(itertools.islice(generation, given)) == expected[:given]
        generation.close()
        assert list(generation) == []
        assert list(shared_engine.generate(prompt, MIXED, max_new_tokens=40)) == expected


@pytest.mark.parametrize("given", [1, 2, 7])
def test_a_chat_goes_on_after_a_cancel_as_after_a_reply_of_that_length(
    shared_engine: Engine, fresh: Callable[[], Engine], given: int
) -> None:
    prompt = some_ids(60, 7)
    cancel = threading.Event()
    generation = shared_engine.generate(prompt, max_new_tokens=40, cancel=cancel)
    reply = list(itertools.islice(generation, given))
    cancel.set()
    list(generation)
    follow_up = [*prompt, *reply, *some_ids(20, 8)]
    after_cancel = shared_engine.generate(follow_up, max_new_tokens=20)
    tokens = list(after_cancel)
    # Of a reply the last token is given out and never run, so one more leaves the same in the cache.
    other = fresh()
    list(other.generate(prompt, max_new_tokens=given + 1))
    assert list(other.generate(follow_up, max_new_tokens=20)) == tokens
    assert after_cancel.stats.reused_tokens == len(prompt) + given


def test_a_reply_beyond_the_context_needs_a_new_graph_and_says_the_same(
    tmp_path: Path, shared_engine: Engine
) -> None:
    short = on_device(golden.copy("gptq_int8", tmp_path))
    prompt = some_ids(20, 9)
    assert short.cache is not None
    assert short.cache.capacity == 32
    assert list(short.generate(prompt, max_new_tokens=100)) == list(
        shared_engine.generate(prompt, max_new_tokens=100)
    )


# --- memory ----------------------------------------------------------------------------------------


def allocated() -> int:
    """Bytes of the device's memory that something still holds."""
    gc.collect()  # an engine is full of cycles, and those of other tests are none of ours
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def turns(engine: Engine, count: int) -> Iterator[int]:
    """A chat with replies drawn and greedy, cancelled, undone and branched off; the number of each turn."""
    choose = random.Random(0)
    history: list[int] = []
    starts: list[int] = []
    for turn in range(1, count + 1):
        if starts and turn % 5 == 0:  # undo
            del history[starts.pop() :]
        if starts and turn % 7 == 0:  # branch off at an earlier turn
            kept = choose.randrange(len(starts))
            del history[starts[kept] :]
            del starts[kept:]
        if len(history) > 190:  # a new chat
            history, starts = [], []
        starts.append(len(history))
        history += some_ids(choose.randint(1, 40), turn)
        cancel = threading.Event()
        params = choose.choice([None, MIXED])
        generation = engine.generate(history, params, max_new_tokens=choose.randint(1, 20), cancel=cancel)
        reply = list(itertools.islice(generation, choose.choice([3, 20])))
        cancel.set()
        assert list(generation) == []
        history += reply
        yield turn


def test_200_turns_with_undo_and_branch_leave_no_memory_growth(fresh: Callable[[], Engine]) -> None:
    engine = fresh()
    process = psutil.Process()
    on_the_device, on_the_host = {}, {}
    for turn in turns(engine, 200):
        if turn in (20, 200):
            on_the_device[turn] = allocated()
            on_the_host[turn] = process.memory_info().rss
    print(f"on the device {on_the_device}, on the host {on_the_host}")
    assert on_the_device[200] == on_the_device[20]
    assert on_the_host[200] - on_the_host[20] < 64 * 2**20


def test_an_engine_that_is_dropped_gives_its_memory_back(fresh: Callable[[], Engine]) -> None:
    list(fresh().generate(some_ids(20, 1), max_new_tokens=4))
    before = allocated()
    for seed in range(3):
        list(fresh().generate(some_ids(20, seed), max_new_tokens=4))
    assert allocated() <= before


def test_the_engine_answers_after_it_ran_out_of_memory(
    fresh: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fresh()
    prompt = some_ids(40, 11)
    expected = list(engine.generate(prompt, max_new_tokens=20))
    before = allocated()
    with monkeypatch.context() as patched:
        patched.setattr(engine.runner, "max_positions", 2**36)
        with pytest.raises(InsufficientMemoryError):
            list(engine.generate(prompt, max_new_tokens=2**34))
    assert allocated() < before  # the cache is given back
    assert list(engine.generate(prompt, max_new_tokens=20)) == expected


@pytest.mark.parametrize("turn", ["the first", "a later"])
def test_memory_that_runs_out_in_the_middle_of_a_prompt_is_an_error_that_the_engine_survives(
    fresh: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch, turn: str
) -> None:
    engine = fresh()
    prompt = some_ids(40, 12)
    expected = list(fresh().generate(prompt, max_new_tokens=20))
    if turn == "a later":
        list(engine.generate(some_ids(50, 13), max_new_tokens=5))

    def run_out(*_: object) -> None:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")

    hook = engine.runner.model.layers[1].register_forward_hook(run_out)
    with pytest.raises(InsufficientMemoryError):
        list(engine.generate(prompt, max_new_tokens=20))
    hook.remove()
    assert list(engine.generate(prompt, max_new_tokens=20)) == expected


# --- a cache of 8 bits -----------------------------------------------------------------------------


@torch.inference_mode()
def test_a_cache_of_8_bits_changes_the_logits_a_little(shared_engine: Engine) -> None:
    engine = shared_engine
    runner = engine.runner
    assert isinstance(runner, GraphRunner)
    c = runner.config
    ids = some_ids(200, 14)
    rows = {}
    for int8 in (False, True):
        kv = KVCache.of(c, 256, dtype=runner.dtype, device=runner.device, int8=int8)
        cache = TorchCache(c, kv, runner.device)
        state = sample.State(c.vocab_size, 256, runner.device)
        step = DecodeStep(c, runner.weights, kv, cache.rotary, state, pdl=False)
        runner.prefill(cache, ids[:100])
        found = []
        for position in range(100, 200):
            state.token.fill_(ids[position])
            state.position.fill_(position)
            step.launch(PARTS[:-1])
            found.append(state.logits.clone())
        rows[int8] = torch.stack(found)
    errors = (rows[True] - rows[False]).norm(dim=-1) / rows[False].norm(dim=-1)
    print(f"8-bit keys and values move the logits by {errors.mean():.2e}, at most {errors.max():.2e}")
    assert 0 < errors.max() < 5e-2
