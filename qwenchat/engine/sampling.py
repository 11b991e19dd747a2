"""How a reply's tokens are to be chosen, as values: the sampling parameters, their ranges, and the seed.

Knows no library: whoever chooses tokens, on whatever device, is told by these. The definition of what they
mean is in :mod:`qwenchat.engine.torch_sampling`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from qwenchat.errors import Phrase, QwenchatError, UsageError


class Range(NamedTuple):
    """The range of a value.

    Attributes:
        allowed: it in words, to be read after "expected".
        least, most: its ends.
        above: whether it has all but the lower end.
        whole: whether it is one of whole numbers.
    """

    allowed: str
    least: int
    most: int
    above: bool = False
    whole: bool = False

    def has(self, value: object) -> bool:
        """True of a number in the range; NaN is in none, and a bool is no number."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return (self.least < value if self.above else self.least <= value) and value <= self.most


RANGES = {
    "temperature": Range("a number from 0 to 2", 0, 2),
    "top_k": Range("a whole number from 0 to 2147483647", 0, 2**31 - 1, whole=True),
    "top_p": Range("a number above 0, up to 1", 0, 1, above=True),
    "min_p": Range("a number from 0 to 1", 0, 1),
    "repetition_penalty": Range("a number above 0, up to 2", 0, 2, above=True),
    "seed": Range("a whole number from 0 to 9223372036854775807", 0, 2**63 - 1, whole=True),
}
"""Of the sampling values, wherever they come from: a flag, a setting, a checkpoint, Python.

The temperature ends where the OpenAI protocol ends it, the repetition penalty where OpenRouter's does.
"""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters. The defaults draw from the model's own distribution.

    Args:
        temperature: divides the logits. 0 is greedy.
        top_k: keep the k best tokens, and all that tie with the last of them; 0 turns it off.
        top_p: keep the fewest best tokens whose probabilities add up to it; 1 turns it off.
        min_p: drop tokens less probable than this share of the best one's probability.
        repetition_penalty: divides the positive and multiplies the negative logits of every id that the
            prompt or the reply has (Keskar et al. 2019, arXiv:1909.05858); 1 turns it off.
        seed: None for a fresh one. torch's generator on the CPU reads its low 32 bits.

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
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if not allowed.has(value) and (name, value) != ("seed", None):
                raise UsageError(
                    "{name} is {value!r}, expected {allowed}",
                    name=name,
                    value=value,
                    allowed=Phrase(allowed.allowed),
                )

    def seeded(self) -> SamplingParams:
        """These with a seed: their own, or a fresh one."""
        import secrets  # here: the settings are read for commands that draw nothing

        # 32 bits are what the generator can tell apart, and short enough to be typed again.
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))


class Constraint(Protocol):
    """What a reply is held to, in stretches: from where it says so, until it is met."""

    @property
    def holds(self) -> bool:
        """Whether the next token is held to anything; if not, it is chosen as without it."""

    @property
    def is_over(self) -> bool:
        """Whether the reply ends here."""

    def masked(self, logits: Any) -> Any:
        """A row of logits [V] in which only what may come next is possible, while it holds."""

    def takes(self, token_id: int) -> None:
        """Notes a token that was chosen."""

    def forced(self) -> list[int]:
        """The tokens that come next whatever the logits say, noted as if they had been chosen."""


class TokenChooser(ABC):
    """Chooses the tokens of one reply, each by the parameters, the tokens before it and a number of its own.

    So what it chooses does not depend on how many rows of logits come at a time.
    """

    @abstractmethod
    def __call__(self, logits: Any) -> int:
        """The next token id, for a row of logits [V].

        Raises:
            QwenchatError: the best logit is NaN or infinite, so there is nothing to choose from.
        """

    def accept(self, rows: Any, guessed: Sequence[int]) -> list[int]:
        """The next token ids, for the logits [T, V] after a token and T - 1 guessed ones.

        As many as were guessed right, and one more.
        """
        chosen = [self(rows[0])]
        for guess, row in zip(guessed, rows[1:], strict=True):
            if chosen[-1] != guess:
                break
            chosen.append(self(row))
        return chosen


def not_finite(what: str = Phrase("NaN or infinite logits")) -> QwenchatError:
    """The error for logits that cannot be chosen from."""
    return QwenchatError(
        "the model produced {what}",
        "its checkpoint may be damaged, or its numbers too large for the dtype",
        what=what,
    )
