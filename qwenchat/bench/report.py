"""The figures as tables in the shape of the model card, its own rows among them, and as one JSON object.

Measures nothing. The card's figures are those of Qwen-7B-Chat-Int8's model card, with FlashAttention 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qwenchat.bench.chart import Line
from qwenchat.humanize import in_gib
from qwenchat.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from qwenchat.bench.ceilings import Ceilings
    from qwenchat.bench.protocol import Decode, Memory, Result

WIDTH = 120
"""Columns off a terminal."""
_NONE = "–"


@dataclass(frozen=True, slots=True)
class CardRow:
    """A row of the model card.

    Attributes:
        format: as it is called there.
        speeds: tokens/s by the number of new tokens.
        encode, generate: peak memory of 2,048 tokens read and of 8,192 generated, in what the card calls
            GB: bytes over 1024³.
    """

    format: str
    speeds: Mapping[int, float]
    encode: float
    generate: float


CARD_TITLE = "card, A100"
CARD = (
    CardRow("BF16", {2048: 40.93, 8192: 36.14}, 16.99, 22.53),
    CardRow("Int8", {2048: 37.47, 8192: 32.54}, 11.20, 16.62),
    CardRow("Int4", {2048: 50.09, 8192: 38.61}, 8.21, 13.63),
)


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run.

    Attributes:
        machine: the device's name and what computes on it.
        command: what was asked for.
        ceilings: by the dtype of the products.
        results: in the order in which they were measured.
    """

    machine: Mapping[str, str]
    command: str
    ceilings: Mapping[str, Ceilings]
    results: Sequence[Result]

    def ceilings_of(self, result: Result) -> Ceilings:
        """Those of the result's dtype, with what the memory gave while it was measured."""
        found = self.ceilings[result.dtype]
        return found if result.read is None else replace(found, read=result.read)


def print_tables(report: Report, console: Console) -> None:
    """Prints the tables; off a terminal they are plain, and :data:`WIDTH` columns wide."""
    if not console.is_terminal:
        console.width = WIDTH
    for part in (*_head(report), *_tables(report), *_foot(report)):
        console.print(part, soft_wrap=isinstance(part, str))


def _head(report: Report) -> Iterable[str]:
    yield sanitize_line(", ".join(v for v in report.machine.values()))
    first = next(iter(report.ceilings.values()))
    multiply = ", ".join(f"{name} {c.multiply / 1e12:,.1f}" for name, c in report.ceilings.items())
    yield (
        f"ceilings: reads {first.read / 1e9:,.1f} GB/s, copies {first.copy / 1e9:,.1f} GB/s, "
        f"multiplies {multiply} TFLOP/s"
    )


def _tables(report: Report) -> Iterable[str | Table]:
    """Each table, and before it what it shows."""
    yield "\nspeed from a context of one token, and memory"
    yield _card_table(report)
    yield "time to the first token"
    yield _waiting_table(report)
    yield "tokens/s by the context (share of the ceiling there)"
    yield _context_table(report)
    for result in report.results:
        if result.kernel_times:
            yield f"{_title(report, result)}: kernels at a context of {result.kernels_at:,}"
            yield _kernel_table(report, result)


def _foot(report: Report) -> Iterable[str]:
    for s in (r.sampler for r in report.results):
        if s is not None:
            yield (
                f"sampler alone, {s.vocab_size:,} logits: {s.flat * 1e6:,.1f} µs a token on flat ones, "
                f"{s.peaked * 1e6:,.1f} µs on peaked ones"
            )


