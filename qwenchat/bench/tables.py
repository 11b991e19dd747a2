"""The figures of a benchmark as tables: what was measured of each model, the model card's figures above it.

Each measurement has a table of its own, with a row for each model and the unit beside each figure, so that
figures can be told apart where they stand below one another. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from qwenchat.bench.layout import FIGURE, TERM, headed, indented, titled
from qwenchat.bench.protocol import Decode, Memory, Result
from qwenchat.bench.report import CARD, Report, longest, title_of
from qwenchat.humanize import in_gib
from qwenchat.i18n.language import tr, translated
from qwenchat.terminal.columns import Table, terms

_NONE = "-"

Key = TypeVar("Key", int, tuple[int, int])
Value = TypeVar("Value")


def tables(report: Report) -> Iterator[Table]:
    """All tables, an empty line before each but the first."""
    yield from _machine(report)
    yield from _ceilings(report)
    yield from _speeds(report)
    yield from _memory(report)
    yield from _first_tokens(report)
    yield from _next_turns(report)
    yield from _starts(report)
    yield from _contexts(report)
    yield from _tokens(report)
    yield from _kernels(report)
    yield from _samplers(report)


def _machine(report: Report) -> Iterator[Table]:
    yield terms([(tr(", ").join(map(translated, report.machine.values())),)], "")


def _ceilings(report: Report) -> Iterator[Table]:
    first = next(iter(report.ceilings.values()))
    rows = [
        (tr("reading memory"), f"{first.read / 1e9:,.1f} GB/s"),
        (tr("copying memory"), f"{first.copy / 1e9:,.1f} GB/s"),
        *(
            (tr("multiplying in {dtype}", dtype=dtype), f"{c.multiply / 1e12:,.2f} TFLOP/s")
            for dtype, c in report.ceilings.items()
        ),
    ]
    yield from headed(tr("ceilings of the machine"), rows)


def _speeds(report: Report) -> Iterator[Table]:
    """The replies of each length."""

    def figures(r: Result, decode: Decode) -> tuple[str, ...]:
        share = _share(decode.speed / r.ceiling(decode, report.ceilings_of(r)))
        read = tr("reads {rate} GB/s", rate=f"{r.read_rate(decode) / 1e9:,.1f}")
        return _speed(decode.speed, 2), share, read

    for length, decodes in _by((r, d.tokens, d) for r in report.results for d in r.decodes):
        card = ((row.format, row.speeds[length]) for row in CARD if length in row.speeds)
        rows = [
            *((name, _speed(speed, 2), "", "") for name, speed in _of_card(report, card)),
            *((title_of(report, r), *figures(r, decode)) for r, decode in decodes),
        ]
        yield from headed(tr("{count} new tokens from a context of one", count=f"{length:,}"), rows)


def _memory(report: Report) -> Iterator[Table]:
    """The peaks of each prompt and of the longest replies; the card's are of 2,048 and of 8,192 tokens."""
    for length, peaks in _by((r, r.protocol.prompt, r.encode_memory) for r in report.results):
        card = ((row.format, row.encode) for row in CARD if length == 2048)
        heading = tr("peak memory, a prompt of {count} tokens", count=f"{length:,}")
        yield from headed(heading, _peaks(report, _of_card(report, card), peaks))
    for length, peaks in _by((r, max(r.protocol.tokens), r.generate_memory) for r in report.results):
        card = ((row.format, row.generate) for row in CARD if length == 8192)
        heading = tr("peak memory, {count} new tokens", count=f"{length:,}")
        yield from headed(heading, _peaks(report, _of_card(report, card), peaks))


def _peaks(
    report: Report, card: Iterable[tuple[str, float]], peaks: Iterable[tuple[Result, Memory]]
) -> list[tuple[str, ...]]:
    return [
        *((name, f"{gib:.2f} GiB", "") for name, gib in card),
        *(
            (
                title_of(report, r),
                f"{in_gib(memory.allocated, 2)} GiB",
                _reserved(memory),
            )
            for r, memory in peaks
        ),
    ]


def _reserved(memory: Memory) -> str:
    """What the allocator keeps; on a CPU there is nothing beside what is in use."""
    if memory.reserved == memory.allocated:
        return ""
    return tr("{size} GiB reserved", size=in_gib(memory.reserved, 2))


def _first_tokens(report: Report) -> Iterator[Table]:
    """The wait for the first token of a prompt, and how fast that was read."""

    def figures(r: Result, seconds: float) -> tuple[str, ...]:
        rate = (r.prefill_operations or 0) / seconds
        share = _share(rate / report.ceilings_of(r).multiply)
        return _ms(seconds), _speed(r.protocol.prompt / seconds, 0), f"{rate / 1e12:,.2f} TFLOP/s", share

    for length, waits in _by((r, r.protocol.prompt, r.first_token) for r in report.results):
        rows = [(title_of(report, r), *figures(r, seconds)) for r, seconds in waits]
        heading = tr("first token after a prompt of {count} tokens", count=f"{length:,}")
        yield from headed(heading, rows, may_lack=3)


