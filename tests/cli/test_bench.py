"""``qwenchat bench`` as a user meets it: tables and JSON on stdout, stages on stderr, errors in a line."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from qwenchat.bench import ceilings, start
from qwenchat.cli import app

SMALL = ("--device", "cpu", "--dtype", "float32", "--tokens", "8,16")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.BLOCK, "cpu", 2**16)
    monkeypatch.setitem(ceilings.SIDE, "cpu", 32)


def figures(output: str) -> dict[str, object]:
    """The JSON line, which is the last one."""
    found = json.loads(output.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("tiny_shapes")
def test_formats_are_measured_in_their_order_and_the_json_comes_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "speed.svg"
    arguments = ["--random-weights", "qwen-7b-chat", "--formats", "int8,int4,fp16", "--chart", str(picture)]
    assert app.run(["bench", *arguments, *SMALL]) == 0
    said = capsys.readouterr()
    names = ["qwen-7b-chat-int8", "qwen-7b-chat-int4", "qwen-7b-chat-fp16"]
    results = figures(said.out)["results"]
    assert isinstance(results, list)
    assert [r["name"] for r in results] == names
    assert [r["format"] for r in results] == ["Int8", "Int4", "float32"]
    assert [[reply["new_tokens"] for reply in r["replies"]] for r in results] == [[8, 16]] * 3
    loading = [line for line in said.err.splitlines() if line.endswith(": loading")]
    assert loading == [f"{name}: loading" for name in names]
    assert "\x1b" not in said.out + said.err
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")


def test_a_checkpoint_is_measured_in_each_dtype(tiny_chat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cpu", "--dtype", "float32,bfloat16", "--tokens", "8"]
    assert app.run(["-q", "bench", "-m", str(tiny_chat), *options]) == 0
    said = capsys.readouterr()
    results = figures(said.out)["results"]
    assert isinstance(results, list)
    assert [r["dtype"] for r in results] == ["float32", "bfloat16"]
    assert set(figures(said.out)["ceilings"]) == {"float32", "bfloat16"}  # type: ignore[call-overload]
    assert said.err == ""


@pytest.mark.usefixtures("full_vocabulary")
def test_the_start_of_a_process_is_timed_on_a_checkpoint_that_stays_where_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    seconds = iter([8.0, 4.0])

    def ask(arguments: list[str], clock: object) -> float:
        asked.append(Path(arguments[1]))
        return next(seconds)

    monkeypatch.setattr(start, "_ask", ask)
    options = ["--random-weights", "qwen-7b-chat-int8", "--load", "--folder", str(tmp_path / "kept")]
    assert app.run(["bench", *options, *SMALL]) == 0
    out = capsys.readouterr().out
    assert "4.00 s  8.00 s the first time" in out
    assert asked == [tmp_path / "kept" / "qwen-7b-chat-int8"] * 2
    assert (asked[0] / "config.json").exists()


def test_a_process_is_timed_until_it_says_something(tiny_chat: Path) -> None:
    first, second = start.seconds_to_first_token(tiny_chat, device="cpu", dtype="float32")
    assert first > 0
    assert second > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--random-weights", "qwen-9b-chat"], 2, "qwen-7b-chat"),
        (["--random-weights", "qwen-7b-chat", "-m", "demo"], 2, "cannot be combined"),
        (["--random-weights", "qwen-7b-chat", "--peer"], 2, "-m demo"),
        (["--random-weights", "qwen-7b-chat", "--formats", "int8,int3"], 2, "int3"),
        (["--formats", "int8"], 2, "--random-weights"),
        (["--contexts", "2048,8"], 2, "--contexts"),
        (["--tokens", "many"], 2, "many"),
        (["--tokens", "0"], 2, "from 1"),
        (["--tokens", "8,-1"], 2, "from 1"),
        (["--threads", "0"], 2, "--threads 0"),
        (["--kv-cache", "int2"], 2, "int2"),
        (["--chart", "/no/such/folder/x.svg"], 2, "/no/such/folder"),
        (["-m", "no-such-model", "--device", "cpu"], 3, "no-such-model"),
        (["--device", "gpu"], 2, "gpu"),
    ],
)
def test_what_makes_no_sense_is_one_line_before_anything_is_measured(
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qwenchat.bench.ceilings.measure", lambda *_: pytest.fail("measured"))
    assert app.run(["-q", "bench", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1


def test_a_checkpoint_that_cannot_be_read_is_refused_before_anything_is_measured(
    tiny_chat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwenchat.bench.ceilings.measure", lambda *_: pytest.fail("measured"))
    (tiny_chat / "config.json").write_text('{"model_type": "mamba"}')
    assert app.run(["-q", "bench", "--device", "cpu", "-m", str(tiny_chat)]) == 3
    assert "native" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("random", [False, True])
def test_what_memory_does_not_suffice_for_is_refused_before_anything_is_measured(
    random: bool, tiny_chat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwenchat.bench.ceilings.measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("qwenchat.engine.memory.available_bytes", lambda device: 1000)
    asked = ["--random-weights", "qwen-7b-chat"] if random else ["-m", str(tiny_chat)]
    assert app.run(["-q", "bench", *asked, *SMALL]) == 3
    said = capsys.readouterr().err
    assert "not enough memory" in said
    assert said.count("\n") == 1


def test_a_checkpoint_that_does_not_answer_says_why(golden_folder: Callable[[str], Path]) -> None:
    from qwenchat.errors import QwenchatError

    with pytest.raises(QwenchatError, match="tiktoken"):
        start.seconds_to_first_token(golden_folder("fp16"), device="cpu", dtype="float32")
