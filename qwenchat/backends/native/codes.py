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
from qwenchat.engine.config import ModelConfig
from qwenchat.errors import Phrase
from qwenchat.files.opening import reason_of

if TYPE_CHECKING:
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
    """

    runner: CodesRunner
    team: Team
    dtype: str


def is_candidate(config: ModelConfig, request: LoadRequest) -> bool:
    """Whether this way is worth a look, by what is known before a file is opened.

    Raises:
        UsageError: the request has a device or a dtype that there is not.
    """
    from qwenchat.engine.cpu.support import unsupported_reason

    if config.quant is None:
        return False
    kind, dtype = predict_names(request.device, request.dtype)
    return kind == "cpu" and unsupported_reason(config, dtype) is None


def _kept(folder: Path) -> Path | None:
    """The file in which the blocks of a model that this program made are kept; it goes with the model."""
    from qwenchat.models import catalog

    return folder / KEPT if folder.parent == catalog.made_models_dir() else None


def load_in_codes(
    folder: Path,
    request: LoadRequest,
    context: int,
    *,
    preflight: Callable[[Need, int], None],
    relabelled: Callable[[], None],
) -> InCodes | None:
    """Loads a checkpoint; None if the other way has to be taken.

    Args:
        context: positions of the KV cache, which the memory check counts.
        preflight, relabelled: as of :func:`qwenchat.engine.weights.loader.load_model`.

    Raises:
        CheckpointError, InsufficientMemoryError: as there.
    """
    from qwenchat.engine.cpu.codes_model import CodesModel
    from qwenchat.engine.cpu.compiled import CannotCompile
    from qwenchat.engine.cpu.reading import read_weights, survey
    from qwenchat.engine.cpu.runner import CodesRunner
    from qwenchat.engine.memory import check_memory, ran_out_loading

    _, dtype = predict_names(request.device, request.dtype)
    int8 = request.kv_cache == "int8"
    found = survey(folder, dtype=_NAMES[dtype], context=context, int8_cache=int8)
    if found is None:
        return None
    try:
        team = open_cpu_kernels(request.threads, request.progress, request.notice)
    except CannotCompile:
        return None
    preflight(found.needed, check_memory(found.needed, device="cpu", dtype=dtype))
    if found.relabelled:
        relabelled()
    try:
        weights = read_weights(
            found,
            team,
            lambda fraction: request.progress(LOADING, fraction),
            kept=_kept(folder),
            unkept=lambda error: request.notice(
                Phrase(
                    "the prepared weights cannot be kept in {folder}: {reason}",
                    folder=folder,
                    reason=reason_of(error),
                )
            ),
        )
    except MemoryError:
        raise ran_out_loading() from None
    # As exact as float32 where that was asked for; else what is rounded is far less than bfloat16 rounds.
    model = CodesModel(weights, team, dtype=dtype, exact=request.dtype == "float32")
    return InCodes(CodesRunner(model, int8_cache=int8), team, dtype)
