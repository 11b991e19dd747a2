"""Merges of byte-pair encoding to ranks of tokens, where the two mean the same.

The tokenizers library and llama.cpp have a list of merges, two tokens each, and of those that a text allows
the first is made, again and again. tiktoken has a rank for each token, and of all neighbours that together
are a token it joins those with the lowest rank, in whatever two parts it finds them.

These give the same tokens if each token is what its own merge gives, that is, if its bytes, encoded by
themselves, end as that token. For then, wherever two neighbours together are a token, what lies between its
ends has come about as it would by itself, and so the two are the parts of its own merge. That is checked here
for each token, by induction over its length: where ``a`` and ``b`` are what their own merges give, ``a + b``
ends as the two, and then as one, unless a merge across the border between them comes first. Only the tokens
that lie at that border in the course of merging can be part of such a merge: the last one of ``a`` as it is,
and before it was merged, and before that; and likewise the first one of ``b``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints: TypeAlias = npt.NDArray[np.int64]

_LONGEST_TOKEN = 1024
"""Bytes; no published vocabulary has a token of 300."""
_MOST_STEPS = 2**23
"""Of undoing merges, in all; a published vocabulary of 280,000 merges takes some two millions."""


class Inexact(ValueError):
    """Ranks would not give the same tokens as the merges."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Tokens in the order in which they merge.

    Attributes:
        ranks: the tokens that texts can become, by their bytes; the lowest is made first.
        ids: their ids, by rank; None where ranks are ids.
        unmerged: the bytes of the tokens that no text becomes, by id.
    """

    ranks: dict[bytes, int]
    ids: list[int] | None
    unmerged: dict[int, bytes]


def rank(tokens: Mapping[int, bytes], merges: Sequence[tuple[int, int, int]]) -> Ranking:
    """The ranks that give the same tokens as these merges.

    Args:
        tokens: the bytes of each, by id.
        merges: the ids of two tokens and of what they become, the first to be made first.

    Raises:
        Inexact: there are none.
    """
    if max(map(len, tokens.values()), default=0) > _LONGEST_TOKEN:
        raise Inexact("a token is too long")
    if any(tokens[left] + tokens[right] != tokens[whole] for left, right, whole in merges):
        raise Inexact("a merge gives other bytes than its token has")
    order = list(dict.fromkeys(whole for _, _, whole in merges))
    made = frozenset(order)
    bases = [token_id for token_id, token in tokens.items() if len(token) == 1 and token_id not in made]
    ids = [*sorted(bases), *order]
    ranks = {tokens[token_id]: place for place, token_id in enumerate(ids)}
    if len(ranks) != len(ids):
        raise Inexact("two tokens have the same bytes")
    places = {token_id: place for place, token_id in enumerate(ids)}
    try:
        rows = [(places[left], places[right], places[whole]) for left, right, whole in merges]
    except KeyError:
        raise Inexact("a merge needs a token that none gives") from None
    if rows:
        _check([len(tokens[token_id]) for token_id in ids], rows, len(bases))
    unmerged = {token_id: token for token_id, token in tokens.items() if token_id not in places}
    if order == sorted(order):  # then ids are ranks as good as any: those of single bytes mean nothing
        return Ranking({tokens[token_id]: token_id for token_id in ids}, None, unmerged)
    return Ranking(ranks, ids, unmerged)


def _check(lengths: Sequence[int], rows: Sequence[tuple[int, int, int]], bases: int) -> None:
    """Raises Inexact unless each token is what its own merge gives.

    Args:
        lengths: bytes of each token, by place: first those of single bytes, then as they are merged.
        rows: merges of places, in order.
        bases: how many tokens are single bytes.
    """
    import numpy as np

    table = np.array(rows, np.int64)
    whole = table[:, 2]
    if (np.diff(whole) < 0).any():
        raise Inexact("the merges of a token are not one after another")
    pairs = _Pairs(table, len(lengths))
    # What needs a token that is made later is never a token's own. Llama 3's merges have all splits.
    able = table[(table[:, :2] < whole[:, None]).all(axis=1)]
    size = np.array(lengths, np.int64)[able[:, 2]]
    first, last = (np.full(len(lengths), -1, np.int64) for _ in range(2))
    for length in np.unique(size):
        of_length = able[size == length]
        own = of_length[_is_own(of_length, first, last, pairs, bases)]
        first[own[:, 2]], last[own[:, 2]] = own[:, 0], own[:, 1]
        if (first[of_length[:, 2]] < 0).any():
            break
    if (first[bases:] < 0).any():
        raise Inexact("a token is not what its own merge gives")


class _Pairs:
    """Finds what two tokens become."""

    def __init__(self, table: Ints, count: int) -> None:
        import numpy as np

        keys = table[:, 0] * count + table[:, 1]
        order = np.argsort(keys, kind="stable")
        self._count, self._keys, self._whole = count, keys[order], table[order, 2]
        if (np.diff(self._keys) == 0).any():
            raise Inexact("a merge is there twice")
        self.steps = 0

    def find(self, left: Ints, right: Ints) -> Ints:
        """The places of what each two become; one beyond all where they become nothing."""
        import numpy as np

        self.steps += len(left) + 64
        if self.steps > _MOST_STEPS:
            raise Inexact("it takes too long to see")
        keys = left * self._count + right
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._whole[at], self._count)


def _is_own(rows: Ints, first: Ints, last: Ints, pairs: _Pairs, bases: int) -> npt.NDArray[np.bool_]:
    """Whether the bytes of each merge's token, encoded by themselves, end as its two parts.

    Args:
        rows: merges of tokens of one length.
        first, last: the parts of each token that is shorter.
    """
    import numpy as np

    own = np.ones(len(rows), np.bool_)
    at = np.arange(len(rows))
    left, right = rows[:, 0], rows[:, 1]
    while len(at):
        # Back in time: the later one of the two is taken apart; of equal ones the right one, which is made
        # after the left one. Single bytes come before all.
        undo_left = left > right
        undone = np.where(undo_left, left, right)
        still = undone >= bases
        at, left, right = at[still], left[still], right[still]
        undo_left, undone = undo_left[still], undone[still]
        left, right = np.where(undo_left, last[left], left), np.where(undo_left, right, first[right])
        # What is now at the border came together with nothing until that one was made. Of two merges alike
        # the left one is made first.
        across = pairs.find(left, right)
        taken = np.where(undo_left, across < undone, across <= undone)
        own[at[taken]] = False
        at, left, right = at[~taken], left[~taken], right[~taken]
    return own
