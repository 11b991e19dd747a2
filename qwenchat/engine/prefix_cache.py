"""A KV cache as a value: the keys and values of some tokens, and the ids of these tokens.

Owns the one rule of what a prompt can reuse of what ran before it. What keys and values are, and where they
lie, is a runner's: it makes the caches, and adds to them what it has run. Whoever has several caches asks
each how much of a prompt it holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

WORTH_REUSING = 32
"""A shorter prefix is run again where a prompt turns off from what ran before."""


class PrefixCache(ABC):
    """Keys and values by token ids.

    Args:
        capacity: positions that it has room for.

    Attributes:
        ids: the tokens whose keys and values it holds, in their order. Who adds to these adds here too, and
            after them: an id stands here only once the token has been run.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ids: list[int] = []
        self._end: tuple[int, Any] | None = None

    def reusable(self, prompt: Sequence[int]) -> int:
        """The number of its positions that serve a prompt.

        Those that both begin with. The prompt whose end was remembered serves whole, since its logits are
        kept; of any other the last tokens are run again, for the logits: two, since one by itself would be
        run as a reply's tokens are, and rounded otherwise. Where another chat shares a system
        prompt alone nothing is reused: it saves nothing that is felt. So asking again and a new chat get the
        same logits to the bit as in a fresh cache. (The rounding of an attention depends on how many rows it
        has, and in bfloat16 that changes words.)
        """
        if self.is_outdated(len(prompt)):
            return 0
        common = common_prefix(self.ids, prompt)
        if self._end is not None and self._end[0] == common == len(prompt):
            return common
        turns_off = common < min(len(prompt), len(self.ids))
        return 0 if turns_off and common < WORTH_REUSING else min(common, max(0, len(prompt) - 2))

    def begin(self, prompt: Sequence[int]) -> int:
        """Readies the cache for a prompt; returns how many of its tokens it holds, and it holds no others."""
        reused = self.reusable(prompt)
        self.truncate(reused)
        self.rotate_for(len(prompt))
        return reused

    def remember_end(self, logits: Any) -> None:
        """Keeps the logits after the last of its tokens, with which a prompt ends."""
        self._end = len(self.ids), logits

    @property
    def end_logits(self) -> Any:
        """The logits after its last token, if they are kept; else None."""
        return self._end[1] if self._end is not None and self._end[0] == len(self.ids) else None

    def truncate(self, length: int) -> None:
        """Forgets all but the first ``length`` tokens, and whatever a broken-off run has left behind them."""
        # In this order: interrupted in between, it holds more than it says, and not less.
        if self._end is not None and self._end[0] > length:
            self._end = None
        del self.ids[length:]
        self._truncate(length)

    def copy(self, other: PrefixCache, length: int) -> None:
        """Holds what another cache of the same runner has of its first tokens; before, it holds nothing.

        Args:
            other: whose keys were rotated as this one's will be.
            length: how many of its tokens.
        """
        self._copy(other, length)
        self.ids = other.ids[:length]
        if other._end is not None and other._end[0] <= length:
            self._end = other._end

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The memory that it takes, or comes to take as it is filled."""

    def is_outdated(self, prompt_length: int) -> bool:
        """Whether it holds keys that are of no use after a prompt of this length: under another NTK alpha."""
        return False

    def rotate_for(self, prompt_length: int) -> None:  # noqa: B027 - most models rotate all alike
        """Chooses the rotation of the keys to come by the length of the whole prompt."""

    @abstractmethod
    def _copy(self, other: Any, length: int) -> None:
        """Copies the keys and values of another's first ``length`` tokens."""

    @abstractmethod
    def _truncate(self, length: int) -> None:
        """Forgets the keys and values of all but the first ``length`` tokens."""


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
