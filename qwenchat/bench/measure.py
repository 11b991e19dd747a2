"""Measures a model: loads it, times its prompts, replies and kernels, frees it.

How much is measured, and what comes of it, are the values of :mod:`qwenchat.bench.protocol`.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from qwenchat.bench.ceilings import prefill_operations, read_rate
from qwenchat.bench.protocol import (
    SAMPLING,
    WARM_TOKENS,
    WINDOW,
    Decode,
    Loaded,
    Memory,
    Protocol,
    Result,
    Subject,
    Tell,
)
from qwenchat.bench.random_weights import published_chat
from qwenchat.bench.timing import Clock, wait
from qwenchat.engine.generate import Engine
from qwenchat.engine.plan import new_runner
from qwenchat.i18n.language import tr

_REPEATS = 3
_TRIAL = 16
"""Tokens of the prompt and of the reply by which a machine's speed is judged."""


def measure(
    subject: Subject,
    protocol: Protocol,
    *,
    kernels: bool = False,
    sampler: bool = False,
    seconds: float | None = None,
    shorter_replies: bool = False,
    tell: Tell,
    clock: Clock = perf_counter,
) -> Result:
    """Loads a subject, measures it, and frees it.

    Args:
        seconds: about how long all prompts, and all replies, may take: a slow machine gets shorter prompts,
            and with ``shorter_replies`` replies.
        kernels: time each kernel too, where there are kernels.
        sampler: time the sampler alone too.
        clock: what tells the time.
    """
    tell(tr("{name}: loading", name=subject.name))
    forget_peak()
    started = clock()
    loaded = subject.load()
    wait(loaded.device)
    config, dtype = loaded.config, str(loaded.dtype).removeprefix("torch.")
    load_seconds = clock() - started
    protocol = protocol.within(config.max_position_embeddings)
    if seconds is not None:
        protocol = _in_time(protocol, loaded, seconds, shorter_replies, subject, tell, clock)
    result = Result(
        name=subject.name,
        format=f"Int{config.quant.bits}" if config.quant else dtype,
        published=published_chat(config),
        device=str(loaded.device),
        dtype=dtype,
        kernels=loaded.kernels,
        protocol=protocol,
        weights=loaded.bytes_per_token,
        per_position=kv_bytes_per_position(loaded, subject.kv_cache),
        load_seconds=load_seconds,
        prefill_operations=prefill_operations(config, protocol.prompt),
    )
    _measure_prompts(result, loaded, subject.kv_cache, tell, clock)
    _measure_replies(result, loaded, subject.kv_cache, kernels, tell, clock)
    device = loaded.device
    if sampler:
        from qwenchat.bench.kernels import measure_sampler

        result.sampler = measure_sampler(
            config.vocab_size, SAMPLING, device, on_device=loaded.weights is not None, clock=clock
        )
    del loaded
    free(device)
    return result


def _in_time(
    protocol: Protocol,
    loaded: Loaded,
    seconds: float,
    shorter_replies: bool,
    subject: Subject,
    tell: Tell,
    clock: Clock,
) -> Protocol:
    """The protocol for a machine of this speed, told where it is a shorter one."""
    tell(tr("{name}: how fast it is, to choose lengths", name=subject.name))
    engine, prompts = new_engine(loaded, 2 * _TRIAL, subject.kv_cache), _Prompts(loaded.config.vocab_size)
    for _ in range(2):  # the first prepares kernels
        prompt_token = _first_token(engine, prompts.new(_TRIAL), clock)[0] / _TRIAL
    decodes: list[Decode] = []
    _reply(decodes, engine, prompts.new(1), _TRIAL, clock)
    token = 1 / decodes[0].speed
    return protocol.in_time(seconds, prompt_token=prompt_token, token=token, replies=shorter_replies)


_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def forget_peak() -> None:
    """Lets the process's peak of resident memory begin anew, where the system can."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def resident_peak() -> Memory | None:
    """The most memory that the process had resident; None where the system does not tell."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    peak = 1024 * int(line.split()[1])
    return Memory(peak, peak)


