"""How a reply's tokens are to be chosen, as values: the sampling parameters, their ranges, and the seed.

Knows no library: whoever chooses tokens, on whatever device, is told by these. The definition of what they
mean is in :mod:`qwenchat.engine.torch_sampling`.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from qwenchat.errors import Phrase, QwenchatError, UsageError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters. The defaults draw from the model's own distribution.

    Args:
        temperature: divides the logits; finite and >= 0. 0 is greedy.
        top_k: keep the k best tokens, and all that tie with the last of them; >= 0, 0 turns it off.
        top_p: keep the fewest best tokens whose probabilities add up to it; > 0 and <= 1, 1 turns it off.
        min_p: drop tokens less probable than this share of the best one's probability; >= 0 and <= 1.
        repetition_penalty: divides the positive and multiplies the negative logits of every id that the
            prompt or the reply has (Keskar et al. 2019, arXiv:1909.05858); finite and > 0, 1 turns it off.
        seed: >= 0 and < 2**63, None for a fresh one. torch's generator on the CPU reads its low 32 bits.

    Raises:
        UsageError: a value is outside its range, NaN, or not a number (a bool is none).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        most = sys.float_info.max
        # NaN compares as false with everything, so it is outside every range.
        self._require("temperature", (int, float), lambda v: 0 <= v <= most, Phrase("a finite number >= 0"))
        self._require("top_k", (int,), lambda v: v >= 0, Phrase("a whole number >= 0"))
        self._require("top_p", (int, float), lambda v: 0 < v <= 1, Phrase("a number > 0 and <= 1"))
        self._require("min_p", (int, float), lambda v: 0 <= v <= 1, Phrase("a number >= 0 and <= 1"))
        self._require(
            "repetition_penalty", (int, float), lambda v: 0 < v <= most, Phrase("a finite number > 0")
        )
        if self.seed is not None:
            self._require("seed", (int,), lambda v: 0 <= v < 2**63, Phrase("a whole number >= 0 and < 2**63"))

    def seeded(self) -> SamplingParams:
        """These with a seed: their own, or a fresh one."""
        # 32 bits are what the generator can tell apart, and short enough to be typed again.
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))

    def _require(
        self, name: str, types: tuple[type, ...], in_range: Callable[[Any], bool], allowed: str
    ) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, types) or not in_range(value):
            raise UsageError(
                "{name} is {value!r}, but must be {allowed}", name=name, value=value, allowed=allowed
            )


def not_finite(what: str = Phrase("NaN or infinite logits")) -> QwenchatError:
    """The error for logits that cannot be chosen from."""
    return QwenchatError(
        "the model produced {what}",
        "its checkpoint may be damaged, or its numbers too large for the dtype",
        what=what,
    )
