"""CUDA C++ compiled by NVRTC for the GPU at hand, and kept in Triton's cache folder.

NVRTC and the bindings come with torch's CUDA builds; no compiler is needed.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from triton.runtime.cache import get_cache_manager

from qwenchat.engine.cuda.kernels.hopper.sizes import Options
from qwenchat.errors import Phrase

SHARED = 232448
"""Bytes of shared memory that a block may have on Hopper."""

_FOLDER = Path(__file__).parent


class CannotCompile(Exception):
    """NVRTC or the driver will not have a source."""


def trouble() -> str | None:
    """The reason why nothing can be compiled here; None if it can. Never an exception."""
    try:
        _version()
    except Exception as error:  # noqa: BLE001 - a missing package's, a missing library's
        first_line = str(error).strip().partition("\n")[0]
        return Phrase(
            "NVRTC cannot be used: {error}", error=f"{type(error).__name__}: {first_line}".rstrip(": ")
        )
    return None


class Launch:
    """A kernel with what it is launched with, made ready once: a prompt launches hundreds.

    Args:
        function: as :func:`kernel` gives it.
        threads: of a block.
        structure: its argument, read at each launch.
        shared: bytes of shared memory.
        early: start while the kernel before it still runs; it must wait for that one by itself.
    """

    def __init__(
        self,
        function: Any,
        threads: int,
        structure: ctypes.Structure,
        *,
        shared: int = 0,
        early: bool = False,
    ) -> None:
        from cuda.bindings import driver

        self._structure = structure
        self._pointer = ctypes.c_void_p(ctypes.addressof(structure))
        config = driver.CUlaunchConfig()
        config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1
        config.blockDimX, config.sharedMemBytes = threads, shared
        if early:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
        self._config, self._function = config, function
        self._launch, self._device = driver.cuLaunchKernelEx, torch.cuda.current_device()

    def __call__(self, blocks: int) -> None:
        """Launches it on the current stream, with so many blocks."""
        config = self._config
        config.gridDimX = blocks
        # What torch.cuda.current_stream() finds in 20 us.
        config.hStream = torch._C._cuda_getCurrentRawStream(self._device)
        _checked(self._launch(config, self._function, ctypes.addressof(self._pointer), 0))


def kernel(source: str, name: str, options: Options, shared: int = 0) -> Any:
    """A kernel of a source beside this module, as the driver knows it, on the current device.

    Args:
        source: the file.
        name: the kernel's.
        options: names that the source has values for.
        shared: bytes of shared memory that it is launched with, at most.

    Raises:
        CannotCompile: it cannot be compiled or loaded here.
    """
    return _kernel(source, name, options, shared, torch.cuda.current_device())


@cache
def _kernel(source: str, name: str, options: Options, shared: int, device: int) -> Any:
    from cuda.bindings import driver

    module = _module(source, options, device)
    function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    if shared:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(function, attribute, shared))
    return function


@cache
def _module(source: str, options: Options, device: int) -> Any:
    from cuda.bindings import driver

    return _checked(driver.cuModuleLoadData(code(source, options)))


def code(source: str, options: Options) -> bytes:
    """The machine code of a source beside this module, as it is kept, or else compiled and kept.

    Args:
        source, options: as of :func:`kernel`.

    Raises:
        CannotCompile: it cannot be compiled here.
    """
    headers = {path.name: path.read_bytes() for path in sorted(_FOLDER.glob("*.cuh"))}
    text = (_FOLDER / source).read_bytes()
    flags = [b"--gpu-architecture=sm_90a", b"--std=c++17", b"-DSHARED=%d" % SHARED]
    flags += [f"-D{name}={value}".encode() for name, value in options]
    key = hashlib.sha256(b"\0".join((text, *headers.values(), *flags, _version()))).hexdigest()
    kept = get_cache_manager(key)
    name = f"{source}.cubin"
    path = kept.get_file(name)
    if path is not None:
        return Path(path).read_bytes()
    cubin = _compile(source, text, headers, flags)
    kept.put(cubin, name, binary=True)
    return cubin


def boxes(address: int, rows: int, row: int, box: int) -> list[int]:
    """A tensor map of so many rows of ``row`` bytes, 128 or 256, in boxes of ``box`` rows of 128 bytes.

    Raises:
        CannotCompile: the driver will not have it.
    """
    from cuda.bindings import driver

    types = driver.CUtensorMapDataType
    size = row // 128
    made = _checked(
        driver.cuTensorMapEncodeTiled(
            types.CU_TENSOR_MAP_DATA_TYPE_UINT16 if size == 2 else types.CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2,
            address,
            [driver.cuuint64_t(n) for n in (128, rows)],
            [driver.cuuint64_t(row)],
            [driver.cuuint32_t(n) for n in (128 // size, box)],
            [driver.cuuint32_t(1)] * 2,
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return [int(word) for word in made.opaque]


def _version() -> bytes:
    from cuda.bindings import nvrtc

    return repr(_checked(nvrtc.nvrtcVersion())).encode()


def _compile(name: str, code: bytes, headers: dict[str, bytes], flags: Sequence[bytes]) -> bytes:
    from cuda.bindings import nvrtc

    names = [header.encode() for header in headers]
    program = _checked(
        nvrtc.nvrtcCreateProgram(code, name.encode(), len(headers), list(headers.values()), names)
    )
    try:
        done = nvrtc.nvrtcCompileProgram(program, len(flags), list(flags))
        if int(done[0]):
            log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise CannotCompile(log.decode(errors="replace").strip("\0 \n"))
        cubin = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc.nvrtcGetCUBIN(program, cubin))
        return bytes(cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a call gave besides its error code."""
    error, *values = answer
    if int(error):
        raise CannotCompile(str(error))
    return values[0] if len(values) == 1 else tuple(values)
