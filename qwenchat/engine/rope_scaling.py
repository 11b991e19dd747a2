"""How a model stretches its rotary embedding beyond the contexts of its training, as ``config.json`` says.

What is computed of it is in ``positions``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwenchat.engine.fields import MAX_CONTEXT, ROPE_BASE, Fields, numbers
from qwenchat.errors import CheckpointError, Names, NotComputedError, quoted, shorten


@dataclass(frozen=True, slots=True)
class Linear:
    """Every frequency is divided by a factor."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3:
    """Low frequencies are divided by a factor, high ones are left, and those between are mixed.

    Attributes:
        factor: what low frequencies are divided by.
        low, high: turns within ``original`` positions: fewer is low, more is high.
        original: the positions of the first training.
    """

    factor: float
    low: float
    high: float
    original: int


@dataclass(frozen=True, slots=True)
class Yarn:
    """As :class:`Llama3`, mixed by the number of the frequency, and attention is sharpened.

    Attributes:
        factor: what low frequencies are divided by.
        attention: what cosines and sines are multiplied by.
        fast, slow: turns within ``original`` positions where frequencies begin to be divided, and where they
            are wholly.
        original: the positions of the first training.
        truncate: whether the numbers of the frequencies where that is are whole.
    """

    factor: float
    attention: float
    fast: float
    slow: float
    original: int
    truncate: bool


@dataclass(frozen=True, slots=True)
class Factors:
    """Every frequency is divided by a factor of its own, as a GGUF file has them.

    Attributes:
        values: [head_dim / 2].
    """

    values: tuple[float, ...]


RopeScaling = Linear | Llama3 | Yarn | Factors

_ALL = ("rope_type", "type", "partial_rotary_factor")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow",
        "original_max_position_embeddings", "truncate",
    ),
}  # fmt: skip
_FACTOR = numbers(1, 1e6)
_TURNS = numbers(1e-3, 1e6)
_STRENGTH = numbers(1e-3, 1e3)


def read_rope(
    fields: Fields, base: float, positions: int, kinds: tuple[str, ...]
) -> tuple[float, RopeScaling | None]:
    """The rotary embedding's base and its scaling, as ``rope_scaling`` says or, newer, ``rope_parameters``.

    Args:
        fields: of ``config.json``.
        base: what it is where ``rope_parameters`` does not say.
        positions: the positions of the first training, where nothing says.
        kinds: those of scaling that the model type has.

    Raises:
        CheckpointError: a kind, a key or a value that is not computed with.
    """
    older, newer = fields.raw("rope_scaling"), fields.raw("rope_parameters")
    scaling = None
    if newer is not None:
        section = _section(fields, "rope_parameters", newer, kinds, ("rope_theta",))
        base = section.number("rope_theta", kind=ROPE_BASE, default=base)
        scaling = _read_scaling(section, positions)
    if older is not None:
        found = _read_scaling(_section(fields, "rope_scaling", older, kinds), positions)
        if newer is not None and found != scaling:
            raise CheckpointError("{path}: rope_scaling and rope_parameters differ", path=fields.path)
        scaling = found
    return base, scaling


def _section(
    fields: Fields, name: str, value: Any, kinds: tuple[str, ...], more: tuple[str, ...] = ()
) -> Fields:
    """The keys of a section that has none but what is computed with."""
    if not isinstance(value, dict):
        raise CheckpointError("{path}: {name} is not an object", path=fields.path, name=name)
    kind = _kind(value)
    if kind not in ("default", *kinds):
        raise NotComputedError(
            "{path}: {name} is of the kind {kind}; our own engine computes {known}",
            "the model would answer otherwise than it was trained to",
            path=fields.path,
            name=name,
            kind=quoted(kind),
            known=Names(("default", *kinds)),
        )
    partial = value.get("partial_rotary_factor")
    unknown = value.keys() - {*_ALL, *_KEYS[kind], *more}
    unread = {key: value[key] for key in sorted(unknown) if value[key] is not None}
    if partial not in (None, 1):
        unread["partial_rotary_factor"] = partial
    for key, unfit in unread.items():
        raise NotComputedError(
            "{path}: {name} is {value}, which this engine does not compute with",
            "the model would answer otherwise than it was trained to",
            path=fields.path,
            name=f"{name}.{shorten(key)}",
            value=quoted(unfit),
        )
    return Fields(fields.path, value)


def _kind(section: Mapping[str, Any]) -> Any:
    """Its kind, by either name; of two that differ the one that is no kind."""
    said = [section[key] for key in ("rope_type", "type") if section.get(key) is not None] or ["default"]
    return said[0] if said[0] == said[-1] and isinstance(said[0], str) else said


def _read_scaling(section: Fields, positions: int) -> RopeScaling | None:
    kind = _kind({key: section.raw(key) for key in ("rope_type", "type")})
    if kind == "default":
        return None
    factor = section.number("factor", kind=_FACTOR)
    if kind == "linear":
        return Linear(factor)
    original = section.integer(
        "original_max_position_embeddings",
        least=2,
        most=MAX_CONTEXT,
        default=None if kind == "llama3" else positions,
    )
    if kind == "llama3":
        low = section.number("low_freq_factor", kind=_TURNS)
        high = section.number("high_freq_factor", kind=_TURNS)
        _refuse_crossed(section, "low_freq_factor", low, "high_freq_factor", high)
        return Llama3(factor, low, high, original)
    slow = section.number("beta_slow", kind=_TURNS, default=1.0)
    fast = section.number("beta_fast", kind=_TURNS, default=32.0)
    _refuse_crossed(section, "beta_slow", slow, "beta_fast", fast)
    truncate = section.boolean("truncate", default=True)
    return Yarn(factor, _read_attention(section, factor), fast, slow, original, truncate)


def _refuse_crossed(section: Fields, low: str, least: float, high: str, most: float) -> None:
    if least >= most:
        raise CheckpointError(
            "{path}: {low} is {least} and {high} is {most}, expected less and more",
            path=section.path,
            low=low,
            least=quoted(least),
            high=high,
            most=quoted(most),
        )


def _read_attention(section: Fields, factor: float) -> float:
    """What YaRN multiplies cosines and sines by: as it is said, else by the factor's logarithm."""
    given = section.of(_STRENGTH, "attention_factor", default=1.0)
    scales = [section.of(_STRENGTH, key, default=1.0) for key in ("mscale", "mscale_all_dim")]
    if section.raw("attention_factor") is not None:
        return float(given)
    if section.raw("mscale") is None or section.raw("mscale_all_dim") is None:
        scales = [1.0, 0.0]
    over, under = (1 + 0.1 * scale * math.log(factor) for scale in scales)
    return float(over / under)
