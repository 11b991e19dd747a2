"""Perplexity of a model on a text, and how far formats of the same model stray from it.

The models are loaded one after the other, so that only the largest has to fit: what the first one predicts is
kept on the disk meanwhile, in half precision.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenchat.chat.backend import Backend
from qwenchat.errors import QwenchatError, UsageError
from qwenchat.evals.data import read
from qwenchat.evals.divergence import Comparison, Divergence, Measure, losses, perplexity, scored, windows
from qwenchat.files.text import decode

if TYPE_CHECKING:
    from torch import Tensor

    from qwenchat.backends.local import Model

TEXT = Path(__file__).parents[1] / "data" / "perplexity.txt"
"""A page of plain prose, written for this."""

Load = Callable[[str], Backend]
Progress = Callable[[str, int, int], None]
"""Told the model, how many windows of it are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Row:
    """A model.

    Attributes:
        model: its name.
        description: what runs it.
        perplexity: on the text.
        tokens: that were scored.
        divergence: from the first model; None for that itself.
    """

    model: str
    description: str
    perplexity: Measure
    tokens: int
    divergence: Divergence | None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured.

    Attributes:
        text: its path, and its hash.
        window: tokens of a window.
        rows: the models, the reference first.
    """

    text: str
    sha256: str
    window: int
    rows: Sequence[Row]


def measure(
    names: Sequence[str],
    load: Load,
    *,
    text: Path | None = None,
    window: int,
    most: int | None = None,
    progress: Progress = lambda model, done, total: None,
) -> Result:
    """Measures models on a text.

    Args:
        names: the reference first; the others are formats of it.
        load: loads one; it is closed here.
        text: the page that ships if None.
        window: tokens of a window.
        most: windows, counted from the begin; None for all.

    Raises:
        UsageError: the text is too short, or a model gives no logits or has another vocabulary.
        QwenchatError: there is no room on the disk.
    """
    path = text or TEXT
    data = read(path)
    words = decode(data, str(path))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
        kept: _Kept | None = None
        for name in names:
            with closing(load(name)) as backend:
                model = _local(backend)
                pieces = _pieces(model, words, path, window)[:most]
                if kept is None:
                    kept = _Kept(Path(folder), pieces, len(names) > 1)
                elif pieces != kept.pieces:
                    raise UsageError(
                        "{model} has another vocabulary than {reference}", model=name, reference=names[0]
                    )
                rows.append(_row(model, name, kept, is_reference=not rows, progress=progress))
    return Result(str(path), hashlib.sha256(data).hexdigest(), window, rows)


def _local(backend: Backend) -> Model:
    """The model of a backend, if it is one of this machine."""
    if not hasattr(backend, "logits"):
        raise UsageError("{model} gives no logits: it runs elsewhere", model=backend.name)
    found: Any = backend
    return found  # type: ignore[no-any-return]


def _pieces(model: Model, words: str, path: Path, window: int) -> list[list[int]]:
    pieces = windows(list(model.tokenizer.encode(words)), min(window, model.context))
    if not pieces:
        raise UsageError("{path} is too short: there is next to nothing in it", path=path)
    return pieces


def _row(model: Model, name: str, kept: _Kept, *, is_reference: bool, progress: Progress) -> Row:
    import torch

    comparison, all_losses = Comparison(), []
    for number, ids in enumerate(kept.pieces):
        progress(name, number, len(kept.pieces))
        predicted, wanted = scored(model.logits(ids), ids)
        all_losses.append(losses(predicted, wanted))
        if is_reference:
            kept.keep(number, predicted)
        else:
            comparison.add(predicted, kept.read(number), wanted)
    found = torch.cat(all_losses)
    divergence = None if is_reference else comparison.result()
    return Row(name, str(model.description), perplexity(found), len(found), divergence)


class _Kept:
    """What the reference predicts, on the disk: log-probabilities of each window in half precision."""

    def __init__(self, folder: Path, pieces: list[list[int]], wanted: bool) -> None:
        self.pieces = pieces
        self._folder, self._wanted = folder, wanted

    def keep(self, number: int, predicted: Tensor) -> None:
        import numpy as np

        if not self._wanted:
            return
        left = (len(self.pieces) - number) * predicted.numel() * 2
        free = shutil.disk_usage(self._folder).free
        if left > free:
            raise QwenchatError(
                "not enough disk: the predictions take {needed} GB, {folder} has {free} GB free",
                "--limit takes fewer windows",
                needed=f"{left / 1e9:.1f}",
                folder=self._folder,
                free=f"{free / 1e9:.1f}",
            )
        np.save(self._folder / f"{number}.npy", predicted.half().numpy())  # to be read here alone

    def read(self, number: int) -> Tensor:
        import numpy as np
        import torch

        stored = torch.from_numpy(np.load(self._folder / f"{number}.npy")).float()
        return torch.log_softmax(stored, dim=-1)  # rounded, they no longer add up to one


def as_json(result: Result) -> dict[str, Any]:
    """The result as plain JSON."""
    return {
        "text": result.text,
        "sha256": result.sha256,
        "window": result.window,
        "models": list(map(_row_as_json, result.rows)),
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": row.model,
        "description": row.description,
        "tokens": row.tokens,
        "perplexity": _pair(row.perplexity),
    }
    if (d := row.divergence) is not None:
        found["divergence"] = {
            "perplexity_ratio": _pair(d.ratio),
            "correlation": d.correlation,
            "mean": _pair(d.mean),
            "maximum": d.maximum,
            "percentiles": {f"{100 * share:g}": value for share, value in d.percentiles.items()},
            "minimum": d.minimum,
            "mean_change": _pair(d.mean_change),
            "rms_change": _pair(d.rms_change),
            "same_top": _pair(d.same_top),
        }
    return found


def _pair(measure: Measure) -> list[float]:
    return [measure.value, measure.error]


def figures(row: Row) -> Iterator[tuple[str, str]]:
    """The figures of a model by key, as texts."""
    yield "perplexity", f"{row.perplexity.value:.4f} ± {row.perplexity.error:.4f}"
    if (d := row.divergence) is None:
        return
    yield "ratio", f"{d.ratio.value:.6f} ± {d.ratio.error:.6f}"
    yield "correlation", f"{d.correlation:.2%}"
    yield "mean", f"{d.mean.value:.6f} ± {d.mean.error:.6f}"
    yield "maximum", f"{d.maximum:.6f}"
    for share, value in d.percentiles.items():
        yield f"{100 * share:g}", f"{value:.6f}"
    yield "minimum", f"{d.minimum:.6f}"
    yield "change", f"{100 * d.mean_change.value:.3f} ± {100 * d.mean_change.error:.3f} %"
    yield "rms", f"{100 * d.rms_change.value:.3f} ± {100 * d.rms_change.error:.3f} %"
    yield "top", f"{100 * d.same_top.value:.3f} ± {100 * d.same_top.error:.3f} %"
