"""Prompt lookup: guesses what a reply says next, from where it or its prompt said the same before.

A reply that edits a text, quotes or sums one up copies much of it. What followed the last few tokens the last
time they stood there is run in one pass with the token at hand, and kept as far as the model says the same.
Owns which tokens are guessed and how many; what a guess is worth shows while a reply is made. Knows no model.

Source of the idea: Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Mode = Literal["auto", "on", "off"]
"""Whether guesses are made: auto where they pay and change no reply, on wherever one can be made."""

MOST = 8
"""Tokens to a guess, at most."""
_BEGIN = 2
"""Tokens that must be the same for a guess."""
_LONGEST = 8
"""More of them make it no better."""
_PLACES = 8
"""So many of the places where two tokens stand are looked at, the last ones."""
_REPLACED = 2
"""So many tokens behind one that was another than guessed, it may have been put in the place of that."""
_RATES = {0: 0.5, 2: 0.5, 4: 0.7, _LONGEST: 0.85}
"""The share of guessed tokens that is expected to be right, by how many before them are the same."""
_EXPECTED_AS = 0.7
"""The number of tokens that such an expectation counts as."""
_FORGET = 0.8
"""What is left of what was seen before, after another token."""
_RETRY = 64
"""Places where no guess was worth it until half of what was seen is forgotten."""
_COST_OF_ONE = 0.1
"""What another token adds to a pass, in passes, until it was measured."""
_WORTH = 1.05
"""A guess must promise so many times the speed."""


class Costs:
    """Seconds of a pass by the number of its tokens, as measured.

    The least that was seen lately: what else the machine does makes single passes longer, never shorter.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def ran(self, tokens: int, seconds: float) -> None:
        """Takes note of a pass."""
        known = self._seconds.get(tokens, seconds)
        self._seconds[tokens] = min(seconds, known + 0.1 * (seconds - known))

    def of(self, tokens: int) -> float:
        """What a pass costs, in passes of one token."""
        one, several = self._seconds.get(1), self._seconds.get(tokens)
        if one and several:
            return several / one
        return 1 + _COST_OF_ONE * (tokens - 1)


class PromptLookup:
    """Guesses for one reply.

    Args:
        ids: the tokens of the prompt.
        costs: what passes cost; None to go by what is expected, so that the guesses depend on nothing but
            the tokens.

    Attributes:
        ids: the tokens so far.
    """

    def __init__(self, ids: Sequence[int], costs: Costs | None = None) -> None:
        self.ids = list(ids)
        self.costs = costs
        self._indexed = self._skipped = 0
        self._after: dict[tuple[int, int], list[int]] = {}
        self._right = dict.fromkeys(_RATES, 0.0)
        self._tried = dict.fromkeys(_RATES, 0.0)
        self._matched = _BEGIN
        self._from = 0  # where the last guess stood
        self._behind: tuple[int, int] | None = (
            None  # where it went on behind a wrong token, and at which length
        )

    def add(self, token: int) -> None:
        """Takes the next token."""
        self.ids.append(token)

    def guess(self, room: int) -> list[int]:
        """The tokens that may come next, at most ``room`` of them; none where no guess is worth it."""
        place = self._place() if room > 0 and len(self.ids) >= _BEGIN else None
        if place is None:
            return []
        count = min(self._worth(), room)
        if count == 0:
            self._skipped += 1
            if self._skipped % _RETRY == 0:
                self._right[self._matched] /= 2
                self._tried[self._matched] /= 2
            return []
        guessed = self.ids[place : place + count]
        while len(guessed) < count:  # it goes round
            guessed.append(guessed[len(guessed) - (len(self.ids) - place)])
        self._from = place
        return guessed

    def took(self, guessed: int, right: int) -> None:
        """Takes note of how many tokens of the last guess were right."""
        n = self._matched
        for i in range(min(right + 1, guessed)):
            self._right[n] = _FORGET * self._right[n] + (i < right)
            self._tried[n] = _FORGET * self._tried[n] + 1
        wrong = right < guessed
        self._behind = (self._from + right + 1, len(self.ids) + right + 1) if wrong else None

    def _place(self) -> int | None:
        """The index of what followed the longest end of the tokens that stood before; of equals, the last.

        Where nothing did, that of what follows behind a token that may have been replaced.
        """
        self._index()
        ids, best, longest = self.ids, None, 0
        for place in reversed(self._after.get((ids[-2], ids[-1]), ())[-_PLACES:]):
            same = _BEGIN
            while same < min(_LONGEST, place) and ids[place - 1 - same] == ids[-1 - same]:
                same += 1
            if same > longest:
                best, longest = place, same
        self._matched = max(n for n in _RATES if n <= longest)
        if best is None and self._behind is not None:
            place, length = self._behind
            if len(ids) < length + _REPLACED and place + len(ids) - length < len(ids):
                return place + len(ids) - length
        return best

    def _index(self) -> None:
        """Takes note of where each two tokens stand that have something behind them."""
        ids, after = self.ids, self._after
        for place in range(max(self._indexed, _BEGIN), len(ids)):
            after.setdefault((ids[place - 2], ids[place - 1]), []).append(place)
        self._indexed = len(ids)

    def _worth(self) -> int:
        """The number of tokens to guess that promises the most tokens by time; 0 if none promises more."""
        n = self._matched
        rate = (self._right[n] + _EXPECTED_AS * _RATES[n]) / (self._tried[n] + _EXPECTED_AS)
        best, best_speed, expected, chance = 0, _WORTH, 1.0, 1.0
        for count in range(1, MOST + 1):
            chance *= rate
            expected += chance
            cost = self.costs.of(1 + count) if self.costs else 1 + _COST_OF_ONE * count
            if expected / cost > best_speed:
                best, best_speed = count, expected / cost
        return best
