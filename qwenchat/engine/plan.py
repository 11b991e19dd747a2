"""The plan: the kernels that a device can use, and the layout in which they read the matrices.

Decoding multiplies every matrix by a single row, so its speed is the speed at which the matrix is read. Our
own kernels, on a GPU and on a CPU, read quantised matrices in their codes. Where they cannot be used, which
is said, plain torch reads floats.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from qwenchat.engine.cpu.plain import pack_for_cpu
from qwenchat.engine.cuda.linear import RowLayout
from qwenchat.engine.memory import ran_out_loading
from qwenchat.errors import Phrase

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.cpu.codes_model import CodesModel
    from qwenchat.engine.cpu.model import CPUModel
    from qwenchat.engine.cpu.runner import CodesRunner
    from qwenchat.engine.cpu.team import Team
    from qwenchat.engine.cuda.decode import Weights
    from qwenchat.engine.model import Qwen
    from qwenchat.engine.torch_runner import TorchRunner
    from qwenchat.engine.weights.quantized_layout import QuantizedLayout


ON_HOPPER, ON_GPUS = "CUDA C++, CUDA graph", "Triton, CUDA graph"


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a model's matrices, known before they are loaded.

    Attributes:
        layout: brings them there; None where plain torch multiplies.
        unsupported_reason: why it does, and not our kernels.
        team: what runs the CPU kernels, or None.
    """

    layout: QuantizedLayout | None = None
    unsupported_reason: str | None = None
    team: Team | None = None


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernels and their weights.

    Attributes:
        name: for people.
        model: ready to run on them.
        weights: as the CUDA kernels read them, or None where these are not used.
        unsupported_reason: why our kernels are not used, or not the fastest that the GPU could have.
    """

    name: str
    model: Qwen | CPUModel
    weights: Weights | None = None
    unsupported_reason: str | None = None


def plan(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, open_team: Callable[[], Team]
) -> Plan:
    """Plan which kernels multiply a model's matrices on a device.

    Args:
        open_team: opens the CPU kernels; it raises CannotCompile where there are none.
    """
    if device.type == "cuda":
        reason = reads_packed(config, device)
        if reason:
            return Plan(unsupported_reason=reason)
        from qwenchat.engine.cuda import hopper, warm

        warm.begin(device, dtype, partial(hopper.sources, config, device, dtype))
        return Plan(RowLayout(dtype))
    from qwenchat.engine.cpu.compiled import CannotCompile
    from qwenchat.engine.cpu.linear import BlockLayout
    from qwenchat.engine.cpu.support import unsupported_reason

    reason = unsupported_reason(config, str(dtype).removeprefix("torch."))
    if reason is None:
        try:
            team = open_team()
        except CannotCompile as error:
            reason = str(error)
        else:
            return Plan(BlockLayout(team), team=team)
    return Plan(unsupported_reason=reason)


def reads_packed(config: ModelConfig, device: torch.device) -> str | None:
    """The reason why quantised layers cannot stay packed on a CUDA ``device``; None if they can.

    Never an exception: whatever is wrong with Triton or what it needs is a reason to do without.
    """
    if importlib.util.find_spec("triton") is None:
        return Phrase("triton is not installed")
    try:
        from qwenchat.engine.cuda import decode
    except Exception as error:  # noqa: BLE001 - a triton that breaks at import is as good as none
        return Phrase("triton cannot be used: {error}", error=_first_line(error))
    return decode.unsupported_reason(config, device) or _triton_trouble()


def name_on_gpu(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, *, int8_cache: bool = False
) -> str:
    """The name of the kernels that a model of these shapes gets on a CUDA device."""
    from qwenchat.engine.cuda import hopper

    fits = hopper.is_hopper(device) and hopper.fits(config, dtype, int8_cache=int8_cache)
    return ON_HOPPER if fits else ON_GPUS


def _triton_trouble() -> str | None:
    """The reason why Triton cannot launch here; it asks the device through a library that it compiles."""
    import triton

    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:  # noqa: BLE001 - a compiler's, a subprocess's, a missing library's
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            return Phrase("triton needs a C compiler, and there is no gcc or clang")
        if not header.exists():
            return Phrase("triton compiles against Python's headers, and there is no {header}", header=header)
        return Phrase("triton cannot be used: {error}", error=_first_line(error))
    return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")


def pack(model: Qwen, plan: Plan, dtype: torch.dtype, *, int8_cache: bool = False) -> Kernels:
    """Makes a model that was loaded by a plan ready to run.

    Done layer by layer, so that no more than one matrix is held twice.

    Args:
        int8_cache: it will hold keys and values in 8 bits.

    Raises:
        InsufficientMemoryError: there is no room for that one.
    """
    if plan.team is not None:
        from qwenchat.engine.cpu import assembly

        return Kernels(plan.team.name, assembly.assemble(model, dtype, plan.team))
    if model.device.type != "cuda":
        return Kernels(pack_for_cpu(model), model, unsupported_reason=plan.unsupported_reason)
    reason = plan.unsupported_reason
    if reason is None:
        from qwenchat.engine.cuda import decode, hopper

        slower: str | None = None
        try:
            if hopper.is_hopper(model.device):
                slower = hopper.unsupported_reason(model, int8_cache=int8_cache)
                if slower is None:
                    return Kernels(ON_HOPPER, model, hopper.assemble(model))
            weights = decode.assemble(model)
        except torch.OutOfMemoryError:
            raise ran_out_loading() from None
        if weights is not None:
            return Kernels(ON_GPUS, model, weights, slower)
        reason = Phrase("the two halves of its MLP have their inputs in different orders")
    return Kernels("plain torch", model, unsupported_reason=reason)


def new_runner(
    model: Qwen | CPUModel | CodesModel, weights: Weights | None, *, int8_cache: bool = False
) -> TorchRunner | CodesRunner:
    """What runs a model on its kernels.

    Args:
        model, weights: as of :class:`Kernels`.
        int8_cache: hold keys and values in 8 bits.
    """
    from qwenchat.engine.cpu.codes_model import CodesModel

    if isinstance(model, CodesModel):
        from qwenchat.engine.cpu.runner import CodesRunner

        return CodesRunner(model, int8_cache=int8_cache)
    if weights is None:
        from qwenchat.engine.torch_runner import TorchRunner

        return TorchRunner(model, int8_cache=int8_cache)
    from qwenchat.engine.cuda.runner import GraphRunner

    return GraphRunner(cast("Qwen", model), weights, int8_cache=int8_cache)
