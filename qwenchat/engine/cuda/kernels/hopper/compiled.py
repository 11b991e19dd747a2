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
        grid, threads: blocks, and threads of one.
        structure: its first argument, read at each launch.
        numbers: whole numbers behind that.
        shared: bytes of shared memory.
    """

    def __init__(
        self, function: Any, grid: tuple[int, int], threads: int, structure: ctypes.Structure, *numbers: int,
        shared: int = 0,
    ) -> None:  # fmt: skip
        from cuda.bindings import driver

        self._values = [structure, *(ctypes.c_int(n) for n in numbers)]
        self._pointers = (ctypes.c_void_p * len(self._values))(*map(ctypes.addressof, self._values))
        self._before = (function, *grid, 1, threads, 1, 1, shared)
        self._address = ctypes.addressof(self._pointers)
        self._launch = driver.cuLaunchKernel

    def __call__(self) -> None:
        """Launches it on the current stream."""
        stream = torch.cuda.current_stream().cuda_stream
        _checked(self._launch(*self._before, stream, self._address, 0))


def kernel(source: str, name: str, options: tuple[tuple[str, int], ...], shared: int = 0) -> Any:
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
def _kernel(source: str, name: str, options: tuple[tuple[str, int], ...], shared: int, device: int) -> Any:
    from cuda.bindings import driver

    module = _module(source, options, device)
    function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    if shared:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(function, attribute, shared))
    return function


@cache
def _module(source: str, options: tuple[tuple[str, int], ...], device: int) -> Any:
    from cuda.bindings import driver

    headers = {path.name: path.read_bytes() for path in sorted(_FOLDER.glob("*.cuh"))}
    code = (_FOLDER / source).read_bytes()
    flags = [b"--gpu-architecture=sm_90a", b"--std=c++17", b"-DSHARED=%d" % SHARED]
    flags += [f"-D{name}={value}".encode() for name, value in options]
    key = hashlib.sha256(b"\0".join((code, *headers.values(), *flags, _version()))).hexdigest()
    kept = get_cache_manager(key)
    name = f"{source}.cubin"
    path = kept.get_file(name)
    if path is None:
        cubin = _compile(source, code, headers, flags)
        kept.put(cubin, name, binary=True)
    else:
        cubin = Path(path).read_bytes()
    return _checked(driver.cuModuleLoadData(cubin))


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
