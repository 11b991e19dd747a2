"""``qwenchat quantize`` as a user meets it: lines and JSON on stdout, progress on stderr, Ctrl-C, errors."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from qwenchat.cli import app
from qwenchat.models.quantize import calibration, run

needs_auto_gptq = pytest.mark.skipif(
    importlib.util.find_spec("auto_gptq") is None, reason="auto-gptq has no wheel for this Python or platform"
)
OPTIONS = ("--bits", "4", "--group-size", "64", "--device", "cpu")


@pytest.fixture
def chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few chats to quantise for, and a few lines to measure on."""
    shipped = calibration.DEFAULT.read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(shipped[:3]), encoding="utf-8")
    text = tmp_path / "held-out.txt"
    text.write_text("A few words that it was not made for. " * 9)
    monkeypatch.setattr(run, "HELD_OUT", text)
    return path


@needs_auto_gptq
@pytest.mark.usefixtures("one_thread")
def test_the_result_is_two_lines_and_off_a_terminal_each_stage_one(
    tiny_chat: Path, chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "made"
    assert app.run(["quantize", str(tiny_chat), str(dest), "--calibration", str(chats), *OPTIONS]) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first.startswith(f"{dest}: ")
    assert " before, " in second
    assert second.endswith("on 342 tokens that it was not made for")
    assert said.err.splitlines() == [
        "starting",
        "checking the source",
        "quantising 2 layers",
        "putting the checkpoint together",
    ]


@needs_auto_gptq
@pytest.mark.usefixtures("one_thread")
def test_json_is_one_object(
    tiny_chat: Path, chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "made"
    arguments = ["quantize", str(tiny_chat), str(dest), "--calibration", str(chats), *OPTIONS]
    assert app.run(["-q", *arguments, "--json", "--act-order"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert {
        key: found[key] for key in ("folder", "bits", "group_size", "act_order", "steps_done_before")
    } == {
        "folder": str(dest),
        "bits": 4,
        "group_size": 64,
        "act_order": True,
        "steps_done_before": 0,
    }
    perplexity = found["perplexity"]
    assert perplexity["change"] == pytest.approx(perplexity["after"] / perplexity["before"] - 1)
    assert perplexity["tokens"] == 342
    assert found["bytes"] == sum(path.stat().st_size for path in dest.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--bits", "3"], 2, "--bits is 3, expected 4 or 8"),
        (["--device", "tpu"], 2, "the device is 'tpu'"),
        (["--calibration", "missing.jsonl"], 2, "there is no file missing.jsonl"),
        (["--group-size", "100"], 2, "--group-size 100 does not divide"),
    ],
)
@needs_auto_gptq
def test_what_cannot_be_is_said_in_a_line(
    tiny_chat: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    assert app.run(["-q", "quantize", str(tiny_chat), str(tmp_path / "made"), *arguments]) == code
    found = capsys.readouterr()
    assert said in found.err
    assert found.err.count("\n") == 1
    assert found.out == ""
    assert not list(tmp_path.glob("made*"))


def test_models_that_are_none_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["quantize", "no-such-model", str(tmp_path / "made")]) == 3
    assert "there is no model or folder called no-such-model" in capsys.readouterr().err
    assert app.run(["quantize", "demo", str(tmp_path / "made")]) == 2
    assert "the built-in model is quantised already" in capsys.readouterr().err


def test_without_auto_gptq_a_line_says_what_to_do(
    tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "auto_gptq", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "auto_gptq" else find_spec(name, *rest),
    )
    assert app.run(["-q", "quantize", str(tiny_chat), str(tmp_path / "made")]) == 1
    line = (
        "qwenchat: quantising needs auto-gptq, which is not installed; it comes with qwenchat for Python 3.11"
    )
    assert capsys.readouterr().err.startswith(line)


@needs_auto_gptq
@pytest.mark.skipif(os.name != "posix", reason="a terminal as POSIX has it")
def test_a_terminal_shows_the_time_left_and_ctrl_c_keeps_what_is_done(
    tiny_chat: Path, chats: Path, tmp_path: Path
) -> None:
    from tests.terminal.screen import Screen  # only where there are such terminals

    dest = tmp_path / "made"
    # Twelve of the tiny layers, so that there is time to look and to type.
    from safetensors.torch import load_file, save_file

    config = json.loads((tiny_chat / "config.json").read_text())
    (tiny_chat / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 12}))
    tensors = load_file(tiny_chat / "model.safetensors")
    for name in [name for name in tensors if ".h.1." in name]:
        for layer in range(2, 12):
            tensors[name.replace(".h.1.", f".h.{layer}.")] = tensors[name].clone()
    save_file(tensors, tiny_chat / "model.safetensors")
    command = [sys.executable, "-m", "qwenchat", "quantize", str(tiny_chat), str(dest), *OPTIONS]
    command += ["--calibration", str(chats)]
    screen = Screen(command, columns=30, environment={"OMP_NUM_THREADS": "1"})
    try:
        shown = screen.until(" s left ", patience=60)
        assert "─" in shown
        assert "%" in shown
        screen.type("\x03")
        assert screen.wait(patience=30) == 130
        assert "qwenchat: interrupted; " in screen.text
        assert " left" not in screen.text  # the bar is wiped away
    finally:
        screen.close()
    assert not dest.exists()
    done = json.loads((tmp_path / "made.partial" / "progress.json").read_text())["done"]
    assert 0 < done < 14
