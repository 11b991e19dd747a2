"""Memory: how much a model takes, and how much is free, on the machine or on a device.

What a model takes is counted without torch, so that a list of models need not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.engine.config import ModelConfig
from qwenchat.errors import InsufficientMemoryError, Phrase
from qwenchat.humanize import in_gib

if TYPE_CHECKING:
    import torch

PREFILL_CHUNK = {"cpu": 256, "cuda": 2048}
"""Tokens prefilled at a time; so often is the progress told. A cancel is heard between two layers."""
AHEAD = 256 * 2**20
"""Bytes that are on their way to a device with memory of its own before somebody has asked for them."""
_SCALE_BYTES = 4  # of what a row of an 8-bit KV cache is multiplied with
# What a CUDA device gives up besides tensors, once work begins: code that is loaded when it is first used,
# cuBLAS's workspace, the captured graph.
CUDA_RUNTIME = 384 * 2**20
_CONTEXT_STEP = 1024
_LEAST_CONTEXT = 256
"""A shorter context is not proposed: nobody could chat in it."""


@dataclass(frozen=True, slots=True)
class Need:
    """The memory that a model takes, in bytes.

    Attributes:
        weights: from the time that they are loaded.
        reading: besides, while they are loaded.
        working: besides, from then on, without the KV cache.
        per_token: of the KV cache.
        context: its positions.
    """

    weights: int
    reading: int
    working: int
    per_token: int
    context: int

    @property
    def cache(self) -> int:
        """The KV cache."""
        return self.per_token * self.context

    @property
    def total(self) -> int:
        """The most at any time."""
        return self.weights + max(self.reading, self.cache + self.working)


def need(
    config: ModelConfig,
    *,
    weights: int,
    reading: int,
    cuda: bool,
    itemsize: int,
    context: int,
    packed: bool,
    int8_cache: bool = False,
) -> Need:
    """The memory that a model takes.

    Args:
        weights, reading: as of :class:`Need`; the loader knows.
        cuda: whether the model goes to a GPU.
        itemsize: bytes of a value of the dtype that it computes in.
        context: positions of the KV cache.
        packed: whether quantised layers stay in their codes.
        int8_cache: whether the KV cache is held in 8 bits.
    """
    per_token = cache_bytes_per_token(config, itemsize, int8=int8_cache)
    working = 0
    if cuda:
        working = CUDA_RUNTIME + _working(config, itemsize, context, packed)
        if int8_cache:  # a prefill makes one layer's keys and values floats again
            working += 2 * context * config.key_value_size * itemsize
    return Need(weights, reading, working, per_token, context)


def cache_bytes_per_token(config: ModelConfig, itemsize: int, *, int8: bool = False) -> int:
    """The bytes of one position of the KV cache.

    Args:
        itemsize: bytes of a value of the dtype that the model computes in.
        int8: whether the cache is held in 8 bits, with a scale for each row.
    """
    row = config.head_dim + _SCALE_BYTES if int8 else config.head_dim * itemsize
    return 2 * config.num_layers * config.num_key_value_heads * row


def _working(config: ModelConfig, size: int, context: int, packed: bool) -> int:
    """Bytes of the tensors that come and go while a prompt is prefilled and a reply decoded."""
    hidden, mlp, queries = config.hidden_size, config.mlp_size, config.query_size
    tokens = min(context, PREFILL_CHUNK["cuda"])
    # Of a token: in the MLP both halves as they come, in the order of the model, and what becomes of them;
    # in attention q, k and v, q twice more, and q and k four times in float32 while they are rotated.
    rotated = 16 * (queries + config.key_value_size)
    attention = size * (2 * hidden + config.qkv_size + 2 * queries) + rotated
    activations = max(size * (6 * mlp + 3 * hidden), attention)
    largest = max(2 * mlp * hidden, config.qkv_size * hidden)
    matrix = largest * size if packed and config.quant else 0  # dequantised
    rotary = 18 * config.head_dim * context
    logits = 64 * config.vocab_size  # and what the sampler makes of them
    return tokens * activations + matrix + rotary + logits


def shortened(needed: Need, device: torch.device | str) -> Need:
    """The same with as long a context as there is memory for, in steps of 1,024.

    It stays as it is where it fits, or where none would.

    The cache grows with the chat, so a context of 128k need not stop whoever has memory for 16k.
    """
    room = int((available_bytes(device) * 0.9 - needed.weights - needed.working) / needed.per_token)
    if not _CONTEXT_STEP <= room < needed.context:
        return needed
    return replace(needed, context=room - room % _CONTEXT_STEP)


def check_memory(needed: Need, *, device: torch.device | str, dtype: torch.dtype | str) -> int:
    """Compares what a model takes with what is free, and returns that.

    Raises:
        InsufficientMemoryError: it is not enough.
    """
    free = available_bytes(device)
    if needed.total <= free:
        return free
    room = (free - needed.weights - needed.working) // needed.per_token
    if room >= _LEAST_CONTEXT and needed.weights + needed.reading <= free:
        hint = Phrase("--context {tokens} would fit", tokens=room)
        in_chat = Phrase("it fits if qwenchat is started with --context {tokens}", tokens=room)
    else:
        hint = in_chat = Phrase("a smaller or more strongly quantised model may fit")
    raise InsufficientMemoryError(
        Phrase(
            "not enough memory on {device}: needs {needed} GiB in {dtype} (weights {weights}, "
            "{tokens} tokens of context {cache}, work {work}), {free} GiB free",
            needed=in_gib(needed.total),
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            weights=in_gib(needed.weights),
            tokens=needed.context,
            cache=in_gib(needed.cache),
            work=in_gib(needed.total - needed.weights - needed.cache),
            free=in_gib(free),
        ),
        hint,
        in_chat=in_chat,
    )


def ran_out_loading() -> InsufficientMemoryError:
    """The error for a model that did not fit, although it seemed to."""
    return InsufficientMemoryError(
        "memory ran out while the model was loaded", "a smaller or more strongly quantised model may fit"
    )


def available_bytes(device: torch.device | str) -> int:
    """Bytes that can be allocated on ``device`` now, as far as the system tells."""
    if str(device).startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds of memory that was freed serves again.
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return min(int(psutil.virtual_memory().available), _cgroup_headroom())


def _cgroup_headroom() -> int:
    """The bytes that a container's memory limit leaves; beyond any machine where there is none."""
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
        except (OSError, ValueError):  # no such cgroup version, or the word "max"
            continue
        # Version 1 writes a number near 2**63 for "no limit"; psutil's figure does not see a limit.
        return max(limit - usage + _reclaimable(Path(limit_file).parent), 0)
    return 2**63


def _reclaimable(cgroup: Path) -> int:
    """Bytes of page cache that count as usage but are given up when memory gets short."""
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
        figures = dict(line.split() for line in lines)
        return int(figures.get("total_inactive_file") or figures["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0
