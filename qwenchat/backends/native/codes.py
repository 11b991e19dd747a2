"""A quantised checkpoint on a CPU, without torch: looked through, read, and ready to run.

Owns which checkpoints and requests that is for. For any other there is the way with torch, in ``load``, which
also tells what keeps our kernels from being used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.backends.devices import predict_names
from qwenchat.backends.native.kernel_cache import open_cpu_kernels
from qwenchat.backends.request import LOADING, LoadRequest
from qwenchat.errors import Phrase
from qwenchat.files.opening import reason_of

if TYPE_CHECKING:
    from qwenchat.backends.native.place import Place
    from qwenchat.engine.cpu.gguf_reading import GGUFSurvey
    from qwenchat.engine.cpu.reading import Survey
    from qwenchat.engine.cpu.runner import CodesRunner
    from qwenchat.engine.cpu.team import Team
    from qwenchat.engine.memory import Need

KEPT = "cpu-blocks.bin"
"""The name of that file in the model's folder."""
_NAMES = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True)
class InCodes:
    """What is ready to run.

    Attributes:
        dtype: of the keys and values, by torch's name.
        context: positions of the KV cache.
    """

    runner: CodesRunner
    team: Team
    dtype: str
    context: int


def is_candidate(place: Place, request: LoadRequest) -> bool:
    """Whether this way is worth a look, by what is known before a file is opened.

    Raises:
        UsageError: the request has a device or a dtype that there is not.
    """
    from qwenchat.engine.cpu.support import unsupported_reason

    config = place.config
    if config.quant is None and place.head is None:
        return False
    kind, dtype = predict_names(request.device, request.dtype)
    return kind == "cpu" and unsupported_reason(config, dtype) is None


def _kept(folder: Path) -> Path | None:
    """The file in which a model's blocks are kept: of one that this program made, or was told to prepare."""
    from qwenchat.models import catalog, prepared

    if folder.parent == catalog.made_models_dir():
        return folder / KEPT
    file = prepared.file_of(folder)
    return file if file.exists() else None


def survey_in_codes(place: Place, request: LoadRequest, context: int) -> Survey | GGUFSurvey | None:
    """Looks through a checkpoint; None if the other way has to be taken.

    Args:
        context: positions of the KV cache, which is counted.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor in it is.
    """
    from qwenchat.engine.cpu.gguf_reading import survey_gguf
    from qwenchat.engine.cpu.reading import survey
    from qwenchat.engine.weights.gguf_tensors import GGUFTensors

    _, dtype = predict_names(request.device, request.dtype)
    int8, checkpoint = request.kv_cache == "int8", place.checkpoint()
    tensors, name = checkpoint.tensors, _NAMES[dtype]
    if isinstance(tensors, GGUFTensors):
        return survey_gguf(tensors, checkpoint.config, dtype=name, context=context, int8_cache=int8)
    return survey(checkpoint, dtype=name, context=context, int8_cache=int8)


def load_in_codes(
    place: Place,
    request: LoadRequest,
    context: int,
    *,
    fit: Callable[[Need], Need],
    relabelled: Callable[[], None],
) -> InCodes | None:
    """Loads a checkpoint; None if the other way has to be taken.

    Args:
        context: positions of the KV cache, which the memory check counts.
        fit: given what memory is needed, checks it, and may shorten the context.
        relabelled: as of :func:`qwenchat.engine.weights.loader.load_model`.

    Raises:
        CheckpointError, InsufficientMemoryError: as there.
    """
    from qwenchat.engine.cpu.codes_model import CodesModel
    from qwenchat.engine.cpu.compiled import CannotCompile
    from qwenchat.engine.cpu.gguf_reading import GGUFSurvey, read_gguf_weights
    from qwenchat.engine.cpu.reading import read_weights
    from qwenchat.engine.cpu.runner import CodesRunner
    from qwenchat.engine.memory import ran_out_loading

    _, dtype = predict_names(request.device, request.dtype)
    found = survey_in_codes(place, request, context)
    if found is None:
        return None
    try:
        team = open_cpu_kernels(request.threads, request.progress, request.notice)
    except CannotCompile:
        return None
    context, kept = fit(found.needed).context, _kept(place.path)

    def told(fraction: float) -> None:
        request.progress(LOADING, fraction)

    def unkept(error: OSError) -> None:
        request.notice(
            Phrase(
                "the prepared weights cannot be kept in {folder}: {reason}",
                folder=kept.parent if kept else place.path,
                reason=reason_of(error),
            )
        )

    def unfit() -> None:
        if kept != place.path / KEPT:  # the built-in model's was not asked for, and is nobody's business
            request.notice(
                Phrase(
                    "{name}: what was prepared of it is damaged or of another state; it is prepared anew",
                    name=request.name,
                )
            )

    try:
        if isinstance(found, GGUFSurvey):
            weights = read_gguf_weights(found, told)
        else:
            if found.relabelled:
                relabelled()
            weights = read_weights(found, team, told, kept=kept, unkept=unkept, unfit=unfit)
    except MemoryError:
        raise ran_out_loading() from None
    # As exact as float32 where that was asked for; else what is rounded is far less than bfloat16 rounds.
    model = CodesModel(weights, team, dtype=dtype, exact=request.dtype == "float32")
    return InCodes(CodesRunner(model, int8_cache=request.kv_cache == "int8"), team, dtype, context)
