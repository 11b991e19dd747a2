"""What is done beside the reading of the weights: once, waited for, and no trouble of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda import warm
from qwenchat.engine.cuda.kernels.hopper.compiled import Options


def test_it_is_done_once_and_what_goes_wrong_is_left_to_whoever_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def broken() -> None:
        done.append("names")
        raise OSError

    def set_up(device: torch.device, dtype: torch.dtype) -> None:
        done.append(str(device))

    def no_sources() -> Iterator[tuple[str, Options]]:
        return iter(())

    monkeypatch.setattr(warm, "_begun", [])
    monkeypatch.setattr(warm, "_name_kernels", broken)
    monkeypatch.setattr(warm, "_set_up", set_up)
    warm.finish()  # nothing was begun
    for _ in range(2):
        warm.begin(torch.device("cpu"), torch.float32, no_sources)
    warm.finish()
    assert sorted(done) == ["cpu", "names"]
