"""One layer to codes: what it is quantised for, and what comes out behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from qwenchat.engine.config import ModelConfig, read_model_config
from qwenchat.engine.model import Block
from qwenchat.models.quantize import layers
from qwenchat.models.quantize.layers import Attend, Texts
from qwenchat.models.quantize.solver import Recipe, Solver
from qwenchat.models.quantize.states import States

pytestmark = pytest.mark.usefixtures("auto_gptq", "one_thread")

CPU = torch.device("cpu")
LENGTHS = (70, 5, 120, 33)


@pytest.fixture
def config(tiny_chat: Path) -> ModelConfig:
    return read_model_config(tiny_chat)


@pytest.fixture
def block(config: ModelConfig) -> Block:
    torch.manual_seed(0)
    return Block(config, 0).requires_grad_(False)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Texts:
    """Some sequences to quantise for and one to measure; tokens are computed with in pieces across them."""
    monkeypatch.setattr(layers, "CHUNK", 50)
    return Texts.of([[0] * length for length in LENGTHS], [[0] * 40])


@pytest.fixture
def x(config: ModelConfig, texts: Texts, tmp_path: Path) -> Iterator[States]:
    with closing(States(tmp_path / "x", config.hidden_size, CPU)) as states:
        states.write((0, texts.rows), torch.randn(texts.rows, config.hidden_size))
        yield states


@pytest.fixture
def y(config: ModelConfig, tmp_path: Path) -> Iterator[States]:
    with closing(States(tmp_path / "y", config.hidden_size, CPU)) as states:
        yield states


@torch.inference_mode()
def test_behind_a_layer_are_the_states_that_the_quantised_layer_makes(
    config: ModelConfig, block: Block, texts: Texts, x: States, y: States
) -> None:
    attend = Attend(config, texts, CPU)
    floats = [attend(block, x.read(span)) for span in texts.before]
    layers.through_floats(block, x, y, texts, attend)
    told: list[float] = []
    layers.quantize_block(block, x, y, texts, attend, Recipe(4, 64), told.append)
    for span in (*texts.calibration, *texts.after):  # each for itself, from its begin
        torch.testing.assert_close(y.read(span), attend(block, x.read(span)), rtol=1e-4, atol=1e-4)
    for span, expected in zip(texts.before, floats, strict=True):
        assert torch.equal(y.read(span), expected)
        assert not torch.equal(y.read(span), y.read(texts.after[0]))
    assert told == sorted(told)
    assert told[-1] == 1.0


@torch.inference_mode()
def test_each_matrix_is_quantised_for_what_the_quantised_ones_before_it_make(
    config: ModelConfig, block: Block, texts: Texts, x: States, y: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    add = Solver.add

    def watched(self: Solver, inputs: torch.Tensor) -> None:
        seen.append(inputs.clone())
        add(self, inputs)

    monkeypatch.setattr(Solver, "add", watched)
    attend = Attend(config, texts, CPU)
    layers.quantize_block(block, x, y, texts, attend, Recipe(4, 64), lambda done: None)
    pieces = len(list(texts.chunks()))
    found = [torch.cat(seen[i : i + pieces]) for i in range(0, len(seen), pieces)]

    met: dict[str, list[torch.Tensor]] = {name: [] for name in layers.MATRICES}
    for name in layers.MATRICES:
        block.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: met[name].append(inputs[0])
        )
    for span in texts.calibration:
        attend(block, x.read(span))
    order = ("attention.qkv", "attention.output", "mlp.up", "mlp.down")
    assert len(found) == len(order)
    for name, inputs in zip(order, found, strict=True):
        torch.testing.assert_close(inputs, torch.cat(met[name]), rtol=1e-4, atol=1e-4)


def test_states_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = torch.randn(10, 6)
    with closing(States(tmp_path / "states", 6, CPU)) as states:
        states.write((0, 10), rows)
        states.write((3, 5), rows[7:9])
        states.sync()
    with closing(States(tmp_path / "states", 6, CPU)) as states:
        assert torch.equal(states.read((0, 10)), torch.cat((rows[:3], rows[7:9], rows[5:])))
