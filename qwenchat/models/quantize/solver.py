"""Quantises one matrix: auto-gptq's GPTQ, unchanged, on any device and under any environment.

Owns the import of auto-gptq, which is large and loud, and what its class needs to run here. Knows nothing of
the model that a matrix belongs to, or of files.

GPTQ rounds a matrix column by column and lets the columns that follow make up for the error, weighted by
how the inputs go together: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers".
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from qwenchat.errors import CheckpointError, QwenchatError

if TYPE_CHECKING:
    from torch import Tensor

DAMP_PERCENT = 0.01
"""Of the mean of the Hessian's diagonal, added to it, so that it can be inverted."""
BLOCK = 128
"""Columns whose errors are carried on together."""
_LEAST_SCALE = 2.0**-24  # the smallest that float16 holds


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe of quantising: bits, group size, act-order.

    Attributes:
        bits: of a code, 4 or 8.
        group_size: inputs that share a scale; -1 for all of them.
        act_order: whether the inputs that matter most are rounded first (``desc_act``).
    """

    bits: int
    group_size: int
    act_order: bool = False


def import_gptq() -> Any:
    """The module of auto-gptq that has the algorithm.

    Its import warns of deprecated names in torch and logs that it has no CUDA kernels. Neither matters here,
    and what others log and warn of meanwhile is not held back beyond the import.

    Raises:
        QwenchatError: auto-gptq is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("auto_gptq") is None:
        raise QwenchatError(
            "quantising needs auto-gptq, which is not installed",
            "it comes with qwenchat for Python 3.11 on Linux and Windows (x86-64); "
            "what is quantised there runs everywhere",
        )
    log = logging.getLogger("auto_gptq")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from auto_gptq.quantization import gptq
    except Exception as error:  # an old package among new ones may fail in any way
        raise QwenchatError(
            "auto-gptq cannot be imported: {reason}",
            "install qwenchat anew, in an environment of its own",
            reason=f"{type(error).__name__}: {error}",
        ) from error
    finally:
        log.setLevel(level)
    return gptq


class Solver:
    """Finds the codes of matrices that multiply the same inputs.

    The rows of a matrix do not know of each other in GPTQ, so such matrices are solved as one.

    Args:
        weights: float32 [out, in] each, all on one device.
        recipe: how they are quantised.
    """

    def __init__(self, weights: Sequence[Tensor], recipe: Recipe) -> None:
        import torch
        from torch import nn

        self._recipe = recipe
        self._outputs = [weight.shape[0] for weight in weights]
        self._module = import_gptq()
        with torch.device("meta"):
            linear = nn.Linear(weights[0].shape[1], sum(self._outputs), bias=False)
        linear.weight = nn.Parameter(torch.cat(list(weights)), requires_grad=False)
        self._gptq = self._module.GPTQ(linear)
        self._gptq.quantizer = _quantizer(self._module)
        self._gptq.quantizer.configure(recipe.bits, perchannel=True, sym=True, mse=False)

    def add(self, inputs: Tensor) -> None:
        """Takes account of inputs that the matrices will meet, float32 [T, in]."""
        with _undisturbed(self._module):
            self._gptq.add_batch(inputs, None)

    def solve(self) -> list[dict[str, Tensor]]:
        """The checkpoint's four tensors of each matrix, on the CPU. The solver is of no more use then.

        Raises:
            CheckpointError: inputs or weights are not finite.
            QwenchatError: the inputs say too little.
        """
        import torch

        from qwenchat.engine.weights import gptq

        recipe, solver = self._recipe, self._gptq
        if not solver.H.diagonal().isfinite().all():
            raise CheckpointError(
                "the activations are not finite", "the checkpoint is damaged, or its training went astray"
            )
        try:
            with _undisturbed(self._module):
                scales, zeros, g_idx = solver.fasterquant(
                    blocksize=BLOCK,
                    percdamp=DAMP_PERCENT,
                    group_size=recipe.group_size,
                    actorder=recipe.act_order,
                )
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise QwenchatError(
                "the calibration says too little of the inputs to quantise for them",
                "give more and more varied text with --calibration",
            ) from error
        rounded = solver.layer.weight.data  # [out, in]
        if not (rounded.isfinite().all() and scales.isfinite().all()):
            raise CheckpointError("weights are not finite, or too large for float16")
        of_input = g_idx.long()
        stored = []
        for values, scale, zero in zip(
            rounded.split(self._outputs), scales.split(self._outputs), zeros.split(self._outputs), strict=True
        ):
            codes = (values / scale[:, of_input]).round_().add_(zero[:, of_input])
            packed = gptq.pack(
                codes.to(torch.uint8).T.cpu(),
                scale.T.to(torch.float16).contiguous().cpu(),
                zero.T.to(torch.uint8).cpu(),
                bits=recipe.bits,
            )
            stored.append(packed | {"g_idx": g_idx.cpu()})
        return stored


def _quantizer(module: Any) -> Any:
    """auto-gptq's quantiser, with scales as the checkpoint will hold them.

    auto-gptq chooses codes for float32 scales and stores float16. Rounded first, the error of the scales is
    one of those that the following columns make up for.
    """

    class Quantizer(module.Quantizer):  # type: ignore[misc]
        def find_params(self, x: Tensor, weight: bool = False) -> None:
            super().find_params(x, weight=weight)
            self.scale: Tensor = self.scale.half().float().clamp_(min=_LEAST_SCALE)

    return Quantizer()


@contextmanager
def _undisturbed(module: Any) -> Iterator[None]:
    """Lets auto-gptq's code run without a GPU, and whatever the environment says.

    It waits for the GPU whether there is one or not; and where a variable DEBUG is set, it compares with
    outputs that nobody has. So its module, and nobody else's, meets stand-ins for the time of a call.
    """
    import torch

    before = module.torch, module.os
    module.os = SimpleNamespace(environ={}, path=os.path)
    if not torch.cuda.is_available():
        module.torch = _TorchWithoutGPU()
    try:
        yield
    finally:
        module.torch, module.os = before


class _TorchWithoutGPU:
    """torch, but for a GPU that has nothing to be waited for."""

    cuda = SimpleNamespace(synchronize=lambda: None)

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch, name)
