"""GPTQ checkpoints of other architectures than Qwen's first, by auto-gptq, which needs a GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qwenchat.backends.huggingface.files import HubFiles
from qwenchat.engine.config import refuse_mixed
from qwenchat.engine.fields import Fields
from qwenchat.errors import CheckpointError, quoted
from qwenchat.files.json_values import read_json

if TYPE_CHECKING:
    import torch


def check_gptq(files: HubFiles, device: torch.device) -> None:
    """Raises CheckpointError where there is no GPU or no auto-gptq for it, or it would read it otherwise."""
    path = files.folder / "config.json"
    section = files.config.get("quantization_config")
    if section is None:
        path = files.folder / "quantize_config.json"
        section = read_json(path)
    refuse_mixed(path, section)
    if (kind := section.get("checkpoint_format", "gptq")) != "gptq":
        raise CheckpointError(
            "{name}: {key} is {value}, which is not computed with",
            "look for the model's unquantised safetensors, or for a GGUF file",
            name=path,
            key="checkpoint_format",
            value=quoted(kind),
        )
    _check_zeros(files, Fields(path, section).integer("bits", least=2, most=8))
    if device.type != "cuda":
        raise CheckpointError(
            "{name}: the weights are quantised with GPTQ, which takes a CUDA GPU for this model",
            "look for the model's unquantised safetensors, or for a GGUF file",
            name=files.name,
        )
    try:
        with _silent():
            import auto_gptq as auto_gptq
    except ImportError as error:
        raise CheckpointError(
            "{name}: the weights are quantised with GPTQ, and auto-gptq is not here: {reason}",
            "install auto-gptq 0.7.1, which takes Python 3.11 or older",
            name=files.name,
            reason=error,
        ) from error


def _check_zeros(files: HubFiles, bits: int) -> None:
    """Raises CheckpointError where zero points are not stored minus one, as auto-gptq reads all of them.

    Our own engine reads such a checkpoint as it is stored. auto-gptq's kernels repack the zero points for
    themselves, and cannot be told.
    """
    from qwenchat.engine.weights.tensor_files import TensorFiles
    from qwenchat.engine.weights.zero_points import contradicts

    tensors = TensorFiles(files.folder)
    first = next((name for name in tensors if name.endswith(".qzeros")), None)
    if first is None or bits not in (4, 8):
        return
    zeros = tensors.read(first)
    if zeros.ndim != 2 or zeros.element_size() != 4:
        raise CheckpointError(
            "{name}: the tensor {tensor} holds no zero points", name=tensors.path(first), tensor=first
        )
    if contradicts(zeros.numpy(), bits, zeros_minus_one=True):
        raise CheckpointError(
            "{name}: its zero points are stored as they are (gptq_v2) and not minus one, as its label "
            "says (gptq): auto-gptq would compute with wrong ones",
            "look for the model's unquantised safetensors, or for a GGUF file",
            name=files.name,
        )


def read_gptq(files: HubFiles, device: torch.device, dtype: torch.dtype) -> Any:
    """The model of transformers, with auto-gptq's layers in it."""
    from auto_gptq import AutoGPTQForCausalLM

    with _silent():
        wrapped = AutoGPTQForCausalLM.from_quantized(
            str(files.folder),
            device=f"{device.type}:{device.index or 0}",  # which it takes for none without a number
            torch_dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    return wrapped.model


@contextmanager
def _silent() -> Iterator[None]:
    """auto-gptq logs to the terminal which of its kernels it has not, by loggers with levels of their own."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
