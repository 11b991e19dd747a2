"""The benchmark's protocol and its results as values: what is measured of a model, in the model card's way.

The card generates 2,048 and 8,192 new tokens from a context of one, with the sampler on and nothing that
ends the reply, and divides by all seconds, the prefill's too; its peak memory is that of encoding 2,048
tokens and one new one, and of generating 8,192, weights included. Beside that stand the times somebody
waits: to the first token of a long prompt, and of the next turn of a chat. Knows
nothing of tables; :mod:`qwenchat.bench.measure` measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from qwenchat.bench.ceilings import Ceilings, average_bytes, weight_bytes
from qwenchat.engine.cpu.codes_model import CodesModel
from qwenchat.engine.cpu.model import CPUModel
from qwenchat.engine.sampling import SamplingParams
from qwenchat.errors import UsageError

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.cuda.decode import Weights
    from qwenchat.engine.model import Qwen

SAMPLING = SamplingParams(temperature=1.0, top_p=0.8, repetition_penalty=1.1, seed=0)
"""The card's."""
WINDOW = 64
"""Tokens over which the speed at one context is taken."""
WARM_TOKENS = 32
_LEAST_TOKENS = 8
_LEAST_PROMPT, _LEAST_REPLY = 32, 16
"""No slow machine's prompts and replies are shorter."""
_RUNS = 9  # of prompts

Tell = Callable[[str], None]
"""Told in one line what is being done."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """The lengths and counts that are measured.

    Attributes:
        tokens: lengths of the replies to one token, each a run of its own.
        prompt: tokens of the prompt whose first token is waited for, and whose peak memory is taken.
        old, new: tokens of a chat, and of the turn that follows it.
        contexts: at which a token is timed after a prompt, beside the replies.
    """

    tokens: tuple[int, ...]
    prompt: int
    old: int
    new: int
    contexts: tuple[int, ...] = ()

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
        contexts = tuple(context for context in self.contexts if context <= most)
        return Protocol(tokens, prompt, old, min(self.new, most - 1 - old), contexts)

    def in_time(self, seconds: float, *, prompt_token: float, token: float, replies: bool) -> Protocol:
        """The same for a slow machine: prompts, and replies, are halved until they may be done in that time.

        Args:
            prompt_token, token: seconds that one takes.
            replies: whether these may be shorter.
        """
        prompt, old, new, tokens = self.prompt, self.old, self.new, self.tokens
        while prompt > _LEAST_PROMPT and _RUNS * max(prompt, old + new) * prompt_token > seconds:
            prompt, old, new = prompt // 2, old // 2, max(new // 2, 1)
        while replies and min(tokens) > _LEAST_REPLY and (WARM_TOKENS + sum(tokens)) * token > seconds:
            tokens = tuple(n // 2 for n in tokens)
        return Protocol(tokens, prompt, old, new, self.contexts)

    @property
    def longest(self) -> int:
        """The most positions that any of it takes."""
        return max(*self.tokens, *self.contexts, self.old + self.new, self.prompt) + 1


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

    model: Qwen | CPUModel | CodesModel
    weights: Weights | None
    kernels: str

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if isinstance(self.model, CodesModel) else self.model.device

    @property
    def dtype(self) -> torch.dtype:
        if isinstance(self.model, CodesModel):
            dtype: torch.dtype = getattr(torch, self.model.dtype)
            return dtype
        return self.model.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that a token reads."""
        if self.weights is not None:
            return self.weights.bytes_per_token
        if isinstance(self.model, (CPUModel, CodesModel)):
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
    """The measurements of one subject; what was not measured stays None.

    Attributes:
        name: of the subject.
        format: of its weights: "Int8", "Int4", or the dtype.
        published: the published chat that it is or has the shapes of: "qwen-7b-chat"; else None.
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
        token_seconds: that a token took where it saw so many positions.
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
    token_seconds: dict[int, float] = field(default_factory=dict)
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


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel of the decode step.

    Attributes:
        name: the part's; "token" is the whole step.
        launches: how often a token launches it.
        seconds: of one launch.
        nbytes: that one launch reads of weights and cache; None where that is next to nothing.
    """

    name: str
    launches: int
    seconds: float
    nbytes: int | None

    @property
    def rate(self) -> float | None:
        """Bytes/s."""
        return None if self.nbytes is None else self.nbytes / self.seconds


@dataclass(frozen=True, slots=True)
class SamplerTime:
    """Seconds that the choice of a token takes, on logits that are nearly equal, and on ones with a peak."""

    vocab_size: int
    flat: float
    peaked: float
