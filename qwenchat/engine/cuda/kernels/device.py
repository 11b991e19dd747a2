"""Device functions that kernels share: dependent launch, a barrier over the grid, rows in 8 bits.

Programmatic dependent launch (PDL): a kernel may start while the one before it still runs, and does with
that time what does not depend on it: it brings its weights nearer. Whoever is launched so must wait, in
every block, before it reads what an earlier kernel wrote or writes anything at all; then all earlier
kernels are done, because each of them has waited too.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

# The interpreter, which tests without a GPU run in, knows no inline assembly.
ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def start_next(PDL: tl.constexpr):
    """Lets the next kernel start, as far as the multiprocessors have room for it."""
    if PDL:
        gdc_launch_dependents()


@triton.jit
def wait_for_previous(PDL: tl.constexpr):
    """Waits until the kernels before this one are done and what they wrote can be seen."""
    if PDL:
        gdc_wait()


@triton.jit
def grid_barrier(counter, arrivals):
    """Waits until ``arrivals`` blocks have come since the counter was zero; all must be running at once."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def in_steps(row, step):
    """Quantise a number to steps, rounded, as the int8 cache holds rows; ``step`` is 0 for rows of zeros."""
    number = row / tl.maximum(step, 1e-30)
    return number + tl.where(number < 0, -0.5, 0.5)  # the cast that follows cuts off


def dependent(pdl: bool) -> dict[str, bool]:
    """The launch option that lets a kernel start before the one in front of it has ended."""
    return {"launch_pdl": True} if pdl else {}
