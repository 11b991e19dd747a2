"""Replies that keep to a grammar: which tokens may come next, of llguidance, as a mask over the logits.

Owns the vocabulary as llguidance takes it, and from where on a reply is held to the grammar.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from qwenchat.errors import PromptError, QwenchatError
from qwenchat.text.byte_pair_tokenizer import cut
from qwenchat.text.grammars import check_grammar, first_line, guidance

if TYPE_CHECKING:
    from qwenchat.backends.prompt import Tokenizer

_NO_TEXT = b"\xff["
"""Before the number of a token that stands for no text: no text has this byte."""


class Vocabulary:
    """A model's tokens, for any number of grammars. It takes about a second to make.

    Args:
        tokenizer: the model's.
        size: V, the length of a row of logits.
        ends: ids that end a reply.

    Raises:
        QwenchatError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, ends: Collection[int]) -> None:
        library = guidance()
        self.size = size
        self._tokenizer = tokenizer
        self.eos_token_id = min(ends, default=size - 1)
        self.bos_token_id = None
        self.special_token_ids: list[int] = []
        self.tokens = [self._bytes_of(token_id) for token_id in range(size)]
        self._tags = self._find_tags()
        self.for_guidance = library.LLTokenizer(
            library.TokenizerWrapper(self), eos_token=sorted(ends) or None
        )

    @classmethod
    def later(cls, tokenizer: Tokenizer, size: int, ends: Collection[int]) -> Future[Vocabulary]:
        """One that is made beside what else is done, as the reading of a prompt."""
        return _beside(lambda: cls(tokenizer, size, ends))

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens of a text as the model writes it, its tags among them, for llguidance."""
        ids: list[int] = []
        for part in cut(text if isinstance(text, str) else text.decode("utf-8", "replace"), self._tags):
            ids += [self._tags[part]] if part in self._tags else self._tokenizer.encode(part)
        return ids

    def _find_tags(self) -> dict[str, int]:
        """Tokens such as ``<tool_call>``, which are text of a reply and which no text is encoded to."""
        found = {}
        for token_id, written in enumerate(self.tokens):
            if len(written) > 3 and written[:1] == b"<" and written[-1:] == b">":
                form = written.decode("utf-8", "replace")
                if self._tokenizer.encode(form) != [token_id]:
                    found[form] = token_id
        return found

    def _bytes_of(self, token_id: int) -> bytes:
        written = text_bytes(self._tokenizer, token_id)
        if written is not None:
            return written
        self.special_token_ids.append(token_id)
        return _NO_TEXT + str(token_id).encode() + b"]"


def text_bytes(tokenizer: Tokenizer, token_id: int) -> bytes | None:
    """What a token adds to the text of a reply; None if that is nothing, or there is no such token."""
    try:
        if tokenizer.reply_text([token_id]) is not None:
            return tokenizer.decode_token(token_id)
    except PromptError:  # beyond the vocabulary: rows of logits may be longer
        pass
    return None


class GrammarConstraint:
    """A :class:`~qwenchat.engine.sampling.Constraint` to a grammar.

    Args:
        vocabulary: the model's tokens, which are waited for where the grammar begins to hold.
        tokenizer: of the same.
        grammar: in llguidance's Lark.
        trigger: the text from whose end on the grammar holds, each time it is written, until it is met;
            empty if it holds from the begin on, and the reply ends where it is met. One that begins with a
            line's end may stand at the very begin of a reply without it.
        begun: the tokens that the reply goes on from.

    Attributes:
        holds, is_over: as of any constraint.

    Raises:
        UsageError: it is no grammar.
        QwenchatError: llguidance is not installed.
    """

    def __init__(
        self,
        vocabulary: Future[Vocabulary],
        tokenizer: Tokenizer,
        grammar: str,
        trigger: str = "",
        begun: Sequence[int] = (),
    ) -> None:
        check_grammar(grammar)
        self._vocabulary, self._tokenizer, self._grammar = vocabulary, tokenizer, grammar
        self._trigger = trigger.encode()
        self._tail = b"\n"
        self._made: Any = None
        self.is_over = False
        self.holds = not trigger
        self._go_on_from(begun)

    def masked(self, logits: Any) -> Any:
        """A row of logits in which only what may come next is possible."""
        import numpy as np

        bits = np.frombuffer(self._matcher().compute_bitmask(), np.uint8)
        self._check()
        if not self.holds:
            return logits
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        if isinstance(logits, np.ndarray):
            return np.where(allowed, logits, logits.dtype.type(-np.inf))
        import torch

        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))

    def takes(self, token_id: int) -> None:
        """Notes a token that was chosen."""
        if self.holds:
            self._matcher().consume_token(token_id)
            self._check()
        elif (behind := self._behind_trigger(token_id)) is not None:
            self._begin(behind)

    def forced(self) -> list[int]:
        """The tokens that are the only way to go on, as far as they are."""
        found: list[int] = self._matcher().compute_ff_tokens() if self.holds else []
        for token_id in found:
            self.takes(token_id)
        return found

    def _matcher(self) -> Any:
        """What holds to the grammar now: made at the first need, from its begin."""
        if self._made is None:
            self._made = guidance().LLMatcher(self._vocabulary.result().for_guidance, self._grammar)
            self._check()
        return self._made

    def _check(self) -> None:
        """Lets go where the grammar is met, and where it is more than llguidance can follow.

        Raises:
            QwenchatError: that is so of a reply which is nothing without it.
        """
        if not self._made.is_stopped():
            return
        if self._made.is_error() and not self._trigger:
            raise QwenchatError(
                "the answer cannot be held to the schema or the grammar: {reason}",
                "a simpler one may do",
                reason=first_line(self._made.get_error()),
            )
        self._made, self._tail = None, b""
        self.holds, self.is_over = False, not self._trigger

    def _behind_trigger(self, token_id: int) -> bytes | None:
        """What stands behind the trigger, if it is whole with a token; None if it is not."""
        known = len(self._tail)
        text = self._tail + (text_bytes(self._tokenizer, token_id) or b"")
        end = text.rfind(self._trigger) + len(self._trigger)
        self._tail = text[-len(self._trigger) :]
        return text[end:] if known < end and text[:end].endswith(self._trigger) else None

    def _begin(self, behind: bytes) -> None:
        """Begins to hold, behind what the trigger's last token says besides it."""
        self.holds = True
        if behind:
            self._matcher().consume_tokens(self._vocabulary.result()(behind))
            self._check()

    def _go_on_from(self, begun: Sequence[int]) -> None:
        """Finds whether a reply goes on within what the grammar holds for."""
        if not self._trigger:
            return
        last: tuple[int, bytes] | None = None
        for n, token_id in enumerate(begun):
            if (behind := self._behind_trigger(token_id)) is not None:
                last = n + 1, behind
        if last is None:
            return
        place, behind = last
        self._begin(behind)
        for token_id in begun[place:]:
            if self.holds:
                self.takes(token_id)


def _beside(make: Callable[[], Vocabulary]) -> Future[Vocabulary]:
    """Begins to make something in a thread that nobody waits for at the end."""
    future: Future[Vocabulary] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - whoever needs it gets the error
            future.set_exception(error)

    threading.Thread(target=work, name="vocabulary", daemon=True).start()
    return future
