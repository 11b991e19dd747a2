"""The choice of the next token, on the device: what :mod:`qwenchat.engine.sampling` defines, in one kernel.

The logits are spread over a few blocks of threads that meet at barriers. Nothing is sorted: top-k and top-p
are each a threshold on the probability, found by narrowing it sixteenfold at a time, with the number, or the
mass, of the tokens above sixteen candidates summed over all blocks. Eight rounds settle it to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.cuda.kernels.device import dependent, grid_barrier, start_next, wait_for_previous
from qwenchat.engine.sampling import SamplingParams

_FLOAT32 = torch.finfo(torch.float32)

ROUNDS: tl.constexpr = tl.constexpr(8)
WAYS: tl.constexpr = tl.constexpr(16)
# The bits of 1.0: probabilities relative to the best one are at most that, and in the order of their bits.
TOP: tl.constexpr = tl.constexpr(0x3F800000)


@triton.jit
def _sum_of_blocks(slots, value, BLOCKS: tl.constexpr, counter, arrivals):
    """The sum of a value over all blocks, which each of them gets, the same to the bit."""
    tl.store(slots + tl.program_id(0), value)
    grid_barrier(counter, arrivals)
    return tl.sum(tl.load(slots + tl.arange(0, BLOCKS), cache_modifier=".cg"), axis=0)


@triton.jit
def _threshold(p, weight, least, slots, counter, arrivals, BLOCKS: tl.constexpr):
    """The largest key t such that the weights of all tokens with p >= t come to ``least``.

    Args are this block's tokens: p as integer keys [N], weight float32 [N]. Returns t, the weight of all
    tokens with p > t, and the arrivals that the barrier has counted.
    """
    low = 0
    high = TOP + 1
    above = tl.zeros((), tl.float64)
    way = tl.arange(0, WAYS)
    block = tl.arange(0, BLOCKS)
    for round in range(ROUNDS):
        step = (high - low + WAYS - 1) // WAYS
        if step > 0:
            keys = low + way * step
            mine = tl.sum(tl.where(p[:, None] >= keys[None, :], weight[:, None], 0.0), axis=0).to(tl.float64)
            tl.store(slots + (round * BLOCKS + tl.program_id(0)) * WAYS + way, mine)
            arrivals += BLOCKS
            grid_barrier(counter, arrivals)
            all = tl.load(
                slots + (round * BLOCKS + block[:, None]) * WAYS + way[None, :], cache_modifier=".cg"
            )
            sums = tl.sum(all, axis=0)
            # Enough above the lowest key; how far up is there still enough?
            reached = tl.maximum(tl.sum((sums >= least).to(tl.int32), axis=0), 1) - 1
            next_key = low + (reached + 1) * step
            if reached + 1 < WAYS and next_key <= high:
                above = tl.sum(tl.where(way == reached + 1, sums, 0.0), axis=0)
            low += reached * step
            high = tl.minimum(high, next_key)
    return low, above, arrivals


@triton.jit
def _sample_kernel(
    logits, seen, settings, uniforms, token, position, step, tokens, scratch, counter, V,
    BLOCKS: tl.constexpr, SIZE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Chooses a token from the logits [V], records it, and moves the position on by one.

    settings, float32: temperature, top_k, top_p, min_p, repetition_penalty.
    """
    start_next(PDL)
    block = tl.program_id(0)
    at = block * SIZE + tl.arange(0, SIZE)
    ok = at < V
    temperature = tl.load(settings)
    top_k = tl.load(settings + 1)
    top_p = tl.load(settings + 2)
    min_p = tl.load(settings + 3)
    penalty = tl.load(settings + 4)
    was_seen = tl.load(seen + at, mask=ok, other=0) > 0
    now = tl.load(step)
    wait_for_previous(PDL)

    score = tl.load(logits + at, mask=ok, other=float("-inf"))
    lesser = tl.minimum(score * penalty, score / penalty)
    greater = tl.maximum(score * penalty, score / penalty)
    penalised = tl.where(penalty > 1, lesser, greater)
    score = tl.where(was_seen, penalised, score)
    # The best of all, and the lowest id that has it; a NaN counts as the best, so that it is told.
    rank = tl.where(score == score, score, float("inf"))
    mine = tl.max(rank, axis=0)
    first = tl.min(tl.where((rank == mine) & ok, at, V), axis=0)
    bests = scratch.to(tl.pointer_type(tl.float32))
    ids = scratch.to(tl.pointer_type(tl.int32)) + BLOCKS
    tl.store(bests + block, mine)
    tl.store(ids + block, first)
    arrivals = BLOCKS
    grid_barrier(counter, arrivals)
    b = tl.arange(0, BLOCKS)
    all_bests = tl.load(bests + b, cache_modifier=".cg")
    best = tl.max(all_bests, axis=0)
    chosen = tl.min(tl.where(all_bests == best, tl.load(ids + b, cache_modifier=".cg"), V), axis=0)
    broken = (best == float("inf")) | (best == float("-inf"))
    slots = scratch + BLOCKS
    if (temperature > 0) & (broken == 0):
        share = tl.exp((score - best) / temperature)  # of the best one's probability
        share = tl.where(ok, share, 0.0)
        key = share.to(tl.int32, bitcast=True)
        lowest = 0
        if (top_k > 0) & (top_k < V):
            lowest, _, arrivals = _threshold(
                key, tl.where(ok, 1.0, 0.0), top_k.to(tl.float64), slots, counter, arrivals, BLOCKS
            )
        slots += BLOCKS * WAYS * ROUNDS
        kept = key >= tl.maximum(lowest, 1)
        share = tl.where(kept, share, 0.0)
        key = tl.where(kept, key, 0)
        ties_before = 0
        ties_kept = V
        edge = 0
        if top_p < 1:
            arrivals += BLOCKS
            total = _sum_of_blocks(slots, tl.sum(share.to(tl.float64), axis=0), BLOCKS, counter, arrivals)
            slots += BLOCKS
            least = total * top_p.to(tl.float64)
            edge, above, arrivals = _threshold(key, share, least, slots, counter, arrivals, BLOCKS)
            slots += BLOCKS * WAYS * ROUNDS
            # Of the tokens just at the edge only the first few are needed.
            value = edge.to(tl.float32, bitcast=True).to(tl.float64)
            ties_kept = tl.maximum(tl.ceil(((least - above) / value).to(tl.float32)), 1.0).to(tl.int32)
            tie = (key == edge).to(tl.int32)
            counts = slots.to(tl.pointer_type(tl.int32))
            tl.store(counts + block, tl.sum(tie, axis=0))
            arrivals += BLOCKS
            grid_barrier(counter, arrivals)
            others = tl.load(counts + b, cache_modifier=".cg")
            ties_before = tl.sum(tl.where(b < block, others, 0), axis=0)
            slots += BLOCKS
            rank_of_tie = ties_before + tl.cumsum(tie, axis=0)
            share = tl.where((key > edge) | ((key == edge) & (rank_of_tie <= ties_kept)), share, 0.0)
        share = tl.where(share >= min_p, share, 0.0)
        # One number between 0 and the whole mass, and the token at which the running sum passes it.
        wide = share.to(tl.float64)
        arrivals += BLOCKS
        tl.store(slots + block, tl.sum(wide, axis=0))
        grid_barrier(counter, arrivals)
        masses = tl.load(slots + b, cache_modifier=".cg")
        running = tl.cumsum(masses, axis=0)
        target = tl.load(uniforms + now) * tl.sum(masses, axis=0)
        owner = tl.min(tl.where((running > target) & (masses > 0), b, BLOCKS), axis=0)
        last = tl.max(tl.where(masses > 0, b, 0), axis=0)
        owner = tl.minimum(owner, last)
        before = tl.sum(tl.where(b < owner, masses, 0.0), axis=0)
        chosen = V
        if block == owner:
            passed = (before + tl.cumsum(wide, axis=0) > target) & (share > 0)
            end = tl.max(tl.where(share > 0, at, 0), axis=0)
            chosen = tl.minimum(tl.min(tl.where(passed, at, V), axis=0), end)
    elif block != 0:
        chosen = V
    if chosen < V:
        tl.store(seen + chosen, 1)
        tl.store(token, chosen)
        tl.store(tokens + now, tl.where(broken, -1, chosen))
        tl.store(step, now + 1)
        tl.store(position, tl.load(position) + 1)


