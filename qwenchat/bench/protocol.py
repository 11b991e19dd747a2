"""What is measured of a model, in the model card's way, and how.

The card generates 2,048 and 8,192 new tokens from a context of one, with the sampler on and nothing that
ends the reply, and divides by all seconds, the prefill's too; its peak memory is that of encoding 2,048
tokens and one new one, and of generating 8,192, weights included. Beside that stand the times somebody
waits: to the first token of a long prompt, and of the next turn of a chat. Knows nothing of tables.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from qwenchat.bench.ceilings import Ceilings, average_bytes, prefill_operations, read_rate, weight_bytes
from qwenchat.bench.random_weights import published_size
from qwenchat.bench.timing import Clock, wait
from qwenchat.engine.cpu.model import CPUModel
from qwenchat.engine.generate import Engine
from qwenchat.engine.sampling import SamplingParams
from qwenchat.errors import UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.bench.kernels import KernelTime, SamplerTime
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.cuda.decode import Weights
    from qwenchat.engine.model import Qwen

SAMPLING = SamplingParams(temperature=1.0, top_p=0.8, repetition_penalty=1.1, seed=0)
"""The card's."""
WINDOW = 64
"""Tokens over which the speed at one context is taken."""
WARM_TOKENS = 32
_LEAST_TOKENS = 8
_REPEATS = 3

