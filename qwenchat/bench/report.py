"""All figures of one run, what the model card says of the same, and both as one JSON object or a chart.

Measures nothing; the tables are ``tables``'s. The card's figures are those of Qwen-7B-Chat-Int8's model card,
with FlashAttention 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qwenchat.bench.chart import Line
from qwenchat.i18n.language import tr, translated
from qwenchat.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from qwenchat.bench.ceilings import Ceilings
    from qwenchat.bench.protocol import Decode, Result


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


def longest(result: Result) -> Decode:
    """The longest of its replies."""
    return max(result.decodes, key=lambda d: d.tokens)


def title_of(report: Report, result: Result) -> str:
    """The result's name, with its dtype where several have that name; not sanitised."""
    alone = sum(r.name == result.name for r in report.results) == 1
    return result.name if alone else tr("{name}, {dtype}", name=result.name, dtype=result.dtype)


def lines(report: Report) -> tuple[list[Line], str, str]:
    """The content of the chart: its lines, its title, and a line below that."""
    found = []
    for r in report.results:
        measured, ceilings = longest(r).curve(), report.ceilings_of(r)
        ends = (1, *(x for x, _ in measured), longest(r).tokens)
        ceiling = [(x, ceilings.decode_at(r.weights, r.per_position, x)) for x in ends]
        found.append(Line(sanitize_line(title_of(report, r)), measured, ceiling))
    below = sanitize_line(translated(report.machine["device"]))
    return found, tr("Decoding speed against the context"), below


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
        "token_seconds": {str(context): _rounded(s) for context, s in r.token_seconds.items()},
        "sampler": None if r.sampler is None else asdict(r.sampler),
        "start_seconds": None if r.start is None else [_rounded(s) for s in r.start],
        "kernels_at_context": r.kernels_at,
        "kernel_times": [asdict(k) for k in r.kernel_times],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