def _table(first: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _card_table(report: Report) -> Table:
    """Speed and memory as the model card has them."""
    lengths = sorted({d.tokens for r in report.results for d in r.decodes})
    columns = [c for n in lengths for c in (f"{n:,} new\ntokens/s", "of the\nceiling", "reads\nGB/s")]
    prompts = {r.protocol.prompt for r in report.results}
    encode = f"peak, encode {min(prompts):,}\nGiB (reserved)"
    longest = max((max(r.protocol.tokens) for r in report.results), default=0)
    table = _table(
        "model",
        *columns,
        encode,
        f"generate {longest:,}\nGiB (reserved)",
    )
    if any(r.published == "7b" for r in report.results) and {2048, 8192} & set(lengths):
        for row in CARD:
            cells = [c for n in lengths for c in (_number(row.speeds.get(n), 2), "", "")]
            on_card = (row.encode if prompts == {2048} else None, row.generate if longest == 8192 else None)
            table.add_row(f"{row.format} ({CARD_TITLE})", *cells, *(_number(m, 2) for m in on_card))
        table.add_section()
    for r in report.results:
        ceilings, by_length = report.ceilings_of(r), {d.tokens: d for d in r.decodes}
        cells = []
        for n in lengths:
            decode = by_length.get(n)
            if decode is None:
                cells += [_NONE, _NONE, _NONE]
                continue
            cells += [
                f"{decode.speed:.2f}",
                f"{decode.speed / r.ceiling(decode, ceilings):.0%}",
                f"{r.read_rate(decode) / 1e9:,.1f}",
            ]
        table.add_row(_title(report, r), *cells, _memory(r.encode_memory), _memory(r.generate_memory))
    return table


def _waiting_table(report: Report) -> Table:
    """The table of waiting times."""
    table = _table(
        "model",
        "of a\nprompt of",
        "ms",
        "tokens/s",
        "TFLOP/s",
        "of the\nceiling",
        "next turn",
        "ms",
        "of a process\ns (first time)",
    )
    for r in report.results:
        cells = [_NONE] * 8
        if r.first_token is not None and r.prefill_operations is not None:
            rate = r.prefill_operations / r.first_token
            cells[:5] = [
                f"{r.protocol.prompt:,}",
                f"{r.first_token * 1e3:,.1f}",
                f"{r.protocol.prompt / r.first_token:,.0f}",
                f"{rate / 1e12:,.2f}",
                f"{rate / report.ceilings_of(r).multiply:.0%}",
            ]
        if r.next_turn is not None:
            kept = "" if r.reused == r.protocol.old else f"\n({r.reused:,} reused)"
            cells[5] = f"{r.protocol.new:,} on {r.protocol.old:,}{kept}"
            cells[6] = f"{r.next_turn * 1e3:,.1f}"
        if r.start is not None:
            cells[7] = f"{r.start[1]:.2f} ({r.start[0]:.2f})"
        table.add_row(_title(report, r), *cells)
    return table


def _context_table(report: Report) -> Table:
    """The speed against the context, over the longest replies."""
    contexts = sorted({c for r in report.results for c in longest(r).contexts()})
    table = _table("model", *(f"{c:,}" for c in contexts))
    for r in report.results:
        decode, ceilings, cells = longest(r), report.ceilings_of(r), []
        for c in contexts:
            if c not in decode.contexts():
                cells.append(_NONE)
                continue
            speed, limit = decode.speed_at(c), ceilings.decode_at(r.weights, r.per_position, c)
            cells.append(f"{speed:.1f} ({speed / limit:.0%})")
        table.add_row(_title(report, r), *cells)
    return table


def _kernel_table(report: Report, r: Result) -> Table:
    """Each kernel of the decode step."""
    read = report.ceilings_of(r).read
    table = _table("kernel", "launches", "µs each", "µs a token", "GB/s", "of the ceiling")
    for k in r.kernel_times:
        if k.name == "token":
            table.add_section()
        rate = k.rate
        table.add_row(
            k.name,
            str(k.launches),
            f"{k.seconds * 1e6:,.2f}",
            f"{k.seconds * k.launches * 1e6:,.1f}",
            _NONE if rate is None else f"{rate / 1e9:,.0f}",
            _NONE if rate is None else f"{rate / read:.0%}",
        )
    return table


def longest(result: Result) -> Decode:
    """The longest of its replies."""
    return max(result.decodes, key=lambda d: d.tokens)


def _title(report: Report, result: Result) -> str:
    """The result's name, with its dtype where several have that name."""
    alone = sum(r.name == result.name for r in report.results) == 1
    return sanitize_line(result.name if alone else f"{result.name}, {result.dtype}")


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _memory(memory: Memory | None) -> str:
    return _NONE if memory is None else f"{in_gib(memory.allocated, 2)} ({in_gib(memory.reserved, 2)})"


def lines(report: Report) -> tuple[list[Line], str, str]:
    """The content of the chart: its lines, its title, and a line below that."""
    found = []
    for r in report.results:
        measured, ceilings = longest(r).curve(), report.ceilings_of(r)
        ends = (1, *(x for x, _ in measured), longest(r).tokens)
        ceiling = [(x, ceilings.decode_at(r.weights, r.per_position, x)) for x in ends]
        found.append(Line(_title(report, r), measured, ceiling))
    return found, "Decoding speed against the context", sanitize_line(report.machine["device"])


# --- JSON ------------------------------------------------------------------------------------------


def figures(report: Report) -> dict[str, Any]:
    """Everything that was measured; seconds, bytes, and tokens, bytes or operations per second."""
    return {
        "command": report.command,
        "machine": dict(report.machine),
        "ceilings": {
            name: {"read": round(c.read), "copy": round(c.copy), "multiply": round(c.multiply)}
            for name, c in report.ceilings.items()
        },
        "results": [_result(report, r) for r in report.results],
        "model_card": [
            {
                "format": row.format,
                "speeds": {str(n): speed for n, speed in row.speeds.items()},
                "encode_2048_gib": row.encode,
                "generate_8192_gib": row.generate,
            }
            for row in CARD
        ],
    }


def _result(report: Report, r: Result) -> dict[str, Any]:
    ceilings = report.ceilings_of(r)
    return {
        "name": r.name,
        "format": r.format,
        "device": r.device,
        "dtype": r.dtype,
        "kernels": r.kernels,
        "weight_bytes_per_token": r.weights,
        "kv_bytes_per_position": r.per_position,
        "read": None if r.read is None else round(r.read),
        "load_seconds": _rounded(r.load_seconds),
        "replies": [
            {
                "new_tokens": d.tokens,
                "tokens_per_second": round(d.speed, 2),
                "ceiling": round(r.ceiling(d, ceilings), 2),
                "share": round(d.speed / r.ceiling(d, ceilings), 4),
                "read": round(r.read_rate(d)),
                "at_context": {str(c): round(d.speed_at(c), 2) for c in d.contexts()},
            }
            for d in r.decodes
        ],
        "curve": [[round(x, 1), round(speed, 2)] for x, speed in longest(r).curve()],
        "encode_memory": None if r.encode_memory is None else asdict(r.encode_memory),
        "generate_memory": None if r.generate_memory is None else asdict(r.generate_memory),
        "prompt_tokens": r.protocol.prompt,
        "first_token_seconds": _rounded(r.first_token),
        "prefill_operations": r.prefill_operations,
        "next_turn": {
            "old": r.protocol.old,
            "new": r.protocol.new,
            "reused": r.reused,
            "seconds": _rounded(r.next_turn),
        },
        "sampler": None if r.sampler is None else asdict(r.sampler),
        "start_seconds": None if r.start is None else [_rounded(s) for s in r.start],
        "kernels_at_context": r.kernels_at,
        "kernel_times": [asdict(k) for k in r.kernel_times],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
