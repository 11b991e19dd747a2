"""What the first kernels wait for, done while the weights are read.

Triton reads all of itself before its first kernel, to name it; torch's libraries set themselves up at their
first call; and CUDA C++ is compiled at the first start. It is only done earlier: whatever goes wrong here is
met again, and told, where it is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import torch
from torch.nn import functional as F

from qwenchat.engine.cuda.kernels.hopper.compiled import code
from qwenchat.engine.cuda.kernels.hopper.sizes import Options

_begun: list[threading.Thread] = []


def begin(
    device: torch.device, dtype: torch.dtype, sources: Callable[[], Iterable[tuple[str, Options]]]
) -> None:
    """Begins, in threads, unless it has been begun.

    Args:
        device, dtype: of the model.
        sources: tells what it will need compiled.
    """
    if _begun:
        return
    _begun.extend((_thread(_name_kernels), _thread(partial(_set_up, device, dtype))))
    _thread(partial(_compile, sources))


def finish() -> None:
    """Waits for what touches the device: it must not while a graph is captured."""
    for thread in _begun:
        thread.join()


def _thread(work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _name_kernels() -> None:
    """Has Triton find what it keeps for good: what names it and the compiler."""
    from triton.compiler.compiler import make_backend
    from triton.runtime import driver
    from triton.runtime.cache import triton_key

    triton_key()
    make_backend(driver.active.get_current_target()).hash()


@torch.inference_mode()
def _set_up(device: torch.device, dtype: torch.dtype) -> None:
    """Has torch load its libraries for products and attention."""
    x = torch.zeros(1, 1, 16, 128, dtype=dtype, device=device)
    F.linear(x, x[0, 0])
    F.scaled_dot_product_attention(x, x, x, is_causal=True)


def _compile(sources: Callable[[], Iterable[tuple[str, Options]]]) -> None:
    for source, options in sources():
        _thread(partial(code, source, options))