def free(device: torch.device) -> None:
    """Gives memory that nothing holds any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# The one place that knows what kinds of KV cache an engine takes, and what a position of each is.


def new_engine(loaded: Loaded, context: int, kv_cache: str) -> Engine[Any]:
    """An engine on the model, with a cache for ``context`` tokens."""
    runner = new_runner(loaded.model, loaded.weights, int8_cache=kv_cache == "int8")
    # Random tokens end in rounds, which a guess would run through several at a time.
    return Engine(runner, context=context, prompt_lookup="off")


def kv_bytes_per_position(loaded: Loaded, kv_cache: str) -> int:
    """Bytes of the cache that a token reads of each position."""
    return loaded.model.new_cache(0, int8=kv_cache == "int8").bytes_per_position


def _measure_prompts(result: Result, loaded: Loaded, kv_cache: str, tell: Tell, clock: Clock) -> None:
    """The first token of a prompt, and its peak memory, in a cache that holds no more than that."""
    length, prompts = result.protocol.prompt, _Prompts(loaded.config.vocab_size)
    tell(tr("{name}: preparing kernels", name=result.name))
    engine = new_engine(loaded, length + 1, kv_cache)
    tell(tr("{name}: first token after {tokens}", name=result.name, tokens=f"{length:,}"))
    _first_token(engine, prompts.new(length), clock)  # warm
    free(loaded.device)
    result.encode_memory = _peak(loaded.device, partial(_first_token, engine, prompts.new(length), clock))
    result.first_token = statistics.median(
        [_first_token(engine, prompts.new(length), clock)[0] for _ in range(_REPEATS)]
    )
    del engine
    free(loaded.device)


def _measure_replies(
    result: Result, loaded: Loaded, kv_cache: str, kernels: bool, tell: Tell, clock: Clock
) -> None:
    """The next turn, the replies and their peak memory, in a cache for the longest of them."""
    p, prompts = result.protocol, _Prompts(loaded.config.vocab_size)
    engine = new_engine(loaded, p.longest, kv_cache)
    tell(
        tr(
            "{name}: next turn, {new} new tokens after {old}",
            name=result.name,
            new=p.new,
            old=f"{p.old:,}",
        )
    )
    turns = [_next_turn(engine, prompts.new(p.old), prompts.new(p.new), clock) for _ in range(_REPEATS + 1)]
    result.next_turn = statistics.median(seconds for seconds, _ in turns[1:])
    result.reused = turns[-1][1]
    _reply([], engine, prompts.new(1), min(WARM_TOKENS, *p.tokens), clock)
    reads = [read_rate(loaded.device)] if loaded.device.type == "cpu" else []
    for tokens in p.tokens:
        tell(tr("{name}: {tokens} new tokens", name=result.name, tokens=f"{tokens:,}"))
        free(loaded.device)
        memory = _peak(loaded.device, partial(_reply, result.decodes, engine, prompts.new(1), tokens, clock))
        if tokens == max(p.tokens):
            result.generate_memory = memory
        if reads:
            reads.append(read_rate(loaded.device))
    result.read = statistics.mean(reads) if reads else None
    for context in p.contexts:
        tell(tr("{name}: a token at a context of {count}", name=result.name, count=f"{context:,}"))
        result.token_seconds[context] = _token_seconds(engine, prompts, context, clock)
    if kernels and loaded.weights is not None:
        from qwenchat.bench import kernels as timing
        from qwenchat.engine.cuda.runner import GraphCache

        tell(tr("{name}: kernels", name=result.name))
        result.kernels_at = timing.context_of(engine)
        assert isinstance(engine.cache, GraphCache)
        result.kernel_times = timing.measure(engine.cache.decoder, result.kernels_at, result.per_position)


def _wait(engine: Engine[Any]) -> None:
    """Waits until the device has nothing left to do; the CPU kernels' runner never has."""
    if hasattr(engine.runner, "device"):
        wait(engine.runner.device)


def _first_token(engine: Engine[Any], ids: list[int], clock: Clock) -> tuple[float, int]:
    """Seconds to the first token after ``ids``, and how many of these the cache held."""
    _wait(engine)
    seconds = 0.0
    started = clock()
    generation = engine.generate(ids, SAMPLING, max_new_tokens=1)
    for _ in generation:
        seconds = clock() - started
    return seconds, generation.stats.reused_tokens


def _next_turn(engine: Engine[Any], old: list[int], new: list[int], clock: Clock) -> tuple[float, int]:
    _first_token(engine, old, clock)
    return _first_token(engine, old + new, clock)


def _token_seconds(engine: Engine[Any], prompts: _Prompts, context: int, clock: Clock) -> float:
    """Seconds of a token after a prompt, on average over the last ones of a context."""
    width = min(WINDOW, context // 8)
    decodes: list[Decode] = []
    _reply(decodes, engine, prompts.new(context - width), width + 1, clock)
    first, *_, last = decodes[0].arrivals
    return (last - first) / width


def _reply(decodes: list[Decode], engine: Engine[Any], ids: list[int], tokens: int, clock: Clock) -> None:
    """Adds a reply of exactly ``tokens`` tokens: no id ends it."""
    arrivals = []
    _wait(engine)
    started = clock()
    for _ in engine.generate(ids, SAMPLING, max_new_tokens=tokens):
        arrivals.append(clock() - started)
    assert len(arrivals) == tokens
    decodes.append(Decode(tuple(arrivals)))


def _peak(device: torch.device, work: Callable[[], object]) -> Memory | None:
    """The peak of the device's memory during some work; on a CPU since :func:`forget_peak`, if it is told."""
    if device.type != "cuda":
        work()
        return resident_peak()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return Memory(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))


class _Prompts:
    """Random token ids, always the same ones, no two prompts alike."""

    def __init__(self, vocab_size: int) -> None:
        self._random = random.Random(0)  # noqa: S311 - no secret
        self._vocab_size = vocab_size

    def new(self, length: int) -> list[int]:
        return self._random.choices(range(self._vocab_size), k=length)
