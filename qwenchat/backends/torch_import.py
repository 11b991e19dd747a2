"""Imports torch while the user types, without keeping the prompt from hearing keys.

Whatever holds the interpreter's lock for long deafens the thread that waits for Ctrl-C. While torch is
imported and a model is loaded that is two things: opening torch's libraries, and the garbage
collector, which walks all that was made so far again and again. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TORCH_LIBRARIES = ("libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so", "libtorch.so")


def open_torch_libraries() -> None:
    """Opens torch's shared libraries, so that importing torch finds them open.

    The import itself would do it holding the interpreter's lock: 0.2 s on the CPU, longer from a cold
    disk or with CUDA. A foreign function is called without the lock. What cannot be opened here is
    left to the import, which knows how to tell why. Only on Linux.
    """
    # GNU's OpenMP, which torch has, lets its threads look for work so often before they sleep. Its own number
    # is so high that they keep others from the processors: our kernels after a prefill for two tokens, and
    # torch's own where other programs work too (11 tokens a second with this, 4 without).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    if sys.platform != "linux" or "torch" in sys.modules:
        return
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent / "lib"
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    # The first as torch opens it: for the libraries after it to find what they need.
    dlopen(os.fsencode(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
    for name in _TORCH_LIBRARIES:
        if (folder / name).exists():
            dlopen(os.fsencode(folder / name), os.RTLD_NOW)


@contextmanager
def torch_libraries_opening() -> Iterator[None]:
    """Does :func:`open_torch_libraries` in a thread; at the end of the block they are open."""
    thread = threading.Thread(target=open_torch_libraries, name="torch-libraries", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()  # also after an error: a program must not end while a library is being opened


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Lets the collector rest for a while that makes many objects and little garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
