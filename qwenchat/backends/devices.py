"""The device and the dtype that a model computes on and in: what they may be called, what "auto" is here.

With torch, which says what there is, and without it, for who only wants to tell what would be taken.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from qwenchat.errors import Names, Phrase, UsageError, shorten
from qwenchat.settings import choices

if TYPE_CHECKING:
    import torch


DTYPES = get_args(choices.DType)


def pick_device(name: str) -> torch.device:
    """The device of that name: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, index = _kind_of_device(name)
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        message = Phrase("no such device: {name}", name=name)
        raise UsageError(message, "use --device cpu", in_chat="start qwenchat with --device cpu")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name, one of :data:`DTYPES`; "auto" for what the device does well.

    Raises:
        UsageError: there is no such dtype.
    """
    import torch

    own = torch.cpu._is_avx512_bf16_supported
    dtype: torch.dtype = getattr(torch, _name_of_dtype(name, device.type, own))
    return dtype


def predict_device(device: str, dtype: str) -> tuple[str, int]:
    """Predict the kind of :func:`pick_device`, and the bytes of a value; errors are those of the next one."""
    kind, name = predict_names(device, dtype)
    return kind, 4 if name == "float32" else 2


def predict_names(device: str, dtype: str) -> tuple[str, str]:
    """Predict :func:`pick_device` and :func:`pick_dtype`, without the seconds that torch takes.

    Returns:
        "cpu" or "cuda", and the dtype's name. Whether there is a device "cuda:N" is not looked for.

    Raises:
        UsageError: a device or a dtype cannot have that name.
    """
    kind = ("cuda" if _has_gpu() else "cpu") if device == "auto" else _kind_of_device(device)[0]
    return kind, _name_of_dtype(dtype, kind, _multiplies_bfloat16)


def predict_room(device: str) -> int:
    """Predict the bytes that a model has on a device, without torch: of a GPU all, else what is free now.

    Raises:
        UsageError: a device cannot have that name.
    """
    kind, index = _kind_of_device(device) if device != "auto" else ("cuda" if _has_gpu() else "cpu", "")
    if kind == "cuda":
        return _gpu_bytes(int(index or 0))
    from qwenchat.engine.memory import available_bytes

    return available_bytes("cpu")


def _kind_of_device(name: str) -> tuple[str, str]:
    """ "cpu" or "cuda", and the number of a GPU if one is named."""
    kind, _, index = name.partition(":")
    numbered = index.isascii() and index.isdecimal() and len(index) <= 3
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not numbered)):
        raise UsageError("the device is {value!r}, expected auto, cpu, cuda or cuda:N", value=shorten(name))
    return kind, index


def _name_of_dtype(name: str, kind: str, multiplies_bfloat16: Callable[[], bool]) -> str:
    """The dtype that "auto" stands for on a kind of device; else the name itself."""
    if name not in DTYPES:
        raise UsageError("the dtype is {value!r}, expected {names}", value=name, names=Names(DTYPES))
    if name != "auto":
        return name
    if kind == "cuda":
        return "float16"
    # Half the bytes are half the time, but only where the processor multiplies bfloat16 itself.
    return "bfloat16" if multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    """True if the processor multiplies bfloat16, found out without torch."""
    try:
        from llvmlite.binding import get_host_cpu_features

        return bool(get_host_cpu_features().get("avx512bf16"))
    except (ImportError, OSError, RuntimeError):  # none, or a processor that it cannot describe
        return False


def _has_gpu() -> bool:
    """True if torch is built for CUDA, and the driver has a GPU for it."""
    torch = importlib.util.find_spec("torch")
    library = "torch_cuda.dll" if os.name == "nt" else "libtorch_cuda.so"
    if torch is None or torch.origin is None or not (Path(torch.origin).parent / "lib" / library).exists():
        return False
    count = ctypes.c_int()
    try:
        driver = _driver()
        # https://docs.nvidia.com/cuda/cuda-driver-api: both give 0 for success.
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return False
    return not failed and count.value > 0


def _gpu_bytes(index: int) -> int:
    """The memory of a GPU; 0 if there is none of that number."""
    device, size = ctypes.c_int(), ctypes.c_size_t()
    try:
        driver = _driver()
        failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index)
        failed = failed or driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    except (OSError, AttributeError):
        return 0
    return 0 if failed else size.value


def _driver() -> ctypes.CDLL:
    """The GPU's driver; raises OSError where there is none."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
