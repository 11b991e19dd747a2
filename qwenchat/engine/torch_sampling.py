"""From a row of logits to the next token id, in torch: greedy or drawn, with a repetition penalty and a seed.

Owns the order in which the sampling parameters act, the random numbers and the record of which ids have been
seen. Knows nothing of the model that made the logits, of stop ids or of text.

The rules and their order are those of ``generate()`` in transformers 4.56: repetition penalty, temperature,
top-k, top-p, min-p, then softmax and one draw. :func:`filtered_logits` and :func:`draw` are that definition
in plain torch and without state, for any faster sampler to be held to; :class:`Sampler` adds the state.
A draw takes one uniform number, whatever the vocabulary, so those of a whole reply can be made ahead of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qwenchat.engine.sampling import SamplingParams, TokenChooser, not_finite
from qwenchat.errors import Phrase, PromptError

_FLOAT32 = torch.finfo(torch.float32)
# Float32 softmaxes of the same logits in another order: the running sums of 151,936 were seen 1.2e-5 apart
# (4e-4 only where nearly all logits were equal, which no model makes them).
_TOP_P_ROUNDING = 2e-5
_FEW, _BINS = 512, 2048
"""So many tokens are sorted as they are; more are first told apart by how far they are from the best."""


class Sampler(TokenChooser):
    """Chooses the tokens of one reply, and remembers them for the repetition penalty.

    Args:
        params: how to choose.
        vocab_size: V, the length of every row of logits.
        prompt_ids: the ids before the next one, each in 0..V-1.
        drawn: how many of them the same seed has drawn.
        device: where the choosing is done; best where the logits are.

    Attributes:
        params: these, with the seed that repeats the reply: theirs, or a fresh one.

    Raises:
        PromptError: a prompt id is outside the vocabulary.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocab_size: int,
        prompt_ids: Sequence[int],
        drawn: int = 0,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.params = params.seeded()
        self._generator = _generator(self.params)
        torch.rand(drawn, dtype=torch.float64, generator=self._generator)
        # One bool an id, not a list of ids: the penalty then costs the same however long the chat is.
        self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        for token in prompt_ids:
            if not 0 <= token < vocab_size:
                raise PromptError(
                    "token id {token} is outside the vocabulary (0 to {most})",
                    token=token,
                    most=vocab_size - 1,
                )
        self._seen[torch.tensor(prompt_ids, dtype=torch.int64, device=device)] = True

    def __call__(self, logits: Tensor) -> int:
        """The next token id, for logits [V] of any float dtype on any device.

        Greedy takes the best logit after the repetition penalty, the lowest id where several are best,
        and no random number.

        Raises:
            QwenchatError: the best logit is NaN or infinite, so there is nothing to choose from.
            ValueError: the logits are not one row of V.
        """
        if logits.shape != self._seen.shape:
            raise ValueError(f"expected logits [{len(self._seen)}], got {list(logits.shape)}")
        logits = logits.to(self._seen.device, torch.float32)
        if self.params.temperature == 0:
            logits = _penalised(logits, self.params.repetition_penalty, self._seen)
            token = int(logits.argmax())  # the first of equals, and NaN before any number
            _finite(logits[token])
        else:
            uniform = torch.rand((), dtype=torch.float64, generator=self._generator).item()
            token = draw(filtered_logits(logits, self.params, self._seen), uniform)
        self._seen[token] = True
        return token


def uniforms(params: SamplingParams, tokens: int) -> Tensor:
    """The numbers that the first draws of a reply take, float64 [tokens] on the CPU; none for greedy."""
    if params.temperature == 0:
        return torch.empty(0, dtype=torch.float64)
    return torch.rand(tokens, dtype=torch.float64, generator=_generator(params))


def _generator(params: SamplingParams) -> torch.Generator:
    """The random numbers of a reply; nobody else's draws shift them, and every device has the same."""
    assert params.seed is not None
    return torch.Generator("cpu").manual_seed(params.seed)


def filtered_logits(logits: Tensor, params: SamplingParams, seen: Tensor) -> Tensor:
    """The logits to draw from: penalised and tempered, -inf where a filter removed the token.

    Args:
        logits: [V], float32; -inf is a token that the model itself rules out.
        params: a temperature of 0 counts as the smallest there is, which leaves only what ties for the best.
        seen: [V], bool, the ids that the repetition penalty is for.

    Returns:
        [V], float32, at least one entry finite. A tiny temperature may have shifted all by one constant.

    Raises:
        QwenchatError: the best logit is NaN or infinite, so there is nothing to choose from.
    """
    scores = _penalised(logits, params.repetition_penalty, seen)
    best = _finite(scores.max())  # NaN if any is
    if params.temperature != 1:
        # Python's floats reach further: 1e-50 would be 0 in float32.
        temperature = max(params.temperature, _FLOAT32.tiny)
        if abs(best) / temperature > _FLOAT32.max:
            # So cold that the best would become infinite. Moved to 0 it stays, and the others may go to -inf.
            scores = scores - best
        scores = scores / temperature
    if 0 < params.top_k < len(scores):
        worst = scores.topk(params.top_k).values[-1]
        scores = torch.where(scores >= worst, scores, -math.inf)
    if params.top_p < 1:
        kept = _nucleus(scores, params.top_p)
        scores = torch.full_like(scores, -math.inf).index_copy(0, kept, scores[kept])
    if params.min_p > 0:
        probs = scores.softmax(-1)
        scores = torch.where(probs >= params.min_p * probs.max(), scores, -math.inf)
    return scores


