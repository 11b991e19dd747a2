"""``qwenchat models export`` as a user meets it: a line or JSON on stdout, progress on stderr, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwenchat.cli import app


def test_the_result_is_one_line_and_progress_goes_to_stderr(
    tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "made"
    assert app.run(["models", "export", str(tiny_chat), str(dest)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{dest}: ")
    assert "written and read back" in said.out
    assert [line.split(":")[0] for line in said.err.splitlines()][-2:] == ["writing", "reading back"]


def test_json_is_one_object(tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "made.gguf"
    arguments = ["models", "export", str(tiny_chat), str(dest), "--to", "gguf", "--type", "f16", "--json"]
    assert app.run(["-q", *arguments]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["path"], found["to"], found["bytes"]) == (str(dest), "gguf", dest.stat().st_size)
    assert not said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "onnx"], "--to is onnx, expected qwen2 or gguf"),
        (["--to", "gguf", "--type", "q4"], "--type is q4, expected q8_0 or f16"),
        (["--type", "f16"], "--type is for --to gguf"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert app.run(["models", "export", str(tiny_chat), str(tmp_path / "made"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
