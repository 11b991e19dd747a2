"""``python -m qwenchat.bench``: the speed of a model on this machine, as a table and a JSON line."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from qwenchat.bench.speed import Speed


def main(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A checkpoint folder, a known name, or demo.")
    ] = "demo",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtypes: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer reads it, on Python 3.10 too
        typer.Option("--dtype", help="What to compute in; may be repeated. [default: float32, bfloat16]"),
    ] = None,
    peer: Annotated[bool, typer.Option("--peer", help="Time transformers on the same weights too.")] = False,
) -> None:
    """Times decoding, prefill and the start of qwenchat ask."""
    import torch

    import qwenchat
    from qwenchat.bench import speed
    from qwenchat.engine.loader import load_model
    from qwenchat.models import catalog

    rows: list[Speed] = []
    first_token: dict[str, float] = {}
    for name in dtypes or ("float32", "bfloat16"):
        loaded = qwenchat.load(model, device=device, dtype=name)
        target, number_type = loaded.engine.device, loaded.engine.dtype
        bandwidth = speed.read_bandwidth(target)
        rows.append(speed.measure(loaded, bandwidth))
        loaded.close()
        if peer:
            weights = load_model(catalog.locate(model), device=target, dtype=number_type, context=1024)
            rows.append(speed.measure_peer(weights, bandwidth))
        first_token[name] = speed.seconds_to_first_token(["-m", model, "--device", device, "--dtype", name])
    machine = f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    _print_table(rows, first_token, machine)
    print(
        json.dumps(
            {"machine": machine, "rows": [_figures(r) for r in rows], "first_token_seconds": first_token}
        )
    )


def _print_table(rows: list[Speed], first_token: dict[str, float], machine: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", title=machine)
    for column in ("decode, tokens/s", "GB/s", "of the ceiling", "prefill of 512, tokens/s"):
        table.add_column(column, justify="right")
    for row in rows:
        gigabytes = row.decode * row.token_bytes / 1e9
        ceiling = f"{row.share:.0%} of {row.bandwidth / 1e9:.1f} GB/s"
        table.add_row(row.what, f"{row.decode:.1f}", f"{gigabytes:.1f}", ceiling, f"{row.prefill:.0f}")
    console = Console(width=None if os.isatty(1) else 140)
    console.print(table)
    for name, seconds in first_token.items():
        console.print(f"qwenchat ask, start to first token, {name}: {seconds:.2f} s", highlight=False)


def _figures(row: Speed) -> dict[str, object]:
    return {
        "what": row.what,
        "decode_tokens_per_second": round(row.decode, 2),
        "prefill_tokens_per_second": round(row.prefill, 1),
        "bytes_per_token": row.token_bytes,
        "read_bandwidth": round(row.bandwidth),
        "share_of_ceiling": round(row.share, 3),
    }


def _processor() -> str:
    """The processor's name and how many of it this process may use."""
    from pathlib import Path

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {cores} cores"


if __name__ == "__main__":
    typer.run(main)
