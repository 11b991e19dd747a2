"""Times of each kernel of the decode step, and of the sampler alone.

Each part of the step is launched by itself in a CUDA graph, replayed in a row and timed with events. What
starts a token (the embedding, which also readies the sampler) is launched before every part, as it is in
decoding, and its own time taken off again.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qwenchat.bench.protocol import SAMPLING, KernelTime, SamplerTime
from qwenchat.bench.timing import Clock, best_seconds, graph_seconds

if TYPE_CHECKING:
    from qwenchat.engine.cuda.decode import GraphDecoder
    from qwenchat.engine.generate import Engine
    from qwenchat.engine.sampling import SamplingParams

CONTEXT = 1024
_REPLAYS = 8
_REPEATS = 3
_COPIES = 8  # of what is launched once a token: a graph of one kernel would time the graph's start


def context_of(engine: Engine[Any]) -> int:
    """The context at which the kernels are timed in this engine's cache."""
    return min(CONTEXT, engine.context // 2)


def measure(decoder: GraphDecoder, context: int, per_position: int) -> list[KernelTime]:
    """Times every part of the decode step where a token sees ``context`` positions, and the whole of it.

    What the cache and the sampler hold is lost.

    Args:
        decoder: with room for twice the context.
        per_position: bytes of the cache that a token reads of each position.
    """
    step, state, weights = decoder.step, decoder.state, decoder.step.weights
    device = state.logits.device
    logits = flat_logits(state.logits.shape[0], device)
    uniforms = torch.rand(context, dtype=torch.float64)

    def reset() -> None:
        # The next token stands at the last position of that context, and sees itself too.
        state.begin(logits, SAMPLING, uniforms, range(context))
        state.counter.zero_()

    def seconds(parts: tuple[str, ...], copies: int) -> float:
        def launch() -> None:
            for _ in range(copies):
                step.launch(parts)

        # The sampler moves on by a position each time: there must be one left.
        replays = min(_REPLAYS, max(context // (copies + 1), 1))
        graph = graph_seconds(launch, device, replays=replays, repeats=_REPEATS, reset=reset)
        return graph / copies

    cache, head = per_position * context, weights.lm_head.nbytes
    once = {"embed": None, "head": head, "sample": None}
    layers = len(weights.layers)
    of_layer = {}
    for layer in weights.layers[:1]:
        of_layer = {
            "qkv": layer.qkv.nbytes,
            "attend": cache // layers,
            "proj": layer.output.nbytes,
            "swiglu": layer.up_gate.nbytes,
            "down": layer.down.nbytes,
        }
    start = seconds(("embed",), _COPIES)
    times = []
    for part in step.parts:
        if part == "embed":
            times.append(KernelTime(part, 1, start, None))
        elif part in once:
            times.append(KernelTime(part, 1, seconds(("embed", part), _COPIES) - start, once[part]))
        elif part == "layers":
            times.append(KernelTime(part, 1, seconds((part,), 1), weights.bytes_per_token - head + cache))
        else:
            whole = seconds(("embed", part), 1) - start
            times.append(KernelTime(part, layers, whole / layers, of_layer.get(part)))
    times.append(KernelTime("token", 1, seconds(tuple(step.parts), 1), weights.bytes_per_token + cache))
    return times


def measure_sampler(
    vocab_size: int,
    params: SamplingParams,
    device: torch.device,
    *,
    on_device: bool,
    clock: Clock = perf_counter,
) -> SamplerTime:
    """Times the sampler alone.

    Args:
        on_device: the one in the decode step; else the one that is plain torch.
    """
    time = _graph_sampler if on_device else _plain_sampler
    flat, peaked = flat_logits(vocab_size, device), peaked_logits(vocab_size, device)
    return SamplerTime(vocab_size, time(flat, params, clock), time(peaked, params, clock))


def flat_logits(vocab_size: int, device: torch.device) -> Tensor:
    """float32 [V] as random weights make them: normal, with a deviation of one."""
    return torch.randn(vocab_size, generator=torch.Generator().manual_seed(0)).to(device)


def peaked_logits(vocab_size: int, device: torch.device) -> Tensor:
    """float32 [V] as a trained model makes them: Zipf's law, the likeliest at two in five, in no order."""
    ranks = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(0)) + 1
    return (-1.5 * ranks.float().log()).to(device)


def _plain_sampler(logits: Tensor, params: SamplingParams, clock: Clock) -> float:
    from qwenchat.engine.torch_sampling import Sampler

    sampler = Sampler(params, len(logits), [0], device=logits.device)
    with torch.inference_mode():
        return best_seconds(lambda: sampler(logits), logits.device, repeats=20, clock=clock)


def _graph_sampler(logits: Tensor, params: SamplingParams, clock: Clock) -> float:
    from qwenchat.engine.cuda.kernels import sample

    copies, device = 8, logits.device
    most = copies * (_REPLAYS + 1)
    with torch.inference_mode():
        state = sample.State(len(logits), most, device)
        uniforms = torch.rand(most, dtype=torch.float64)

        def reset() -> None:
            state.begin(logits, params, uniforms, [0])
            state.counter.zero_()

        def zero() -> None:
            for _ in range(copies):
                state.counter.zero_()

        def choose() -> None:
            for _ in range(copies):
                state.counter.zero_()
                sample.sample(state)

        both, alone = (
            graph_seconds(launch, device, replays=_REPLAYS, repeats=_REPEATS, reset=reset)
            for launch in (choose, zero)
        )
    return (both - alone) / copies
