"""How likely a reply's tokens are: looked at, and changed, before each is chosen.

By the model's own distribution: the logits as they come, before a grammar, a bias, the temperature and
whatever else the sampling does to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwenchat.chat.messages import Likelihood, TokenChosen
from qwenchat.errors import PromptError

if TYPE_CHECKING:
    import torch

    from qwenchat.backends.prompt import Tokenizer
    from qwenchat.engine.sampling import Constraint


class Watch:
    """Looks at each row of logits, and adds a bias to it: a :class:`~qwenchat.engine.sampling.Constraint`.

    Args:
        tokenizer: writes the tokens.
        top: how many of the likeliest are told; None to tell nothing.
        bias: what is added to the logits of tokens.
        inner: what the reply is held to besides.
        chosen: gets the tokens that were chosen, in order.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        top: int | None,
        bias: Sequence[tuple[int, float]],
        inner: Constraint | None,
        chosen: deque[TokenChosen],
    ) -> None:
        self._chosen = chosen
        self._tokenizer, self._top, self._bias, self._inner = tokenizer, top, tuple(bias), inner
        self._row: torch.Tensor | None = None

    @property
    def holds(self) -> bool:
        """As of any constraint: each token is looked at, up to the end."""
        return not self.is_over

    @property
    def is_over(self) -> bool:
        """As of any constraint."""
        return self._inner is not None and self._inner.is_over

    def masked(self, logits: Any) -> Any:
        """The row, as the bias and what the reply is held to leave it."""
        if self._top is not None:
            self._row = as_tensor(logits).clone()
        if self._bias:
            logits = logits.copy() if hasattr(logits, "copy") else logits.clone()
            for token_id, added in self._bias:
                logits[token_id] += added
        inner = self._inner
        return inner.masked(logits) if inner is not None and inner.holds else logits

    def takes(self, token_id: int) -> None:
        """As of any constraint."""
        if self._row is not None and self._top is not None:
            (told,) = likelihoods(self._row[None], [token_id], self._top, self._tokenizer)
            self._chosen.append(told)
        if self._inner is not None:
            self._inner.takes(token_id)

    def forced(self) -> list[int]:
        """None: of each token the logits are looked at."""
        return []


def likelihoods(rows: torch.Tensor, ids: Sequence[int], top: int, tokenizer: Tokenizer) -> list[TokenChosen]:
    """How likely tokens are, each by a row of logits.

    Args:
        rows: float32 [T, V].
        ids: T tokens.
        top: how many of the likeliest are told of each row.
        tokenizer: writes them.
    """
    import torch

    def told(token_id: int, logprob: float) -> Likelihood:
        return Likelihood(token_id, _written(tokenizer, token_id), logprob)

    logprobs = torch.log_softmax(rows.float(), -1)
    own = logprobs.gather(-1, torch.tensor(ids, device=rows.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(top, rows.shape[-1]), -1)
    found = zip(ids, own, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        TokenChosen(told(token_id, logprob), tuple(map(told, others, values)))
        for token_id, logprob, others, values in found
    ]


def _written(tokenizer: Tokenizer, token_id: int) -> bytes:
    try:
        return tokenizer.decode_token(token_id)
    except PromptError:  # beyond the vocabulary: rows of logits may be longer
        return b""


def as_tensor(row: Any) -> torch.Tensor:
    """A row of logits as torch has it, without a copy."""
    import torch

    return row if isinstance(row, torch.Tensor) else torch.from_numpy(row)
