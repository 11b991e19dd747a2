"""Code in a chat: what /python and /run run, ask for, show and leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwenchat.errors import SandboxError, UsageError
from qwenchat.sandbox import start
from qwenchat.terminal import toolbar
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.commands import registry
from qwenchat.terminal.loop import Loop
from tests.chats import replied
from tests.terminal.chat_program import make_chat

Say = Callable[..., str]
TWO_BLOCKS = "One:\n\n```python\nprint('first')\n```\n\n```sh\nls\n```\n\n```py\nprint('second')\n```\n"


@pytest.fixture(scope="module", autouse=True)
def a_sandbox() -> None:
    try:
        start.in_force()
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.chdir(tmp_path)
    one = make_chat(tmp_path)
    yield one
    one.close()


@pytest.fixture
def say(chat: Chat, capsys: pytest.CaptureFixture[str]) -> Say:
    """Types lines; returns what the program then shows."""

    def type_in(*lines: str) -> str:
        capsys.readouterr()
        for line in lines:
            Loop(chat).take(line)
        shown = capsys.readouterr()
        return shown.out + shown.err

    return type_in


def reply_with(chat: Chat, text: str) -> None:
    here = chat.conversation.current
    assert here is not None
    chat.conversation.replace_reply(here.id, *replied(text))


def test_files_of_any_kind_are_put_where_python_runs(say: Say, tmp_path: Path) -> None:
    (tmp_path / "table.xlsx").write_bytes(b"PK\x03\x04\0\xff")
    assert "/put" in say("/file table.xlsx")
    assert "table.xlsx" in say("/put table.xlsx")
    assert say("/python open('table.xlsx', 'rb').read()").startswith("b'PK\\x03\\x04\\x00\\xff'")
    (tmp_path / "table.xlsx").write_bytes(b"other")
    say("/put ./table.xlsx")
    assert say("/python open('table.xlsx', 'rb').read()").startswith("b'other'")
    assert "/put PATH" in say("/put")
    assert "gone.png" in say("/put gone.png")
    assert "folder" in say("/put .")


def test_python_runs_by_hand_and_keeps_its_variables(say: Say) -> None:
    assert say("/python x = 6\nprint('by hand')") == "by hand\n"
    assert say("/python x * 7") == "42\n"
    assert "ZeroDivisionError" in say("/python 1 / 0")
    assert "said nothing" in say("/python y = 1")


def test_the_toolbar_says_what_confines_once_there_is_a_worker(chat: Chat, say: Say) -> None:
    say("hello")
    assert "Python" not in toolbar.render(chat)
    say("/python 1")
    assert f"Python in {start.in_force()}" in toolbar.render(chat)


def test_run_shows_asks_and_runs(chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    say("hello")
    reply_with(chat, "So:\n\n```python\nprint(40 + 2)\n```\n")
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr(chat.prompt, "confirm", no)
    shown = say("/run")
    assert "print(40 + 2)" in shown and "nothing was run" in shown
    assert len(asked) == 1 and chat.code.sandbox == ""
    monkeypatch.setattr(chat.prompt, "confirm", lambda question: True)
    assert "42\n" in say("/run")


def test_run_takes_one_block_of_several_and_python_alone(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.prompt, "confirm", lambda question: True)
    assert "there is no Python" in say("/run")
    say("hello")
    reply_with(chat, TWO_BLOCKS)
    shown = say("/run")
    assert "there are 2 blocks of code" in shown and "2: python, 1 line" in shown
    assert "second\n" in say("/run 2")
    assert "there are 2" in say("/run 3")
    with pytest.raises(UsageError):
        registry.find("/run")[0].run(chat, "x")  # type: ignore[index]


def test_attached_files_are_there_and_made_ones_are_named(chat: Chat, say: Say, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    say("/file data.csv")
    assert "'a,b\\n1,2\\n'" in say("/python open('data.csv').read()")
    say("look", "/python open('data.csv', 'w').write('mine');")  # which goes with the question now
    assert "mine" in say("/python open('data.csv').read()")
    shown = say("/python open('out.txt', 'w').write('x');")
    assert str(chat.session.files / "out.txt") in shown.replace("\n", "")


def test_output_cannot_drive_the_terminal(say: Say) -> None:
    assert "\x1b" not in say("/python import sys; print('\\x1b]0;mine\\x07', file=sys.stderr); 1/0")


def test_files_stay_with_a_session_and_go_with_it(chat: Chat, say: Say) -> None:
    say("hello", "/python open('kept.txt', 'w').write('x');")
    files, name = chat.session.files, chat.session.id
    say("/clear")
    assert (files / "kept.txt").read_text() == "x"
    assert chat.code.sandbox == ""
    chat.store.delete(name)
    assert not files.exists()


def test_of_a_chat_that_was_never_kept_no_file_stays(chat: Chat, say: Say) -> None:
    say("/python open('out.txt', 'w').write('x');")
    files = chat.session.files
    assert files.exists()
    chat.close()
    assert not files.exists()


def test_a_worker_that_dies_is_said_to_and_the_next_run_has_another(say: Say) -> None:
    shown = say("/python import os; os._exit(1)")
    assert "Its variables are lost" in shown and "starts a new interpreter" in shown
    assert say("/python 1 + 1") == "2\n"


def test_without_a_sandbox_nothing_runs_and_the_reason_is_told(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_candidates", lambda: iter(()))
    assert "nothing here can confine a program" in say(f"/python open({str(tmp_path / 'x')!r}, 'w')")
    assert not (tmp_path / "x").exists()
