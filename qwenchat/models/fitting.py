"""Which of the published chats fit a machine, and which of those is the best there.

Owns what "best" means. Measures nothing: how much memory a device has, whoever asks knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qwenchat.engine.sizes import float_bytes
from qwenchat.errors import Phrase
from qwenchat.humanize import size_text
from qwenchat.models.published import AWQ, FLOAT, GGUF, KNOWN, Published

CPU_TOKEN_BYTES = 5 * 10**9
"""Bytes of weights that a token may read on a CPU: a quarter of a second where memory reads 20 GB/s."""
_NEXT_STEP = "qwen2.5-0.5b-instruct"  # the smallest chat that answers far better than the built-in model
_GENERAL = ("qwen2.5-", "qwen3-")
# Of two formats with as many bits the one that is read in fewer steps.
_ORDER = ("gguf", "awq", "int4", "int8", "bf16")


def best(
    models: Iterable[Published], memory: Callable[[Published], int], room: int, *, cuda: bool
) -> Published | None:
    """The best chat for a device: the largest that fits, and of its formats the one with the most bits.

    Those for code are left out, and the first generation, which later ones of its sizes surpass. On a CPU a
    chat must also answer about as fast as one reads.

    Args:
        models: those to choose from.
        memory: the bytes that one takes on the device.
        room: the bytes that it has.
        cuda: whether it is a GPU.
    """

    def suits(model: Published) -> bool:
        general = model.chat.startswith(_GENERAL) and "coder" not in model.chat
        return general and (cuda or model.token_bytes <= CPU_TOKEN_BYTES) and memory(model) <= room

    return max(filter(suits, models), key=_rank, default=None)


def next_step(room: int) -> Phrase | None:
    """What a first run with the built-in model offers, in a line; None where that would not fit.

    Args:
        room: the bytes of memory that there are for a model.
    """
    (model,) = (known for known in KNOWN if known.short == _NEXT_STEP)
    if model.memory_bytes(cuda=False, itemsize=4) > room:
        return None
    return Phrase(
        "qwenchat models pull {name}, {size}, downloads a model that answers far better: qwenchat -m {name}",
        name=model.short,
        size=size_text(model.disk_bytes),
    )


def _rank(model: Published) -> tuple[float, bool, int, int]:
    size = float(f"{float_bytes(model.config, 1):.2g}")  # of two about as large the newer one
    bits = {FLOAT: 16, "int8": 8, AWQ: 4, "int4": 4, GGUF: 8 if model.kind == "Q8_0" else 4}[model.format]
    return size, model.config.qk_norm, bits, _ORDER.index(model.format)
