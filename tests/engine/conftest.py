"""What the engine's tests share: the device that the CUDA kernels run on."""

from __future__ import annotations

import os

import pytest
import torch

from qwenchat.engine import plan

# Without a GPU the kernels run in Triton's interpreter, which is chosen when triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are loaded to run on torch alone."""
    monkeypatch.setattr(plan, "plan", lambda *args: plan.Plan())


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
