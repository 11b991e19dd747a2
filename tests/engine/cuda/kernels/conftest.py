"""What tests of the kernels share: the interpreter as quiet and as fast as it gets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def interpreter(device: torch.device) -> Iterator[None]:
    """Where there is no GPU: numpy would tell of the zeros that a ``where`` then takes care of."""
    if device.type == "cpu":
        from triton.runtime import interpreter

        # Its check of every sum and product for overflow is half of its time; compiled code has none either.
        interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers whichever tests are run."""
    torch.manual_seed(0)
