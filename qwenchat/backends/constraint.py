"""Replies that keep to a grammar: which tokens may come next, of llguidance, as a mask over the logits.

Owns the vocabulary as llguidance takes it, and from where on a reply is held to the grammar. llguidance is
imported when a reply is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from qwenchat.errors import PromptError, QwenchatError, UsageError, shorten

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
        guidance = _guidance()
        self.size = size
        self._tokenizer = tokenizer
        self.eos_token_id = min(ends, default=size - 1)
        self.bos_token_id = None
        self.special_token_ids: list[int] = []
        self.tokens = [self._bytes_of(token_id) for token_id in range(size)]
        self.for_guidance = guidance.LLTokenizer(
            guidance.TokenizerWrapper(self), eos_token=sorted(ends) or None
        )

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens of a text, for llguidance."""
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))

    def _bytes_of(self, token_id: int) -> bytes:
        try:
            if self._tokenizer.reply_text([token_id]) is not None:
                return self._tokenizer.decode_token(token_id)
        except PromptError:  # beyond the vocabulary: rows of logits may be longer
            pass
        self.special_token_ids.append(token_id)
        return _NO_TEXT + str(token_id).encode() + b"]"


class GrammarConstraint:
    """A :class:`~qwenchat.engine.sampling.Constraint` to a grammar.

    Args:
        vocabulary: the model's tokens.
        grammar: in llguidance's Lark.
        trigger: the text from whose end on the grammar holds, each time it is written, until it is met;
            empty if it holds from the begin on, and the reply ends where it is met.

    Raises:
        UsageError: it is no grammar.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str, trigger: str = "") -> None:
        self._vocabulary, self._grammar = vocabulary, grammar
        self._trigger = trigger.encode()
        self._tail = b""
        self._matcher: Any = None
        self._begin()
        if self._trigger:
            self._matcher = None

    def masked(self, logits: Any) -> Any:
        """A row of logits in which only what may come next is possible."""
        if self._matcher is None:
            return logits
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(np.bool_)
        if isinstance(logits, np.ndarray):
            return np.where(allowed, logits, logits.dtype.type(-np.inf))
        import torch

        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))

    def takes(self, token_id: int) -> bool:
        """Notes a token that was chosen. Returns whether the reply goes on."""
        if self._matcher is not None:
            self._matcher.consume_token(token_id)
            if not self._matcher.is_stopped():
                return True
            self._matcher = None
            return bool(self._trigger)
        self._tail = (self._tail + self._vocabulary.tokens[token_id])[-len(self._trigger) :]
        if self._tail == self._trigger:
            self._begin()
        return True

    def _begin(self) -> None:
        self._matcher = _guidance().LLMatcher(self._vocabulary.for_guidance, self._grammar)
        if self._matcher.is_error():
            raise _no_grammar(self._matcher.get_error())


def check_grammar(grammar: str) -> None:
    """Checks a grammar without a model.

    Raises:
        UsageError: it is none.
        QwenchatError: llguidance is not installed.
    """
    if problem := _guidance().LLMatcher.validate_grammar(grammar):
        raise _no_grammar(problem)


def _no_grammar(problem: str) -> UsageError:
    reason = shorten(problem.strip().partition("\n")[0], 200)
    return UsageError("the schema or the grammar cannot be used: {reason}", reason=reason)


def _guidance() -> Any:
    try:
        import llguidance
    except ImportError:
        raise QwenchatError(
            "the package llguidance is missing, which holds replies to a grammar", "pip install llguidance"
        ) from None
    return llguidance
