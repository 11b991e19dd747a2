"""The generation loop: one reply, a piece of work at a time.

Owns the order of a reply: the prompt in chunks, then its tokens, some guessed and verified several at a time,
others each held to a constraint; its limits, ends and statistics. Whoever drives it has the cache, and says
when the next piece is run: a lone reply's at once, those of several by turns. A token that needs a step of
the model is only asked for, as :attr:`Loop.row`, so that the steps of several replies can be run as one.
Knows nothing of text, models, devices or libraries.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from time import perf_counter
from typing import Any, NamedTuple

from qwenchat.engine.generation import Cancelled, GenerationStats, Prefilled, Request, is_set
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.prompt_lookup import Costs, Mode, PromptLookup
from qwenchat.engine.runner import Row, Runner, Token
from qwenchat.engine.sampling import Constraint, TokenChooser
from qwenchat.errors import QwenchatError


class _Stepped(NamedTuple):
    """What a step gave a row, and the seconds of a step that was its alone."""

    token: Token
    seconds: float | None


Pieces = Generator[int | Prefilled | Row, _Stepped, None]
"""What came out, or a row that waits for a step; that is answered, the others by None."""


class Loop:
    """A reply under way.

    Args:
        runner: runs the model.
        cache: begun for the prompt, with room for the reply; nobody else's until :meth:`close`.
        request: what is asked for.
        stats: filled in meanwhile; ``reused_tokens`` say what the cache holds.
        mode: whether tokens are guessed.
        costs: what passes of the runner cost; filled in, too.

    Attributes:
        row: what waits for a step; None where the next piece of work is :meth:`advance`'s.
        ended: whether there is no more work.
        alone: whether no other reply waits for the runner meanwhile. Only then are tokens guessed: a pass
            that others wait for had better run theirs.
    """

    def __init__(
        self,
        runner: Runner[Any],
        cache: PrefixCache,
        request: Request,
        stats: GenerationStats,
        mode: Mode,
        costs: Costs,
    ) -> None:
        self.row: Row | None = None
        self.ended = False
        self.alone = True
        self._runner, self._cache, self._request, self._stats = runner, cache, request, stats
        self._mode, self._costs = mode, costs
        self._answer: _Stepped | None = None
        self._pieces = self._begin()
        self._since = perf_counter()

    def advance(self) -> int | Prefilled | None:
        """Does the next piece of work: a chunk of the prompt, a few guessed tokens, or what follows a step.

        Returns:
            What came out: a token, or a chunk of the prompt; None where a step is needed first, or it ended.

        Raises:
            QwenchatError: there is nothing to choose a token from.
        """
        if self.ended:
            return None
        answer, self._answer = self._answer, None
        try:
            piece = next(self._pieces) if answer is None else self._pieces.send(answer)
        except (StopIteration, Cancelled):
            self.close()
            return None
        if isinstance(piece, Row):
            self.row = piece
            return None
        if isinstance(piece, Prefilled):
            self._since = perf_counter()
            return piece
        return self._count(piece)

    def close(self) -> None:
        """Ends it where it is: with what it gave out in the cache, as far as that was run."""
        self.ended, self.row = True, None
        if self._stats.finish_reason is None:
            self._stats.finish_reason = "cancelled"
        self._pieces.close()

    def stepped(self, token: Token, seconds: float | None) -> None:
        """Takes what a step gave :attr:`row`."""
        self.row, self._answer = None, _Stepped(token, seconds)

    def _count(self, token: int) -> int | None:
        """The token, if it is one to give out; ends the reply where it ends."""
        stats, request = self._stats, self._request
        stats.decode_seconds = perf_counter() - self._since
        if token in request.stop_ids:
            stats.finish_reason = "stop"
            self.close()
            return None
        stats.new_tokens += 1
        if stats.new_tokens == request.limit:
            stats.finish_reason = stats.finish_reason or "length"
            self.close()
        return token

    def _begin(self) -> Pieces:
        """The prompt in chunks, then the reply's tokens."""
        started = perf_counter()
        ids, cache, stats, cancel = self._request.ids, self._cache, self._stats, self._request.cancel
        logits = cache.end_logits
        if logits is not None:
            yield Prefilled(len(ids), len(ids))
        for start, end in _chunks(stats.reused_tokens, len(ids), self._runner.chunk):
            logits = self._runner.prefill(cache, ids[start:end], cancel)
            stats.prefill_seconds += perf_counter() - started
            yield Prefilled(len(cache.ids), len(ids))
            started = perf_counter()
        cache.remember_end(logits)
        yield from self._free(logits) if self._request.constraint is None else self._constrained(logits)

    def _free(self, logits: Any) -> Pieces:
        """The reply's tokens, or the rest of them, as fast as they come."""
        ids, prompt = self._cache.ids, len(self._request.ids)
        if self._mode == "on" or (self._mode == "auto" and self._runner.verifies_exactly):
            # By the clock, what is guessed differs from time to time: only where that changes no reply.
            yield from self._guessing(
                logits, PromptLookup(ids, self._costs if self._mode == "auto" else None)
            )
        else:
            yield from self._decoding(logits, self._request.limit + prompt - len(ids), len(ids) - prompt)

    def _constrained(self, logits: Any) -> Pieces:
        """The reply's tokens: where the constraint holds, each among those that it allows."""
        request, constraint = self._request, self._request.constraint
        assert constraint is not None
        ids = [*request.ids]
        while not is_set(request.cancel):
            if not constraint.holds:
                yield from self._until_held(self._free(logits), constraint, ids)
                if not constraint.holds:
                    return
            chooser: TokenChooser | None = None
            while constraint.holds and not is_set(request.cancel):
                if forced := constraint.forced():
                    ids += forced
                    yield from forced
                    chooser = None
                    continue
                logits = self._run(ids, logits)
                chooser = chooser or self._runner.chooser(request.params, ids, len(ids) - len(request.ids))
                token = chooser(constraint.masked(logits))
                constraint.takes(token)
                ids.append(token)
                yield token
            if constraint.is_over:
                self._stats.finish_reason = "stop"
                return
            logits = self._run(ids, logits)

    def _until_held(
        self, pieces: Pieces, constraint: Constraint, ids: list[int]
    ) -> Generator[int | Prefilled | Row, _Stepped, None]:
        """Free tokens, which are added to ``ids``, up to the one behind which a constraint holds."""
        answer: _Stepped | None = None
        with closing(pieces), suppress(StopIteration):
            while not constraint.holds:
                piece = next(pieces) if answer is None else pieces.send(answer)
                if isinstance(piece, int):
                    constraint.takes(piece)
                    ids.append(piece)
                answer = yield piece

    def _run(self, ids: Sequence[int], logits: Any) -> Any:
        """Runs what of ``ids`` the cache does not hold.

        Args:
            logits: those after what it holds.

        Returns:
            Those after the last one.
        """
        chunk = self._runner.chunk
        for start in range(len(self._cache.ids), len(ids), chunk):
            logits = self._runner.prefill(self._cache, ids[start : start + chunk], self._request.cancel)
        return logits

    def _decoding(
        self, logits: Any, limit: int, given: int = 0, lookup: PromptLookup | None = None
    ) -> Generator[int | Row, _Stepped, list[int]]:
        """The reply's tokens after ``given`` of them, a step each, up to a limit; with a lookup, to a guess.

        Returns:
            The guess, if it ends with one.
        """
        request = self._request
        row = self._runner.begin(self._cache, logits, request.params, limit, request.cancel, given)
        with closing(row):
            for i in range(limit):
                if is_set(request.cancel):
                    raise Cancelled
                token, seconds = yield row
                if isinstance(token, QwenchatError):
                    raise token
                if lookup is not None:
                    if i > 0 and seconds is not None:  # the first one's logits were there
                        self._costs.ran(1, seconds)
                    lookup.add(token)
                yield token
                if lookup is not None and (guess := self._guess(lookup)):
                    return guess
        return []

    def _guessing(self, logits: Any, lookup: PromptLookup) -> Pieces:
        """The reply's tokens, a step each, or several at a time where they can be guessed."""
        runner, request, prompt = self._runner, self._request, len(self._request.ids)
        while True:
            given = len(lookup.ids) - prompt
            guess = yield from self._decoding(logits, request.limit - given, given, lookup)
            if not guess:
                return
            chooser = runner.chooser(request.params, lookup.ids, len(lookup.ids) - prompt)
            while guess:
                yield from self._verified(chooser, guess, lookup)
                guess = self._guess(lookup)
            logits = runner.verify(self._cache, lookup.ids[-1:], request.cancel)[0]

    def _guess(self, lookup: PromptLookup) -> list[int]:
        """Tokens that may come next, but for the reply's last, which comes behind them anyway."""
        return lookup.guess(self._request.positions - len(lookup.ids) - 1) if self.alone else []

    def _verified(
        self, chooser: TokenChooser, guess: list[int], lookup: PromptLookup
    ) -> Generator[int, None, None]:
        """Runs the last token with a guess of those behind it: as many as were right, and one more."""
        cache, stats, cancel = self._cache, self._stats, self._request.cancel
        held, started = len(cache.ids), perf_counter()
        try:
            rows = self._runner.verify(cache, [*lookup.ids[-1:], *guess], cancel)
            chosen = chooser.accept(rows, guess)
            self._costs.ran(1 + len(guess), perf_counter() - started)
            right = len(chosen) - 1
            lookup.took(len(guess), right)
            stats.guessed_tokens += len(guess)
            stats.right_tokens += right
            for token in chosen:
                held += 1
                lookup.add(token)
                yield token
                if is_set(cancel):
                    raise Cancelled
        finally:
            # What was not right, and what nobody went on from.
            cache.truncate(held)


def _chunks(start: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    """The chunks that a prompt is run in; no token by itself is the last, it would be rounded otherwise."""
    while start < end:
        stop = min(start + most, end)
        stop -= end - stop == 1 and stop - start > 2
        yield start, stop
        start = stop


def step(runner: Runner[Any], loops: Sequence[Loop]) -> None:
    """Runs the rows of some replies in one step; each goes on from there when it advances next."""
    rows = [loop.row for loop in loops if loop.row is not None]
    started = perf_counter()
    try:
        tokens = runner.step(rows)
    except Cancelled:  # there was one
        for loop in loops:
            loop.close()
        return
    seconds = perf_counter() - started if len(rows) == 1 else None
    for loop, token in zip(loops, tokens, strict=True):
        loop.stepped(token, seconds)