def draw(logits: Tensor, uniform: float) -> int:
    """The id at which the running sum of the probabilities, in the order of the ids, passes ``uniform``.

    Args:
        logits: [V], float32, -inf for what cannot be drawn; at least one finite.
        uniform: >= 0 and < 1.
    """
    # Not torch.multinomial: it makes V random numbers for one token, 4 ms for 151,936.
    # The sum is in float64, for in float32 rare tokens late in the vocabulary would round away.
    kept = (logits > -math.inf).nonzero().squeeze(-1)
    running = logits[kept].softmax(-1).double().cumsum(-1)
    # right=True finds where the sum goes beyond, so never a token that adds nothing to it.
    return int(kept[torch.searchsorted(running, uniform * running[-1], right=True)])


def _penalised(logits: Tensor, penalty: float, seen: Tensor) -> Tensor:
    """Logits [V] with those of the seen ids made worse, or better by a penalty below 1."""
    if penalty == 1:
        return logits
    # The product is the lesser one for negative logits, the quotient for positive ones.
    worse = torch.minimum if penalty > 1 else torch.maximum
    return torch.where(seen, worse(logits * penalty, logits / penalty), logits)


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """The ids of the fewest best scores [V] whose probabilities add up to top_p; of equals, the lower ids.

    As many as transformers' TopPLogitsWarper keeps, to the last bit of its float32 sums. Its way is to sort
    everything. Mostly the probable tokens alone settle it, in 0.4 ms for 151,936: if they have top_p between
    them, no other is kept; if no step of their sum comes near top_p, rounding cannot matter.
    """
    probs = scores.softmax(-1)
    ids = (probs > 2 * _TOP_P_ROUNDING).nonzero().squeeze(-1)  # a lesser step is near wherever it is
    if len(ids) > 0:
        above, ids, before = _border(scores, probs, ids, top_p)
        ids = ids[scores[ids].argsort(descending=True, stable=True)]
        running = torch.cat((before, before + probs[ids].double().cumsum(-1)))
        if running[-1] > top_p and (running - top_p).abs().min() > _TOP_P_ROUNDING:
            return torch.cat((above, ids[: int((running < top_p).sum())]))
    ordered = _ascending(scores)
    running = ordered.softmax(-1).cumsum(-1)  # from the least up, as the original adds
    count = max(1, int((running > 1 - top_p).sum()))
    worst = ordered[len(ordered) - count]
    better, equal = (scores > worst).nonzero().squeeze(-1), (scores == worst).nonzero().squeeze(-1)
    return torch.cat((better, equal[: count - len(better)]))


def _ascending(scores: Tensor) -> Tensor:
    """The scores from the least up. On a CPU numpy sorts, ten times as fast as torch."""
    if scores.is_cuda:
        return scores.sort().values
    return torch.from_numpy(np.sort(scores.numpy()))


def _border(scores: Tensor, probs: Tensor, ids: Tensor, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Narrow many probable ids to the few among which their sum reaches top_p: only these need be sorted.

    Returns:
        The ids that are better than all of these; these; the sum of the former, float64 [1].
    """
    none, zero = ids[:0], torch.zeros(1, dtype=torch.float64, device=scores.device)
    if len(ids) <= _FEW:
        return none, ids, zero
    depth = scores.max() - scores[ids]
    bins = (depth * ((_BINS - 1) / depth.max().clamp(min=1e-6))).long()
    sums = torch.bincount(bins, weights=probs[ids].double(), minlength=_BINS).cumsum(-1)
    border = int((sums < top_p).sum())
    if border == _BINS:
        return none, ids, zero
    before = sums[border - 1 : border] if border else zero
    return ids[bins < border], ids[bins == border], before


def _finite(best: Tensor) -> float:
    """The best logit as a number, unless it is NaN or infinite: that would become a random token."""
    value = float(best)
    if math.isfinite(value):
        return value
    raise not_finite("NaN" if math.isnan(value) else Phrase("infinite logits"))
