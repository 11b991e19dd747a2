"""The layouts that matrices are held in multiply like the matrix itself."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import qwenchat.engine.cuda
from qwenchat.engine.cpu.plain import OneDNNLinear, pack_for_cpu
from qwenchat.engine.plan import reads_packed


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 192), (192, 64), (576, 577)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_packed_layer_gives_what_the_layer_gave(
    dtype: torch.dtype, inputs: int, outputs: int, bias: bool
) -> None:
    torch.manual_seed(inputs)
    model = nn.Sequential(nn.Sequential(nn.Linear(inputs, outputs, bias=bias))).to(dtype)
    model.requires_grad_(False)
    inputs_by_length = [torch.randn(rows, inputs, dtype=dtype) for rows in (1, 2, 130)]
    expected = [model(x) for x in inputs_by_length]
    pack_for_cpu(model)
    for x, reference in zip(inputs_by_length, expected, strict=True):
        found = model(x)
        assert found.shape == reference.shape
        distance = (found.float() - reference.float()).norm() / reference.float().norm()
        assert distance < (1e-6 if dtype is torch.float32 else 5e-3)


def test_the_name_says_what_multiplies() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Sequential(nn.Linear(8, 8)).to(dtype).requires_grad_(False)
        packed = pack_for_cpu(model) == "plain torch with oneDNN"
        assert packed == isinstance(model[0], OneDNNLinear)
        assert not packed or dtype is torch.bfloat16


# --- whether the CUDA kernels can be used ------------------------------------------------------

Why = Callable[[], "str | None"]


@pytest.fixture
def why(monkeypatch: pytest.MonkeyPatch) -> Why:
    """Asks for a device whose kernels would do, with a Triton that works; tests break one or the other."""

    triton: Any = ModuleType("triton")
    active = SimpleNamespace(get_current_target=lambda: "cuda:90")
    triton.runtime = SimpleNamespace(driver=SimpleNamespace(active=active))
    kernels: Any = ModuleType("qwenchat.engine.cuda.decode")
    kernels.unsupported_reason = lambda config, device: None
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: name if name == "triton" else find_spec(name, *rest)
    )
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "qwenchat.engine.cuda.decode", kernels)
    monkeypatch.setattr(qwenchat.engine.cuda, "decode", kernels, raising=False)
    config: Any = None
    return lambda: reads_packed(config, torch.device("cuda"))


def break_triton(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> object:
        raise error

    driver: Any = sys.modules["triton"]
    monkeypatch.setattr(driver.runtime.driver.active, "get_current_target", fail)


def test_nothing_is_said_where_all_is_well(why: Why) -> None:
    assert why() is None


def test_a_missing_triton_is_said(why: Why, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert why() == "triton is not installed"


def test_what_the_kernels_cannot_do_is_said(why: Why, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels: Any = sys.modules["qwenchat.engine.cuda.decode"]
    monkeypatch.setattr(kernels, "unsupported_reason", lambda config, device: "the GPU is too old")
    assert why() == "the GPU is too old"


def test_a_triton_that_breaks_at_import_is_said(why: Why, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(qwenchat.engine.cuda, "decode")
    monkeypatch.setitem(sys.modules, "qwenchat.engine.cuda.decode", None)  # then importing it fails
    found = why()
    assert found is not None
    assert found.startswith("triton cannot be used: ")


def test_a_missing_compiler_is_said(why: Why, monkeypatch: pytest.MonkeyPatch) -> None:
    break_triton(monkeypatch, RuntimeError("Failed to find C compiler."))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert why() == "triton needs a C compiler, and there is no gcc or clang"


def test_missing_headers_are_said(why: Why, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    break_triton(monkeypatch, RuntimeError("returned non-zero exit status 1."))
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert why() == f"triton compiles against Python's headers, and there is no {tmp_path / 'Python.h'}"


def test_whatever_else_is_wrong_with_triton_is_said_in_a_line(
    why: Why, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_triton(monkeypatch, AssertionError("libcuda.so cannot be found!\nand more"))
    monkeypatch.setenv("CC", "cc")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert why() == "triton cannot be used: AssertionError: libcuda.so cannot be found!"
