"""Grammars that a text is held to: llguidance, which is imported where one is used."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qwenchat.errors import QwenchatError, UsageError, shorten


def guidance() -> Any:
    """The package.

    Raises:
        QwenchatError: it is not installed.
    """
    try:
        import llguidance
    except ImportError:
        raise QwenchatError(
            "the package llguidance is missing, which holds replies to a grammar", "pip install llguidance"
        ) from None
    return llguidance


def check_grammar(grammar: str) -> None:
    """Checks a grammar in llguidance's Lark, without a model.

    Raises:
        UsageError: it is none.
        QwenchatError: as :func:`guidance`.
    """
    if problem := problem_of(grammar):
        raise UsageError("the schema or the grammar cannot be used: {reason}", reason=problem)


@lru_cache(maxsize=256)
def problem_of(grammar: str) -> str:
    """What is wrong with a grammar, in a line; empty if it is one. Raises as :func:`guidance`."""
    return first_line(guidance().LLMatcher.validate_grammar(grammar))


def first_line(problem: str) -> str:
    """What llguidance says, in a line."""
    return shorten(problem.strip().partition("\n")[0], 200)
