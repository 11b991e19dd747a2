"""Quantises a checkpoint: the steps and their order.

Layer by layer: what the calibration has become after the layers before is what a layer's matrices are
quantised for. A page of held-out text goes the same way twice, through the float layers and through the
quantised ones. So at the end both perplexities are known, and neither model was ever whole in memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.errors import (
    CheckpointError,
    Phrase,
    QwenchatError,
)
from qwenchat.models.quantize import calibration as calibrations
from qwenchat.models.quantize import checkpoint, layers
from qwenchat.models.quantize.solver import Recipe, import_gptq
from qwenchat.models.quantize.source import Source, key_of
from qwenchat.models.quantize.states import States
from qwenchat.models.writing import files, work
from qwenchat.models.writing.places import check_places, told

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qwenchat.models.quantize.calibration import Calibration, Encoder
    from qwenchat.models.quantize.layers import Texts
    from qwenchat.models.writing.work import Work

HELD_OUT = Path(__file__).parents[2] / "data" / "perplexity.txt"
"""A page of prose that is in no calibration set."""

_VOCABULARY_CHUNK = 2**14


@dataclass(frozen=True, slots=True)
class Step:
    """The progress of the work.

    Attributes:
        stage: what is being done, in the user's language.
        fraction: of the stage, 0 to 1; None if that is not known.
        seconds_left: until it is done, if that can be told.
    """

    stage: str
    fraction: float | None = None
    seconds_left: float | None = None


StepProgress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of quantising.

    Attributes:
        folder: the checkpoint.
        bytes: that it takes.
        before, after: perplexity on held-out text of the float and of the quantised model.
        held_out_tokens: of that text.
        calibration_tokens: that the matrices were quantised for.
        seconds: that this run took.
        resumed_at: pieces of the work that were done before it.
    """

    folder: Path
    bytes: int
    before: float
    after: float
    held_out_tokens: int
    calibration_tokens: int
    seconds: float
    resumed_at: int

    @property
    def change(self) -> float:
        """Of the perplexity, as a fraction of what it was."""
        return self.after / self.before - 1


def quantize(
    source: Path,
    dest: Path,
    recipe: Recipe,
    *,
    calibration: Path | None = None,
    encoder: Callable[[Path], Encoder] = calibrations.QwenEncoder.of,
    device: torch.device,
    progress: StepProgress = lambda step: None,
    notice: Callable[[str], None] = lambda line: None,
) -> Result:
    """Makes a quantised checkpoint of a float one. Interrupted, it goes on where it stopped.

    Args:
        source: folder of a float checkpoint that the engine reads, with its vocabulary.
        dest: the new folder; it appears when all is done. Until then the work is in ``DEST.partial``.
        recipe: how.
        calibration: chats or text to quantise for; the set that ships if None.
        encoder: makes token ids of text and chats as the model in a folder meets them; by default as one of
            the first generation does.
        device: what computes.
        progress: told how far the work is.
        notice: told what the user should know.

    Raises:
        UsageError: the destination or the calibration cannot be used, or the groups do not fit.
        CheckpointError: the source is damaged, quantised or of another kind.
        InsufficientMemoryError: the memory does not suffice.
        Interrupted: the user stopped it; what is done is kept.
        QwenchatError: auto-gptq is missing, or something cannot be written.
    """
    started = time.monotonic()
    check_places(source, dest)
    src = Source(source, recipe)
    encode = encoder(source)
    window = min(src.config.seq_length, layers.CHUNK)
    given = calibrations.read(calibration or calibrations.DEFAULT, encode, window)
    held_out = calibrations.windows(encode.text(HELD_OUT.read_text(encoding="utf-8")), window)
    _check_ids(src, given, held_out)
    if given.left_out:
        notice(
            Phrase.of_number(
                given.left_out,
                "one token of the calibration is too many, and left out",
                "{count} tokens of the calibration are too many, and left out",
            )
        )
    import_gptq()  # takes seconds: what can be refused without it was
    import torch

    texts = layers.Texts.of(given.sequences, held_out)
    src.check_room(dest, texts.rows, device)
    checking = Phrase("checking the source")
    digest = src.digest(lambda fraction: progress(Step(checking, fraction)))
    key = key_of(digest, recipe, given.sequences, held_out)
    pieces = src.config.num_layers + 2
    with told(dest), work.opened(dest, key, pieces) as job, torch.inference_mode():
        if job.restarted:
            notice(Phrase("the work in {folder} is of another kind; it begins anew", folder=job.folder))
        elif job.done:
            notice(Phrase("going on after {done} of {count} steps", done=job.done, count=pieces))
        resumed_at = job.done
        run = _Run(src, job, texts, recipe, device, progress)
        run.all([*given.sequences, *held_out, *held_out], sum(len(ids) - 1 for ids in held_out))
        progress(Step(Phrase("putting the checkpoint together")))
        checkpoint.finish(job.checkpoint, source, recipe)
        size = sum(path.stat().st_size for path in job.checkpoint.iterdir())
        job.put_in_place()
    return Result(
        folder=dest,
        bytes=size,
        before=job.found["before"],
        after=job.found["after"],
        held_out_tokens=sum(map(len, held_out)),
        calibration_tokens=given.tokens,
        seconds=time.monotonic() - started,
        resumed_at=resumed_at,
    )