Tell = Callable[[str], None]
"""Told in one line what is being done."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How much is measured.

    Attributes:
        tokens: lengths of the replies to one token, each a run of its own.
        prompt: tokens of the prompt whose first token is waited for, and whose peak memory is taken.
        old, new: tokens of a chat, and of the turn that follows it.
    """

    tokens: tuple[int, ...]
    prompt: int
    old: int
    new: int

    def within(self, most: int) -> Protocol:
        """The same for a model of at most ``most`` positions.

        Raises:
            UsageError: a reply is too short to time.
        """
        tokens = tuple(dict.fromkeys(min(n, most) for n in self.tokens))
        if min(tokens) < _LEAST_TOKENS:
            raise UsageError("a reply of fewer than {least} tokens cannot be timed", least=_LEAST_TOKENS)
        prompt = min(self.prompt, most - 1)
        old = min(self.old, most - 1 - min(self.new, most // 8))
        return Protocol(tokens, prompt, old, min(self.new, most - 1 - old))


CARD = Protocol((2048, 8192), 2048, 2000, 200)
"""The model card's."""
SMALL = Protocol((128,), 512, 500, 50)
"""For a CPU."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to be measured.

    Attributes:
        model: packed for its device, as loading leaves it.
        weights: as the CUDA kernels read them, or None where these are not used.
        kernels: what multiplies, for people.
    """

    model: Qwen | CPUModel
    weights: Weights | None
    kernels: str

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that a token reads."""
        if self.weights is not None:
            return self.weights.bytes_per_token
        if isinstance(self.model, CPUModel):
            return self.model.bytes_per_token
        return weight_bytes(self.config, self.dtype.itemsize)


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to be measured, not loaded yet.

    Attributes:
        name: for people.
        load: makes it.
        kv_cache: what the cache keeps: "auto" for the model's dtype, or "int8".
    """

    name: str
    load: Callable[[], Loaded]
    kv_cache: str = "auto"


@dataclass(frozen=True, slots=True)
class Decode:
    """One reply: when each of its tokens came, in seconds after it was asked for.

    The token with index i has seen i + 1 positions where the prompt was one token.
    """

    arrivals: tuple[float, ...]

    @property
    def tokens(self) -> int:
        return len(self.arrivals)

    @property
    def speed(self) -> float:
        """Tokens/s, the prefill's time included."""
        return self.tokens / self.arrivals[-1]

    def speed_at(self, context: int) -> float:
        """Tokens/s around where a token sees ``context`` positions."""
        width = max(1, min(WINDOW, self.tokens // 8))
        first = min(max(context - 1 - width // 2, 0), self.tokens - 1 - width)
        return width / (self.arrivals[first + width] - self.arrivals[first])

    def curve(self, points: int = 64) -> list[tuple[float, float]]:
        """Contexts, and the tokens/s of a stretch around each, over the whole reply."""
        width = max(1, (self.tokens - 1) // points)
        times = self.arrivals
        return [
            (i + (width + 3) / 2, width / (times[i + width] - times[i]))
            for i in range(0, self.tokens - width, width)
        ]

    def contexts(self) -> tuple[int, ...]:
        """The contexts at which its speed is told."""
        marks = [c for c in (1024, 2048, 4096, 8192) if c <= self.tokens]
        return (1, *(marks or (self.tokens // 2, self.tokens)))


@dataclass(frozen=True, slots=True)
class Memory:
    """The most that was in use at once, in bytes: by tensors, and kept by the allocator for them.

    On a CPU both are what the process had resident, pages of mapped files included.
    """

    allocated: int
    reserved: int


@dataclass(slots=True)
class Result:
    """What was measured of one subject; what was not stays None.

    Attributes:
        name: of the subject.
        format: of its weights: "Int8", "Int4", or the dtype.
        published: the size of the published chat that it is or has the shapes of: "7b"; else None.
        device, dtype, kernels: where, in what, and with what it computed.
        protocol: what was asked for, within what the model can do.
        weights: bytes of weights that a token reads.
        per_position: bytes of the KV cache that a token reads of each position.
        read: bytes/s that the memory gave right before and after the replies, where that changes from moment
            to moment: on a CPU.
        load_seconds: to make the model ready in this process, its kernels compiled or not.
        decodes: the replies.
        encode_memory, generate_memory: peaks of the prompt with one new token, and of the longest reply; on a
            CPU of the process since it began to load.
        first_token: seconds to the first token of a prompt that shares nothing with the cache.
        next_turn: the same for new tokens after old ones, of which ``reused`` were in the cache.
        prefill_operations: of that prompt.
        kernels_at: the context at which the kernels were timed.
        kernel_times: what each took, in their order.
        sampler: what the sampler alone took.
        start: seconds from the start of a process to its first token, the first time and the second.
    """

    name: str
    format: str
    published: str | None
    device: str
    dtype: str
    kernels: str
    protocol: Protocol
    weights: int
    per_position: int
    read: float | None = None
    load_seconds: float | None = None
    decodes: list[Decode] = field(default_factory=list)
    encode_memory: Memory | None = None
    generate_memory: Memory | None = None
    first_token: float | None = None
    next_turn: float | None = None
    reused: int | None = None
    prefill_operations: int | None = None
    kernels_at: int | None = None
    kernel_times: list[KernelTime] = field(default_factory=list)
    sampler: SamplerTime | None = None
    start: tuple[float, float] | None = None

    def ceiling(self, decode: Decode, ceilings: Ceilings) -> float:
        """Tokens/s that a reply of that length cannot pass."""
        return ceilings.decode(self.weights, self.per_position, decode.tokens)

    def read_rate(self, decode: Decode) -> float:
        """Bytes/s of weights and cache that a reply read."""
        return decode.speed * average_bytes(self.weights, self.per_position, decode.tokens)


def measure(
    subject: Subject,
    protocol: Protocol,
    *,
    kernels: bool = False,
    sampler: bool = False,
    tell: Tell,
    clock: Clock = perf_counter,
) -> Result:
    """Loads a subject, measures it, and frees it.

    Args:
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
    protocol = protocol.within(config.max_position_embeddings)
    result = Result(
        name=subject.name,
        format=f"Int{config.quant.bits}" if config.quant else dtype,
        published=published_size(config),
        device=str(loaded.device),
        dtype=dtype,
        kernels=loaded.kernels,
        protocol=protocol,
        weights=loaded.bytes_per_token,
        per_position=kv_bytes_per_position(loaded, subject.kv_cache),
        load_seconds=clock() - started,
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


def new_engine(loaded: Loaded, context: int, kv_cache: str) -> Engine:
    """An engine on the model, with a cache for ``context`` tokens."""
    return Engine(loaded.model, context=context, weights=loaded.weights, int8_cache=kv_cache == "int8")


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
    engine = new_engine(loaded, max(*p.tokens, p.old + p.new, p.prompt) + 1, kv_cache)
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
    if kernels and engine.decoder is not None:
        from qwenchat.bench import kernels as timing

        tell(tr("{name}: kernels", name=result.name))
        result.kernels_at = timing.context_of(engine)
        result.kernel_times = timing.measure(engine.decoder, result.kernels_at, result.per_position)


def _first_token(engine: Engine, ids: list[int], clock: Clock) -> tuple[float, int]:
    """Seconds to the first token after ``ids``, and how many of these the cache held."""
    wait(engine.device)
    seconds = 0.0
    started = clock()
    generation = engine.generate(ids, SAMPLING, max_new_tokens=1)
    for _ in generation:
        seconds = clock() - started
    return seconds, generation.stats.reused_tokens


def _next_turn(engine: Engine, old: list[int], new: list[int], clock: Clock) -> tuple[float, int]:
    _first_token(engine, old, clock)
    return _first_token(engine, old + new, clock)


def _reply(decodes: list[Decode], engine: Engine, ids: list[int], tokens: int, clock: Clock) -> None:
    """Adds a reply of exactly ``tokens`` tokens: no id ends it."""
    arrivals = []
    wait(engine.device)
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