PENDING, BROKEN = -2, -1


class State:
    """The sampler's state on the device from one token to the next.

    Attributes:
        logits: float32 [V], to choose from.
        seen: uint8 [V], 1 for the ids that the repetition penalty is for.
        settings: float32 [5]: temperature, top_k, top_p, min_p, repetition_penalty.
        uniforms: float64 [most], one number for each token of a reply.
        token: int64 [1], the token chosen last.
        position: int32 [1], where the next one will stand.
        step: int32 [1], tokens chosen so far in this reply.
        tokens: int32 [most] in the host's memory, written by the device: those tokens; PENDING until one is
            there, BROKEN where the best logit was NaN or infinite.
    """

    def __init__(
        self, vocab_size: int, most: int, device: torch.device, *, blocks: int | None = None
    ) -> None:
        self.blocks = blocks = blocks or _blocks_at_once(device)
        self.logits = torch.zeros(vocab_size, device=device)
        self.seen = torch.zeros(vocab_size, dtype=torch.uint8, device=device)
        self.settings = torch.zeros(5, device=device)
        self.uniforms = torch.zeros(most, dtype=torch.float64, device=device)
        self.token = torch.zeros(1, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int32, device=device)
        self.step = torch.zeros(1, dtype=torch.int32, device=device)
        self.tokens = torch.zeros(most, dtype=torch.int32, pin_memory=device.type == "cuda")
        rounds = 2 * WAYS.value * ROUNDS.value
        self.scratch = torch.zeros((rounds + 8) * blocks, dtype=torch.float64, device=device)
        self.counter = torch.zeros(1, dtype=torch.int32, device=device)

    def begin(self, logits: Tensor, params: SamplingParams, uniforms: Tensor, prompt: Sequence[int]) -> None:
        """Prepares for a reply: the next :func:`sample` chooses its first token from ``logits``.

        Args:
            logits: float32 [V], of the prompt's last token.
            uniforms: float64 on the CPU, one for each token that may be drawn.
            prompt: its ids.
        """
        device = self.logits.device
        self.logits.copy_(logits)
        p = params
        settings = (p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty)
        # Python's floats reach further: 1e-50 would be 0, and greedy, in float32.
        clamped = [min(max(v, _FLOAT32.tiny), _FLOAT32.max) if v > 0 else v for v in settings]
        self.settings.copy_(torch.tensor(clamped, dtype=torch.float32))
        self.uniforms[: len(uniforms)].copy_(uniforms)
        self.seen.zero_()
        self.seen[torch.tensor(prompt, dtype=torch.int64, device=device)] = 1
        self.position.fill_(len(prompt) - 1)
        self.step.zero_()
        self.tokens.fill_(PENDING)


def _blocks_at_once(device: torch.device) -> int:
    """The number of thread blocks that may wait for one another: one or two a multiprocessor.

    Triton's interpreter, on a CPU, runs one to its end before it begins the next.
    """
    if device.type != "cuda":
        return 1
    multiprocessors: int = torch.cuda.get_device_properties(device).multi_processor_count
    return min(128, 1 << (multiprocessors.bit_length() - 1))


def sample(state: State, *, pdl: bool = False) -> None:
    """Chooses the next token from ``state.logits``; ``state.counter`` must be zero."""
    vocab_size = state.logits.shape[0]
    size = triton.next_power_of_2(triton.cdiv(vocab_size, state.blocks))
    _sample_kernel[(state.blocks,)](
        state.logits, state.seen, state.settings, state.uniforms, state.token, state.position, state.step,
        state.tokens, state.scratch, state.counter, vocab_size,
        BLOCKS=state.blocks, SIZE=size, PDL=pdl,
        num_warps=min(max(size // 256, 8), 32), num_stages=1, **dependent(pdl),
    )  # fmt: skip