def _next_turns(report: Report) -> Iterator[Table]:
    """The wait for the first token of a chat's next turn; what the cache did not serve is told."""

    def reused(r: Result) -> str:
        return "" if r.reused in (None, r.protocol.old) else tr("{count} reused", count=f"{r.reused:,}")

    for (old, new), waits in _by((r, (r.protocol.old, r.protocol.new), r.next_turn) for r in report.results):
        rows = [(title_of(report, r), _ms(seconds), reused(r)) for r, seconds in waits]
        heading = tr("next turn: {new} new tokens after {old}", new=f"{new:,}", old=f"{old:,}")
        yield from headed(heading, rows)


def _starts(report: Report) -> Iterator[Table]:
    rows = [
        (
            title_of(report, r),
            tr("{seconds} s", seconds=f"{r.start[1]:.2f}"),
            tr("{seconds} s the first time", seconds=f"{r.start[0]:.2f}"),
        )
        for r in report.results
        if r.start is not None
    ]
    yield from headed(tr("from the start of a process to its first token"), rows)


def _contexts(report: Report) -> Iterator[Table]:
    """The speed against the context, over the longest reply of each."""
    columns = (
        TERM._replace(title=indented(tr("context")), right=True),
        FIGURE._replace(title=tr("tokens/s")),
        FIGURE._replace(title=tr("of the ceiling")),
    )
    for r in report.results:
        decode, ceilings, rows = longest(r), report.ceilings_of(r), []
        for context in decode.contexts():
            speed, limit = decode.speed_at(context), ceilings.decode_at(r.weights, r.per_position, context)
            rows.append((f"{context:,}", f"{speed:,.1f}", f"{speed / limit:.0%}"))
        yield from titled(tr("{name}: speed by the context", name=title_of(report, r)), columns, rows)


def _tokens(report: Report) -> Iterator[Table]:
    """The time of a token after a prompt, at each context."""

    def figures(r: Result, context: int, seconds: float) -> tuple[str, ...]:
        limit = report.ceilings_of(r).decode_at(r.weights, r.per_position, context)
        return _ms(seconds), _speed(1 / seconds, 1), _share(1 / seconds / limit)

    measured = ((r, context, s) for r in report.results for context, s in r.token_seconds.items())
    for context, times in _by(measured):
        rows = [(title_of(report, r), *figures(r, context, seconds)) for r, seconds in times]
        yield from headed(tr("a token at a context of {count}", count=f"{context:,}"), rows)


def _kernels(report: Report) -> Iterator[Table]:
    """Each kernel of the decode step, and the whole of it."""
    columns = (
        TERM._replace(title=indented(tr("kernel"))),
        FIGURE._replace(title=tr("launches"), leaves=3),
        FIGURE._replace(title=tr("µs each"), leaves=2),
        FIGURE._replace(title=tr("µs a token")),
        FIGURE._replace(title="GB/s", leaves=1),
        FIGURE._replace(title=tr("of the ceiling")),
    )
    for r in report.results:
        read = report.ceilings_of(r).read
        rows = [
            (
                k.name,
                f"{k.launches:,}",
                f"{k.seconds * 1e6:,.2f}",
                f"{k.seconds * k.launches * 1e6:,.1f}",
                _NONE if k.rate is None else f"{k.rate / 1e9:,.0f}",
                _NONE if k.rate is None else f"{k.rate / read:.0%}",
            )
            for k in r.kernel_times
        ]
        heading = tr(
            "{name}: kernels at a context of {count}",
            name=title_of(report, r),
            count=f"{r.kernels_at or 0:,}",
        )
        yield from titled(heading, columns, rows)


def _samplers(report: Report) -> Iterator[Table]:
    for s in (r.sampler for r in report.results if r.sampler is not None):
        yield from headed(
            tr("sampler alone, {count} logits", count=f"{s.vocab_size:,}"),
            [
                (tr("flat logits"), tr("{time} µs a token", time=f"{s.flat * 1e6:,.1f}")),
                (tr("peaked logits"), tr("{time} µs a token", time=f"{s.peaked * 1e6:,.1f}")),
            ],
        )


# --- what the tables share -------------------------------------------------------------------------


def _by(
    measured: Iterable[tuple[Result, Key, Value | None]],
) -> Iterator[tuple[Key, list[tuple[Result, Value]]]]:
    """What was measured by what was asked for, ascending; None was not measured."""
    groups: dict[Key, list[tuple[Result, Value]]] = {}
    for result, key, value in measured:
        if value is not None:
            groups.setdefault(key, []).append((result, value))
    yield from sorted(groups.items(), key=lambda group: group[0])


def _of_card(report: Report, figures: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """The card's figures by the name of a row, where one of the models is the card's."""
    if any(r.published == "qwen-7b-chat" for r in report.results):
        yield from ((tr("{format} (card, A100)", format=name), figure) for name, figure in figures)


def _speed(speed: float, digits: int) -> str:
    return tr("{speed} tokens/s", speed=f"{speed:,.{digits}f}")


def _share(share: float) -> str:
    return tr("{share} of the ceiling", share=f"{share:.0%}")


def _ms(seconds: float) -> str:
    return tr("{time} ms", time=f"{seconds * 1e3:,.1f}")
