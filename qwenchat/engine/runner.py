"""The protocol between the generation loop and whatever runs a model's tokens.

A runner owns a model, its device and its library; the loop owns order, limits, ends and statistics, and
touches logits only to hand them back. One thing is run at a time, to which whoever calls sees; :meth:`logits`
alone may be asked for meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import Any, Protocol, TypeVar

from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.sampling import SamplingParams, TokenChooser

C = TypeVar("C", bound=PrefixCache)


class Runner(Protocol[C]):
    """A model that runs token ids, on a cache that it made.

    Attributes:
        vocab_size: V; ids are in 0..V-1.
        max_positions: the longest context that it can run.
        chunk: tokens of a prompt that are run at a time.
        verifies_exactly: whether :meth:`verify` gives to the bit the logits that :meth:`decode` chooses by.
    """

    vocab_size: int
    max_positions: int
    chunk: int
    verifies_exactly: bool

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
        """What chooses the tokens that :meth:`decode` would, from logits of this runner's.

        Args:
            params: how to choose, with a seed unless greedy.
            ids: all tokens so far.
            drawn: how many of them are the reply's.
        """

    def decode(
        self,
        cache: C,
        logits: Any,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Generator[int, None, None]:
        """The tokens of a reply, one by one, until ``limit`` or a cancel.

        Once the next one is asked for, the one before is in the cache; whoever closes it early leaves
        nothing there that ``cache.ids`` does not name.

        Args:
            cache: holds the prompt, and room for ``limit`` more.
            logits: those after what it holds.
            params: how to choose, with a seed unless greedy.
            drawn: tokens of the reply that it holds already.

        Raises:
            Cancelled: ``cancel`` was set; it may also just end.
            QwenchatError: the best logit is NaN or infinite.
        """

    def logits(self, ids: Sequence[int]) -> Any:
        """The logits [T, V] after each of ``ids``, float32, for whoever looks at them; touches no cache."""

    def ran_out(self, error: Exception) -> bool:
        """Whether an error means that memory ran out."""

    def free(self) -> None:
        """Gives the memory of caches that nobody holds any more back to the system."""