class _Run:
    """The pieces of the work, one after the other: the embedding, the layers, the head."""

    def __init__(
        self,
        source: Source,
        job: Work,
        texts: Texts,
        recipe: Recipe,
        device: torch.device,
        progress: StepProgress,
    ) -> None:
        self._source, self._job, self._texts = source, job, texts
        self._recipe, self._device = recipe, device
        self._progress = progress
        self._layers = source.config.num_layers
        self._attend = layers.Attend(source.config, texts, device)
        self._first = max(0, job.done - 1)  # the layer that this run begins with
        self._begin = time.monotonic()

    def all(self, sequences: Sequence[Sequence[int]], predicted: int) -> None:
        """Does what is not done yet.

        Args:
            sequences: token ids, in the order of the states.
            predicted: tokens of the held-out text that have one before them.
        """
        if self._job.done == 0:
            self._embed(sequences)
        for layer in range(self._first, self._layers):
            self._quantize_layer(layer)
        if self._job.done == self._layers + 1:
            self._head(sequences, predicted)

    def _embed(self, sequences: Sequence[Sequence[int]]) -> None:
        import torch

        name, source = "embedding.weight", self._source
        floats, stored = source.read(name), source.as_stored(name)
        spans = (*self._texts.calibration, *self._texts.before, *self._texts.after)
        with closing(self._states(0)) as x:
            for span, ids in zip(spans, sequences, strict=True):
                table = floats if span in self._texts.before else stored
                x.write(span, table[torch.tensor(ids)].float())
            x.sync()
        files.write_tensors(self._job.piece(0), source.by_stored_names({name: stored}))
        self._job.finished(0)

    def _quantize_layer(self, layer: int) -> None:
        self._advance(layer, 0.0)
        source, texts, attend = self._source, self._texts, self._attend
        block = source.block(layer, self._device)
        piece = layer + 1
        with closing(self._states(piece - 1)) as x, closing(self._states(piece)) as y:
            layers.through_floats(block, x, y, texts, attend)
            kept = {}
            for name, value in block.named_parameters():
                if not name.endswith(tuple(f"{matrix}.weight" for matrix in layers.MATRICES)):
                    kept[name] = source.as_stored(f"layers.{layer}.{name}")
                    value.copy_(kept[name])
            try:
                quantized = layers.quantize_block(
                    block, x, y, texts, attend, self._recipe, lambda done: self._advance(layer, done)
                )
            except QwenchatError as error:
                message = Phrase("layer {n}: {problem}", n=layer + 1, problem=error.message)
                raise type(error)(message, error.hint) from error
            y.sync()
        tensors = {f"layers.{layer}.{name}": tensor for name, tensor in (kept | quantized).items()}
        files.write_tensors(self._job.piece(piece), source.by_stored_names(tensors))
        self._job.finished(piece)

    def _head(self, sequences: Sequence[Sequence[int]], predicted: int) -> None:
        """The last norm and the head, and the perplexity before and after."""
        source, texts = self._source, self._texts
        ids = sequences[len(texts.calibration) :]
        norm, head = "norm.weight", "lm_head.weight"
        used = "embedding.weight" if source.tied else head
        stored = {norm: source.as_stored(norm), used: source.as_stored(used)}
        found = []
        with closing(self._states(self._layers)) as states:
            for spans, weight, matrix in (
                (texts.before, source.read(norm), source.read(used)),
                (texts.after, stored[norm], stored[used]),
            ):
                loss = sum(
                    self._loss(states.read(span), weight, matrix, text)
                    for span, text in zip(spans, ids[: len(spans)], strict=True)
                )
                found.append(math.exp(loss / predicted))
        if not all(map(math.isfinite, found)):
            raise CheckpointError(
                "the activations are not finite", "the checkpoint is damaged, or its training went astray"
            )
        if source.tied:
            del stored[used]
        piece = self._layers + 1
        files.write_tensors(self._job.piece(piece), source.by_stored_names(stored))
        self._job.finished(piece, before=found[0], after=found[1])

    def _loss(self, x: Tensor, norm: Tensor, head: Tensor, ids: Sequence[int]) -> float:
        """Negative log-likelihood of a text's tokens after the first, in nats, summed up.

        Args:
            x: states after the last layer, float32 [T, hidden].
            norm, head: as they are stored, on the CPU; the head is taken in pieces.
        """
        import torch
        from torch.nn import functional as F

        x = F.rms_norm(x, norm.shape, norm.to(x), self._source.config.norm_eps)[:-1]
        wanted = torch.tensor(ids[1:], device=x.device)
        total = torch.full(wanted.shape, -math.inf, device=x.device)  # log of the sum of all, so far
        of_wanted = torch.empty_like(total)
        for start in range(0, head.shape[0], _VOCABULARY_CHUNK):
            logits = x @ head[start : start + _VOCABULARY_CHUNK].to(x).T
            total = torch.logaddexp(total, logits.logsumexp(-1))
            here = (wanted >= start) & (wanted < start + logits.shape[1])
            of_wanted[here] = logits[here, wanted[here] - start]
        return float((total - of_wanted).double().sum())

    def _states(self, piece: int) -> States:
        config = self._source.config
        path = self._job.states(piece)
        return States(path, config.hidden_size, self._device, widest=config.query_size)

    def _advance(self, layer: int, fraction: float) -> None:
        """Tells how far the layers are, and how long the rest will take at the speed of this run."""
        done, rest = layer + fraction - self._first, self._layers - layer - fraction
        left = (time.monotonic() - self._begin) / done * rest if done else None
        stage = Phrase.of_number(self._layers, "quantising one layer", "quantising {count} layers")
        self._progress(Step(stage, (layer + fraction) / self._layers, left))


def _check_ids(source: Source, given: Calibration, held_out: Sequence[Sequence[int]]) -> None:
    """An id that the embedding has no row for would be a crash in the middle of the work."""
    largest = max(max(ids) for ids in (*given.sequences, *held_out))
    if largest >= source.config.vocab_size:
        raise CheckpointError(
            "{folder}: the vocabulary has the token {id}, the model only {size}",
            "the tokenizer belongs to another checkpoint",
            folder=source.folder,
            id=largest,
            size=source.config.vocab_size,
        )
