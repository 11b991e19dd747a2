"""The figures of a model on a server as tables and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwenchat.bench.layout import headed
from qwenchat.bench.served import QUANTILES, Level
from qwenchat.i18n.language import tr
from qwenchat.terminal.columns import Table, terms


def tables(title: str, levels: Sequence[Level], tokens: int) -> Iterator[Table]:
    """All tables: below one line on the model, the speed, the first tokens and the whole replies.

    Args:
        title: what was measured.
        tokens: that each reply was to have.
    """
    yield terms([(title,)], "")
    came = [level for level in levels if level.replies]
    rows = [
        (
            _at_once(level),
            tr("{speed} tokens/s", speed=f"{level.speed:,.1f}"),
            tr("{speed} tokens/s each", speed=f"{level.speed_of_one:,.1f}"),
            tr("{failed} of {count} failed", failed=len(level.failures), count=_count(level)),
        )
        for level in levels
    ]
    yield from headed(tr("replies of up to {count} tokens", count=f"{tokens:,}"), rows)
    yield from headed(tr("the wait for the first token"), [_waits(level, level.first) for level in came])
    yield from headed(tr("the wait for a whole reply"), [_waits(level, level.whole) for level in came])


def figures(
    model: str, description: str, levels: Sequence[Level], tokens: int, command: str
) -> dict[str, Any]:
    """All figures as one JSON object."""
    return {
        "command": command,
        "model": model,
        "description": description,
        "new_tokens": tokens,
        "levels": [
            {
                "at_once": level.at_once,
                "requests": _count(level),
                "failed": len(level.failures),
                "seconds": round(level.seconds, 3),
                "tokens_per_second": round(level.speed, 2),
                "tokens_per_second_each": round(level.speed_of_one, 2),
                "prompt_tokens": sum(reply.prompt for reply in level.replies),
                "completion_tokens": sum(reply.tokens for reply in level.replies),
                "estimated": any(reply.estimated for reply in level.replies),
                "first_token_seconds": _quantiles(level.first),
                "reply_seconds": _quantiles(level.whole),
            }
            for level in levels
        ],
    }


def _count(level: Level) -> int:
    return len(level.replies) + len(level.failures)


def _at_once(level: Level) -> str:
    return tr("{count} at once", count=level.at_once)


def _waits(level: Level, wait: Callable[[float], float]) -> tuple[str, ...]:
    return (
        _at_once(level),
        *(f"p{share * 100:.0f} {tr('{time} ms', time=f'{wait(share) * 1e3:,.1f}')}" for share in QUANTILES),
    )


def _quantiles(wait: Callable[[float], float]) -> dict[str, float]:
    return {f"p{share * 100:.0f}": round(wait(share), 4) for share in QUANTILES}
