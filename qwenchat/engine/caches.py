"""The KV caches of several chats: which one serves a prompt, and which gives way for it.

Owns how many there are and how much memory they take. What a prompt can reuse of one is said by the cache's
token ids, compared one by one: nothing but a prefix of the very same ids is ever reused. A cache in use is
nobody else's; a prefix of it may be copied. Not for several threads: whoever runs the model asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwenchat.engine.prefix_cache import PrefixCache, common_prefix
from qwenchat.engine.runner import Runner

_LOST = 32
"""A prompt goes on in a chat's own cache if that loses no more tokens by it; else it gets a copy."""
_SIZES = 4
"""Caches are made for a quarter of the context, half of it and so on, so that one serves after another."""


class Caches:
    """Caches that a runner made.

    Args:
        runner: makes them.
        context: positions that most have room for; one that is asked to may have more.
        most: how many there are at most.
        most_bytes: how much memory they take at most, all together; None for as much as they take. One there
            may always be.
    """

    def __init__(
        self, runner: Runner[Any], *, context: int, most: int, most_bytes: int | None = None
    ) -> None:
        self._runner, self._context = runner, context
        self._most, self._most_bytes = most, most_bytes
        self._used: list[PrefixCache] = []
        self._free: list[PrefixCache] = []  # the one that was used last is the last

    @property
    def all(self) -> list[PrefixCache]:
        """All there are."""
        return [*self._free, *self._used]

    def take(self, prompt: Sequence[int], positions: int) -> PrefixCache | None:
        """A cache with room for so many positions, and what there is for a prompt in it, for one user.

        Returns:
            The cache; None as long as there is no room for it beside those in use.

        Raises:
            Exception: a new one cannot be allocated; the runner knows if memory ran out.
        """
        best = max(self.all, key=lambda cache: (cache.reusable(prompt), cache in self._free), default=None)
        reused = 0 if best is None else best.reusable(prompt)
        own = best if best in self._free and reused and _goes_on(best, prompt) else None
        if own is not None and own.capacity >= positions:
            return self._use(own)
        if own is not None:  # it gives way to a larger one, if there is room for that
            self._free.remove(own)
        cache = self._room(positions)
        if cache is None:
            self._free += [] if own is None else [own]
            return None
        if cache is not best and best is not None and reused:
            cache.truncate(0)
            cache.rotate_for(len(prompt))
            cache.copy(best, reused)
        return self._use(cache)

    def give_back(self, cache: PrefixCache, *, keep: bool = True) -> None:
        """Takes back a cache whose user is done; to be kept with what it holds, or to be given up."""
        self._used.remove(cache)
        if keep:
            self._free.append(cache)

    def drop_free(self) -> bool:
        """Gives up those that are not in use; returns whether there were any."""
        had = bool(self._free)
        self._free.clear()
        self._runner.free()
        return had

    def outdated(self, prompt: Sequence[int]) -> bool:
        """Whether the cache that has most of a prompt's tokens holds them under another NTK alpha."""
        best = max(self.all, key=lambda cache: common_prefix(cache.ids, prompt), default=None)
        return best is not None and best.is_outdated(len(prompt))

    def _room(self, positions: int) -> PrefixCache | None:
        """A cache with room for so many positions, of those that are free, or a new one; None for now."""
        capacity = self._size(positions)
        while not self._fits(capacity):
            if not self._free:
                return None
            oldest = self._free.pop(0)
            if oldest.capacity >= positions:
                self._free.append(oldest)
                return oldest
            del oldest
            self._runner.free()
        cache: PrefixCache = self._runner.new_cache(capacity)
        self._free.append(cache)
        return cache

    def _fits(self, capacity: int) -> bool:
        """Whether another cache of a capacity may be made."""
        have = self.all
        if not have:
            return True
        if len(have) >= self._most:
            return False
        per_position = max(cache.nbytes / cache.capacity for cache in have)
        taken = sum(cache.nbytes for cache in have) + per_position * capacity
        return self._most_bytes is None or taken <= self._most_bytes

    def _size(self, positions: int) -> int:
        """The capacity of a cache for so many positions."""
        step = max(1, self._context // _SIZES)
        return max(positions, min(self._context, -(-positions // step) * step))

    def _use(self, cache: PrefixCache) -> PrefixCache:
        self._free.remove(cache)
        self._used.append(cache)
        return cache


def _goes_on(cache: PrefixCache, prompt: Sequence[int]) -> bool:
    """Whether a prompt goes on with what a cache holds, or all but a little of that."""
    return len(cache.ids) - common_prefix(cache.ids, prompt) <= _LOST
