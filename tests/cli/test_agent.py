"""``qwenchat agent`` as a user meets it: the result on stdout, the rest on stderr, nothing run unasked."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd, TextDelta, Timings, Usage
from qwenchat.cli import app
from tests.fakes import FakeBackend

Say = Callable[..., FakeBackend]


class Scripted(FakeBackend):
    """Says one reply after the other, and keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        super().__init__()
        self._replies = list(replies)
        self.asked: list[str] = []
        self.options: list[GenerationOptions] = []

    def stream(self, messages, options, cancel=None):  # type: ignore[no-untyped-def]
        """Plays the next reply."""
        self.asked.append(Message.of(messages[-1]).text)
        self.options.append(options)
        yield TextDelta(self._replies.pop(0))
        yield ReplyEnd("stop", Usage(1, 0, 1), Timings(0, 0, 0), options, ())

    tokenizer = None


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    """Puts a scripted model in the place of every other."""

    def put(*replies: str) -> Scripted:
        backend = Scripted(*replies)
        monkeypatch.setattr("qwenchat.cli.backend.load", lambda *arguments, **named: backend)
        return backend

    return put


def run_reply(code: str, tools: str = "`summarizer`") -> str:
    return f" tools: {tools}.\n\nAnswer:\n```py\n{code}\n```"


def test_a_task_is_explained_run_and_its_result_printed(
    say: Callable[..., Scripted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("A long text.")
    model = say(run_reply("s = summarizer(text)\nprint(f'Summary: {s}')"), " Short. ")
    assert app.run(["agent", "run", "Sum", "up", "`text`.", "--file", f"text={notes}"]) == 0
    said = capsys.readouterr()
    assert said.out == "Summary: Short.\nShort.\n"
    assert "I will use the following  tools: `summarizer`." in said.err
    assert "    s = summarizer(text)" in said.err
    assert "calling summarizer" in said.err
    assert 'Task: "Sum up `text`."' in model.asked[0]
    assert "A long text." in model.asked[1]
    assert (model.options[0].temperature, model.options[0].stop) == (0.0, ("Task:",))


def test_json_has_all_of_it(say: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    say(run_reply("x = [1, 'a']\nprint('b')\ny = unknown"))
    assert app.run(["agent", "run", "x", "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["result"], found["printed"], found["called"]) == ([1, "a"], ["b"], [])
    assert found["error"] == "The variable `unknown` is not defined."
    assert "the code stopped: The variable `unknown` is not defined." in said.err


def test_a_reply_without_code_is_an_error(
    say: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    say(" nothing.")
    assert app.run(["agent", "run", "x"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "the model wrote no code" in said.err


def test_what_the_user_named_runs_after_their_word_alone(
    say: Callable[..., Scripted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "paint.py"
    program.write_text(
        "import json, pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "print('cat.png', json.load(sys.stdin)['prompt'])\n"
    )
    tool = ["--tool", f"image_generator={sys.executable} {program}"]
    reply = run_reply("image = image_generator('a cat')", "`image_generator`")
    say(reply)
    assert app.run(["agent", "run", "Paint.", *tool]) == 2
    assert "there is no terminal to ask" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    say(reply)
    assert app.run(["agent", "run", "Paint.", *tool, "--yes"]) == 0
    assert capsys.readouterr().out == "cat.png a cat\n"


def test_a_model_cannot_write_to_the_terminal_what_it_likes(
    say: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    say(" \x1b]0;owned\x07.\n\nAnswer:\n```py\nx = 'a\\x1b[2Jb'\n```")
    assert app.run(["agent", "run", "x"]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.err


def test_a_chat_keeps_variables_and_an_empty_line_sends_the_error_back(
    say: Callable[..., Scripted], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chat_reply(code: str) -> str:
        return f"I will.\n\n```py\n{code}\n```"

    model = say(chat_reply("x = 'kept'"), chat_reply("y = gone"), chat_reply("x"), chat_reply("x"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\nsecond\n\n/new\nthird\n"))
    assert app.run(["agent", "chat"]) == 0
    said = capsys.readouterr()
    assert said.out == "kept\nkept\n"
    assert "_HUMAN_: I get an error: 'The variable `gone` is not defined.'" in model.asked[2]
    assert "the code stopped: The variable `x` is not defined." in said.err
    assert "_HUMAN_: first" in model.asked[2]
    assert "_HUMAN_: first" not in model.asked[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--var", "x"], "--var is x, expected NAME="),
        (["--var", "1x=a"], "1x is no name of a variable"),
        (["--var", "x=a", "--var", "x=b"], "--var names x twice"),
        (["--tool", "painter=paint"], "there is no tool painter"),
        (["--file", "x=/nowhere/at/all"], "/nowhere/at/all cannot be read"),
    ],
)
def test_wrong_options_are_told(
    say: Callable[..., Scripted],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    say()
    assert app.run(["agent", "run", "x", *options]) == 2
    assert message in capsys.readouterr().err
