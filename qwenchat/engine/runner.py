"""The protocol between the generation loop and whatever runs a model's tokens.

A runner owns a model, its device and its library; the loop owns order, limits, ends and statistics, and
touches logits only to hand them back. One thing is run at a time, to which whoever calls sees; :meth:`logits`
alone may be asked for meanwhile.

Replies are decoded row by row: :meth:`Runner.begin` makes a row of a cache that holds a prompt, and
:meth:`Runner.step` gives the next token of one row or of several at once, each with a cache, a position and a
way of choosing of its own.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from qwenchat.engine.generation import Cancelled
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.sampling import SamplingParams, TokenChooser
from qwenchat.errors import QwenchatError

C = TypeVar("C", bound=PrefixCache)


class Row(ABC):
    """A reply that is being decoded: where the next step goes on.

    Once a token was given out, the next step puts it into the cache and gives the one after it. Until
    :meth:`close`, nobody else runs anything on the cache.
    """

    @abstractmethod
    def close(self) -> None:
        """Ends it, and leaves nothing in the cache that ``cache.ids`` does not name."""


Token = int | QwenchatError
"""A row's next token, or why there is none: the best logit is NaN or infinite."""


class Runner(Protocol[C]):
    """A model that runs token ids, on a cache that it made.

    Attributes:
        vocab_size: V; ids are in 0..V-1.
        max_positions: the longest context that it can run.
        chunk: tokens of a prompt that are run at a time.
        verifies_exactly: whether :meth:`verify` gives to the bit the logits that :meth:`step` chooses by.
        rows_at_once: the most rows that :meth:`step` takes.
    """

    vocab_size: int
    max_positions: int
    chunk: int
    verifies_exactly: bool
    rows_at_once: int

    def new_cache(self, capacity: int) -> C:
        """An empty cache with room for so many tokens."""

    def prefill(self, cache: C, ids: Sequence[int], cancel: threading.Event | None = None) -> Any:
        """Runs ``ids`` after what the cache holds, and adds them to it.

        Returns:
            The logits [V] after the last one, in memory that nothing writes to any more.

        Raises:
            Cancelled: ``cancel`` was set. No id was added, and whoever goes on truncates the cache first,
                as its ``begin`` does: keys may have been left behind.
        """

    def verify(self, cache: C, ids: Sequence[int], cancel: threading.Event | None = None) -> Any:
        """As :meth:`prefill`, but the logits [T, V] after each of ``ids``; for few tokens, guessed ahead.

        Who keeps only the first of them truncates the cache. The logits may be written over by what is run
        next.
        """

    def chooser(self, params: SamplingParams, ids: Sequence[int], drawn: int) -> TokenChooser:
        """What chooses the tokens that :meth:`step` would, from logits of this runner's.

        Args:
            params: how to choose, with a seed unless greedy.
            ids: all tokens so far.
            drawn: how many of them are the reply's.
        """

    def begin(
        self,
        cache: C,
        logits: Any,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Row:
        """A row that decodes after what a cache holds. Nothing is run yet.

        Args:
            cache: holds the prompt, and room for ``limit`` more.
            logits: those after what it holds.
            params: how to choose, with a seed unless greedy.
            limit: tokens that will be asked for at most.
            cancel: heard within a step where the row is alone in it.
            drawn: tokens of the reply that the cache holds already.
        """

    def step(self, rows: Sequence[Row]) -> Sequence[Token]:
        """The next token of each row: in one pass over the weights, where there are several.

        To each row it gives, to the bit, what a step of it alone would give; a runner that keeps that only
        nearly says so in its class. What fails with an exception has changed no row: each may be stepped
        again, by itself, or closed.

        Args:
            rows: of this runner's, 1 to ``rows_at_once`` of them, each with a cache of its own.

        Raises:
            Cancelled: the one row's ``cancel`` was set.
        """

    def rows(self, ids: Sequence[int]) -> Iterator[Any]:
        """The rows of :meth:`logits`, some at a time, so that there are never all of them in memory."""

    def logits(self, ids: Sequence[int]) -> Any:
        """The logits [T, V] after each of ``ids``, float32, for whoever looks at them; touches no cache."""

    def ran_out(self, error: Exception) -> bool:
        """Whether an error means that memory ran out."""

    def free(self) -> None:
        """Gives the memory of caches that nobody holds any more back to the system."""


class OneRow(Row):
    """The row of a runner that decodes one reply at a time, by a generator of its tokens."""

    def __init__(self, tokens: Generator[int, None, None]) -> None:
        self._tokens = tokens

    def next(self) -> Token:
        """The next token.

        Raises:
            Cancelled: the generator ended, or raised it.
        """
        try:
            return next(self._tokens)
        except StopIteration:
            pass
        except QwenchatError as error:
            return error
        raise Cancelled

    def close(self) -> None:
        """As :meth:`Row.close`."""
        self._tokens.close()


class OneAtATime(ABC, Generic[C]):
    """Rows and steps for a runner that has a :meth:`decode`."""

    rows_at_once = 1

    @abstractmethod
    def decode(
        self,
        cache: C,
        logits: Any,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Generator[int, None, None]:
        """The tokens of a reply, one by one, until ``limit`` or a cancel; the arguments are :meth:`begin`'s.

        Once the next one is asked for, the one before is in the cache; whoever closes it early leaves
        nothing there that ``cache.ids`` does not name.

        Raises:
            Cancelled: ``cancel`` was set; it may also just end.
            QwenchatError: the best logit is NaN or infinite.
        """

    def begin(
        self,
        cache: C,
        logits: Any,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> OneRow:
        """As :meth:`Runner.begin`."""
        return OneRow(self.decode(cache, logits, params, limit, cancel, drawn))

    def step(self, rows: Sequence[Row]) -> list[Token]:
        """As :meth:`Runner.step`."""
        (row,) = rows
        assert isinstance(row, OneRow)
        return [row.next()]
