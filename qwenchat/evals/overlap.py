"""Rouge-L of two lists of words: the F of their longest common subsequence (Lin, "ROUGE", 2004)."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 20_000  # words of one: the work grows with the product


def rouge_l(said: Sequence[str], wanted: Sequence[str]) -> float:
    """0 to 1; 0 where either has no word."""
    said, wanted = said[:_MOST], wanted[:_MOST]
    row = [0] * (len(wanted) + 1)
    for word in said:
        before = 0
        for place, other in enumerate(wanted, 1):
            above = row[place]
            row[place] = before + 1 if word == other else max(above, row[place - 1])
            before = above
    common = row[-1]
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)
