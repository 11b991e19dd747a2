"""What a model thinks: folded above the answer, kept in the session, and turned on and off."""

from __future__ import annotations

import functools
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pyte
import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import (
    GenerationOptions,
    Message,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
    Timings,
    Usage,
)
from qwenchat.chat.parts import Role, Text, Thought
from qwenchat.chat.turn import now, stream_reply
from qwenchat.cli import reply
from qwenchat.sessions import format as session_file
from qwenchat.sessions.autosave import Autosave
from qwenchat.sessions.export import to_html, to_markdown, to_text
from qwenchat.sessions.store import SessionStore
from qwenchat.settings.schema import Settings
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.loop import Loop
from qwenchat.terminal.render.screen import Screen
from qwenchat.terminal.thoughts import ThoughtWriter, unheard
from qwenchat.terminal.tools import ChatTools
from tests.fakes import FakeBackend, Thinker
from tests.terminal.chat_program import make_chat

END = ReplyEnd("stop", Usage(3, 0, 2), Timings(0.1, 0.1, 0.1), token_ids=(7, 8), thought_ids=(4, 5, 6))


class Always(FakeBackend):
    thinks = "always"


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    made = make_chat(tmp_path)
    made.load("thinker")
    return made


def say(chat: Chat, capsys: pytest.CaptureFixture[str], *lines: str) -> str:
    capsys.readouterr()
    for line in lines:
        Loop(chat).take(line)
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_thoughts_are_one_line_and_can_be_shown(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing was thought" in say(chat, capsys, "/think show")
    shown = say(chat, capsys, "hello")
    assert "You said: hello" in shown
    assert "/think show prints it" in shown
    assert "They say" not in shown
    assert "They say 'hello'. 他们说的话" in say(chat, capsys, "/think show")
    history = say(chat, capsys, "/history")
    assert "They say" not in history
    assert "thought before" in history


def test_thoughts_are_kept_apart_in_the_session(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    say(chat, capsys, "hello")
    kept = session_file.decode(chat.session.path.read_bytes()).conversation.path()[-1].message
    assert kept.text.strip() == "You said: hello"
    assert kept.thought.startswith("They say 'hello'.")
    assert [part["type"] for part in json.loads(chat.session.path.read_text())["nodes"][1]["parts"]] == [
        "thought",
        "text",
    ]


def test_exports_say_what_was_thinking(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    say(chat, capsys, "hello")
    record = session_file.decode(chat.session.path.read_bytes())
    assert "## Assistant, thinking\n\nThey say 'hello'." in to_markdown(record)
    assert "Assistant, thinking:\nThey say 'hello'." in to_text(record)
    assert "<h2>Assistant, thinking</h2>" in to_html(record)


def test_thinking_is_turned_off_and_on_for_the_chat(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    say(chat, capsys, "hello")
    assert "thinks before it answers; /think off" in say(chat, capsys, "/think")
    assert "without thinking" in say(chat, capsys, "/think off")
    assert "thought for" not in say(chat, capsys, "hello")
    assert chat.session.settings["think"] is False
    assert "for at most 9 tokens" in say(chat, capsys, "/think on", "/set think_tokens 9", "/think")
    assert "thought for" in say(chat, capsys, "hello")
    assert "takes on, off" in say(chat, capsys, "/think perhaps")


def test_a_model_without_a_switch_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = make_chat(tmp_path)
    say(chat, capsys, "hello")
    assert "does not think" in say(chat, capsys, "/think on")
    assert "does not think" in say(chat, capsys, "/think")
    assert chat.options.think is None
    always = Always()
    assert "always thinks" in unheard(always, GenerationOptions(think=False))
    assert "does not think" in unheard(FakeBackend(), GenerationOptions(think_tokens=5))
    assert unheard(FakeBackend(), GenerationOptions(think=False)) == ""
    assert unheard(Thinker(), GenerationOptions(think=False, think_tokens=5)) == ""


def test_all_thoughts_stay_above_the_answer_if_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = make_chat(tmp_path, show_thinking=True)
    chat.load("thinker")
    assert "They say 'hello'." in say(chat, capsys, "hello")


def test_a_reply_that_is_gone_on_with_keeps_what_was_thought_before_and_its_tokens(tmp_path: Path) -> None:

    conversation = Conversation()
    conversation.ask(Message.of_text(Role.USER, "hi"), now())

    def play(*events: Any) -> Message:
        backend = FakeBackend(*events)
        messages, options = conversation.messages(), GenerationOptions()
        saves: list[None] = []
        save = functools.partial(saves.append, None)
        list(stream_reply(conversation, messages, backend, options, save, threading.Event()))
        assert conversation.current is not None
        return conversation.current.message

    cut = ReplyEnd("length", END.usage, END.timings, token_ids=(), thought_ids=(1, 2))
    assert play(ThoughtDelta("so"), cut).parts == (Thought("so", (1, 2)), Text("", None))
    more = play(ThoughtDelta(" it is"), TextDelta("yes"), END)
    assert more.parts == (Thought("so it is", (1, 2, 4, 5, 6)), Text("yes", (7, 8)))


# --- ask -----------------------------------------------------------------------------------------


def asked(tmp_path: Path, writer: reply.ReplyWriter) -> None:
    session = SessionStore(tmp_path / "sessions").create(Conversation())
    backend = FakeBackend(ThoughtDelta("the fox\x1b[2J"), ThoughtDelta(" jumps"), TextDelta("an answer"), END)
    backend.thinks = "switch"
    reply.write_reply(
        "hi",
        Autosave(session, print, False),
        backend,
        writer,
        tools=ChatTools.of(Settings(), lambda code, cancel: ""),
        options=GenerationOptions(),
        may_drop=True,
        notice=print,
    )


def test_stdout_is_the_answer_alone_and_thoughts_go_to_stderr_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    asked(tmp_path, reply.TextWriter(out))
    assert out.getvalue() == "an answer\n"
    assert capsys.readouterr() == ("", "")
    out = io.StringIO()
    asked(tmp_path, reply.TextWriter(out, ThoughtWriter()))
    assert out.getvalue() == "an answer\n"
    assert "the fox" in capsys.readouterr().err


def test_json_has_the_thoughts_apart(tmp_path: Path) -> None:
    out = io.StringIO()
    asked(tmp_path, reply.JsonWriter(out))
    found = json.loads(out.getvalue())
    assert (found["text"], found["reasoning"]) == ("an answer", "the fox\x1b[2J jumps")
    out = io.StringIO()
    asked(tmp_path, reply.EventWriter(out))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["type"] for event in events] == ["reasoning", "reasoning", "text", "end"]


# --- the live view -------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 40, 24])
def test_the_last_words_of_thinking_are_seen_and_then_one_line_above_the_answer(columns: int) -> None:
    screen, size = Screen(rows_above=1), os.terminal_size((columns, 24))
    terminal = pyte.Screen(columns, 24)
    stream = pyte.Stream(terminal)

    def shown(written: str) -> list[str]:
        stream.feed(written.replace("\n", "\r\n"))
        return [row.rstrip() for row in terminal.display if row.strip()]

    screen.status = "thinking"
    screen.thought = "the quick 狐狸 jumps " * 20
    rows = shown(screen.draw("", size))
    assert rows[0] == "thinking"
    assert len(rows) == 2
    assert rows[-1].endswith("s")
    screen.thought += "and rests"
    assert shown(screen.draw("", size))[-1].endswith("ts")
    screen.remarks.append("thought for 3 s; /think show prints it")
    rows = shown(screen.draw("an answer", size) + screen.end(size))
    assert "".join(rows).replace(" ", "") == "thoughtfor3s;/thinkshowprintsitananswer"
