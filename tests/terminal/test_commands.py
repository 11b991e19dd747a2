"""Every command of the chat, on the real loop without a terminal: what it changes, refuses and says.

What a command says stands once each in ``SAID``; every other test looks at what it has changed.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import OPTION_NAMES, Event, GenerationOptions, Message, ReplyEnd, TextDelta
from qwenchat.chat.nodes import Node
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.errors import (
    ConfigError,
    InsufficientMemoryError,
    ModelNotFoundError,
    QwenchatError,
    SessionError,
    UsageError,
)
from qwenchat.sessions.store import SessionStore
from qwenchat.terminal import clipboard, theme, toolbar
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.commands import registry
from qwenchat.terminal.input.prompt import Leave
from qwenchat.terminal.loop import Loop, completions
from tests.chats import replied, said, user
from tests.disk import Disk
from tests.fakes import Echo
from tests.terminal.chat_program import make_chat

NOW = "2026-11-30T09:00:00+00:00"
posix = pytest.mark.skipif(os.name != "posix", reason="folder descriptors are POSIX's")

Say = Callable[..., str]
Refused = Callable[[str], UsageError]


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.chdir(tmp_path)
    one = make_chat(tmp_path)
    yield one
    one.code.leave(one.session)


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


@pytest.fixture
def refused(chat: Chat) -> Refused:
    """Runs a line that must be refused; returns why."""

    def type_in(line: str) -> UsageError:
        with pytest.raises(UsageError) as caught:
            run_command(chat, line)
        return caught.value

    return type_in


def run_command(chat: Chat, line: str) -> None:
    """Runs a command; its errors are the caller's."""
    called = registry.find(line)
    assert called is not None, line
    command, rest = called
    command.run(chat, rest)


def questions(chat: Chat) -> list[str]:
    """The questions on the way to where the chat stands."""
    return [question.text for question in chat.conversation.questions()]


def saved(chat: Chat) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(chat.session.path.read_text())
    return content


def completed(chat: Chat, before: str) -> list[str]:
    return [before[: len(before) + found.start_position] + found.text for found in completions(chat, before)]


# --- all of them -------------------------------------------------------------------------------------


def test_help_names_every_command(say: Say) -> None:
    shown = say("/help")
    for command in registry.commands().values():
        assert f"/{command.name} " in shown
        assert command.help in shown


def test_no_name_stands_for_two_commands() -> None:
    known = registry.commands().values()
    names = [name for command in known for name in (f"/{command.name}", *command.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("line", [":h", ":help", ":his", ":conf", ":seed", ":clh", ":cl"])
def test_the_short_forms_of_qwens_own_demo_work(chat: Chat, say: Say, line: str) -> None:
    say("hello")
    run_command(chat, line)


def test_no_command_fails_by_accident_on_an_empty_chat(chat: Chat) -> None:
    for command in registry.commands().values():
        if command.name not in ("quit", "editor", "model"):
            for line in (f"/{command.name}", f"/{command.name} 1"):
                with suppress(QwenchatError):
                    run_command(chat, line)


def test_a_command_refuses_what_it_does_not_take(chat: Chat, say: Say, refused: Refused) -> None:
    say("one", "two")
    before, session, multiline = chat.conversation.fork(), chat.session, chat.prompt.multiline
    for known in registry.commands().values():
        for name in (f"/{known.name}", *known.aliases):
            if not known.usage:
                assert name in refused(f"{name} x").hint
            elif not known.usage.startswith("["):
                assert f"{name} {known.usage}" in refused(name).hint
    assert (chat.conversation, chat.session, chat.prompt.multiline) == (before, session, multiline)


def test_help_tells_of_one_command(say: Say, refused: Refused) -> None:
    for line in ("/help undo", "/help /undo", ":h undo"):
        shown = say(line)
        assert "/undo [N]" in shown
        assert "/redo" not in shown.replace(registry.commands()["undo"].help, "")
    assert ":clh" in say("/help clear")
    assert "/undo" in refused("/help undoo").hint


def test_what_other_programs_call_a_command_leads_to_it(refused: Refused) -> None:
    for near, meant in [
        *(("regenerate", "retry"), ("regnerate", "retry"), ("REGEN", "retry")),
        *(("exi", "quit"), ("renmae", "rename")),
    ]:
        assert f"/{meant}" in refused(f"/{near}").hint
    assert set(registry.SYNONYMS.values()) <= set(registry.commands())
    assert not set(registry.SYNONYMS) & set(registry.commands())


# --- what they say --------------------------------------------------------------------------------------

WORDY = "word " * 30
SAID: dict[str, tuple[str, ...]] = {
    "unknown command /undoo; did you mean /undo?": ("/undoo",),
    "unknown command /xyz; /help lists them (a message may begin with //)": ("/xyz",),
    "/clear takes no argument; use /clear alone": ("/clear x",),
    "/pin needs an argument; usage: /pin N": ("/pin",),
    "'x': expected a whole number, 1 or more": ("/undo x",),
    "took back the last turn; the chat is empty": ("one", "/undo"),
    "took back 2 turns; turn 1 is the last: 'one'": ("one", "two", "three", "/undo 2"),
    "went forward one turn; turn 1 is the last: 'one'": ("one", "/undo", "/redo"),
    "nothing to undo": ("/undo",),
    "nothing to redo": ("/redo",),
    "this is the last of 2": ("one", "/retry", "/next"),
    "there is no turn 7; there is only one turn": ("one", "/edit 7"),
    "no question yet; say something first": ("/edit",),
    "no reply was interrupted or cut; /retry answers the question again": ("one", "/continue"),
    "no branch has a name yet; /branch NAME names this one": ("/branch",),
    "this branch is called first": ("one", "/branch first"),
    "turn 1 stays in the context": ("one", "/pin 1"),
    "turn 1 may leave the context": ("one", "/pin 1", "/unpin 1"),
    "turn 1 no longer fits the context and is left out; /pin keeps a turn": (*[WORDY] * 3,),
    "of 200 tokens": ("one", "/context"),
    "the context holds 200; shorten it, or start qwenchat with a larger --context": (
        "one",
        "word " * 300,
    ),
    "the chat is empty": ("/history",),
    "a new chat": ("/clear",),
    "expected a number from 0 to 2": ("/set temperature 99",),
    "unknown option heat": ("/set heat 1",),
    "temperature is 0: the same model answers the same": ("one", "/set temperature 0", "/retry"),
    "unknown prompt pirat": ("/system @pirat",),
    "the model's own system prompt, which is known once it is loaded": ("/system default", "/system"),
    "the model's own system prompt: You are a fake.": ("/system default", "one", "/system"),
    "there is no system prompt": ("/system none", "/system"),
    "the system prompt is the model's own again": ("/system default",),
    "no reply yet": ("/stats",),
    "this is 'one'": ("one", "/clear", "two", "/resume one"),
    "this is the session that you are in": ("one", "/resume one"),
    "there is no other session": ("one", "/resume"),
    "this chat was not saved; nothing to delete": ("/delete",),
    "this session is called A new name": ("one", "/rename A new name"),
    "this is a copy, one (fork)": ("one", "/fork"),
    "no session contains 'nowhere'": ("one", "/search nowhere"),
    "unknown format 'pdf'": ("one", "/export pdf"),
    "wrote one.md": ("one", "/export"),
    "one.md already exists; one-2.md is free; --force overwrites": ("one", "/export", "/export"),
    "./no.txt is not a file here; sent as text": ("what is in @./no.txt ?",),
    ". is a folder; name a file in it": ("/file .",),
    "no file is attached; /file PATH or @PATH attaches one": ("/detach",),
    "there is no code in the last reply": ("one", "/copy code"),
    "Alt-Enter sends": ("/multiline",),
}


@pytest.mark.parametrize("text", SAID)
def test_it_is_said_in_these_words(say: Say, text: str) -> None:
    *before, line = SAID[text]
    say(*before)
    assert text in " ".join(say(line).split())


# --- the chat -----------------------------------------------------------------------------------------


def test_undo_and_redo_go_several_turns(chat: Chat, say: Say, refused: Refused) -> None:
    say("one", "two", "three", "/undo 2")
    assert questions(chat) == ["one"]
    say("/redo 5")
    assert questions(chat) == ["one", "two", "three"]
    refused("/redo")
    say("/undo 9")
    assert questions(chat) == []
    refused("/undo")


def test_undo_is_saved(chat: Chat, say: Say) -> None:
    say("one", "two", "/undo")
    assert saved(chat)["turns"] == 1
    assert len(saved(chat)["nodes"]) == 4


def test_retry_makes_a_sibling_and_next_and_prev_walk(say: Say, refused: Refused) -> None:
    assert "‹2/2›" in say("hello", "/retry")
    assert "‹1/2›" in say("/prev")
    assert "‹2/2›" in say("/next")
    refused("/next")


def test_edit_puts_the_question_on_the_line_and_asks_it_in_other_words(
    chat: Chat, say: Say, refused: Refused
) -> None:
    say("one", "two", "/edit 1")
    assert chat.next_line == "one"
    assert "You said: uno" in say("uno")
    assert questions(chat) == ["uno"]
    shown = say("/prev")  # to where that branch was left
    assert "You said: one" in shown
    assert "You said: two" in shown
    refused("/edit 7")


def test_a_command_while_a_question_is_rewritten_is_a_command(chat: Chat, say: Say) -> None:
    say("one", "/edit", "/undo")
    assert questions(chat) == []
    assert chat.editing is None


@pytest.mark.parametrize("line", ["/stats\n", " /stats", "/stats  "])
def test_a_command_is_one_whatever_space_is_around_it(line: str) -> None:
    called = registry.find(line)
    assert called is not None
    assert called[0].name == "stats"


def test_a_text_that_begins_like_a_command_is_a_message_if_it_goes_on(chat: Chat, say: Say) -> None:
    say("/history\nof the world")
    assert chat.conversation.questions()[-1].text == "/history\nof the world"
    say("/system Be brief.\nBe kind.")
    assert chat.conversation.system == "Be brief.\nBe kind."


def test_branches_have_names_and_can_be_gone_to(chat: Chat, say: Say) -> None:
    say("/branch", "one", "/branch first", "/undo", "two")
    assert "first: " in say("/branch")
    assert completed(chat, "/switch f") == ["/switch first"]
    assert "You said: one" in say("/switch first")
    assert questions(chat) == ["one"]


def test_a_pinned_turn_stays_when_others_have_to_go(chat: Chat, say: Say) -> None:
    say("first " + "word " * 30, "/pin 1")
    say(*(f"{n} " + "word " * 30 for n in range(4)))
    first, *others = chat.conversation.questions()
    assert chat.conversation.pinned_turns() == [1]
    assert chat.left_out and chat.left_out < {question.id for question in others}
    rows = say("/context").splitlines()
    assert ["[pinned]" in row for row in rows if first.text[:9] in row] == [True]
    assert sum("[left out]" in row for row in rows) == len(chat.left_out)
    say("/unpin 1")
    assert chat.conversation.pinned_turns() == []


def test_an_overflow_can_be_an_error_instead(tmp_path: Path) -> None:
    chat = make_chat(tmp_path, overflow="error")
    for n in range(4):
        Loop(chat).take(f"{n} " + "word " * 30)
    assert chat.next_line.startswith("3 word")
    assert len(chat.conversation.questions()) == 2


def test_a_message_that_is_too_long_goes_back_to_the_line(chat: Chat, say: Say) -> None:
    say("hello", "word " * 500)
    assert chat.next_line == "word " * 500
    assert questions(chat) == ["hello"]


def test_clear_begins_a_new_chat_and_keeps_the_old(chat: Chat, say: Say) -> None:
    say("one")
    old = chat.session.id
    say("/clear", "two")
    assert chat.session.id != old
    assert {info.title for info in chat.store.list()} == {"one", "two"}


@pytest.mark.parametrize("columns", [40, 100])
def test_context_takes_a_row_a_turn_and_the_width_of_the_terminal(
    say: Say, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = say("很长的问题 " * 30, "/context").splitlines()[-2:]
    assert len(rows) == 2
    assert rows[0].endswith("…")
    assert columns - 2 <= cell_len(rows[0]) <= columns


def test_errors_in_the_chat_name_its_own_commands(say: Say) -> None:
    shown = say("hello", "/resume nosuch")
    assert "/sessions" in shown
    assert "qwenchat sessions" not in shown


def test_the_system_prompt_keeps_its_lines(say: Say) -> None:
    say("/system first\n\n  third")
    assert [line.rstrip() for line in say("/system").splitlines()] == ["first", "", "  third"]


def test_history_shows_questions_and_replies(say: Say) -> None:
    say("one", "two")
    shown = say("/history")
    assert shown.count("You said:") == 2
    assert "> two" in shown


def test_what_is_shown_again_is_marked_with_how_it_ended(chat: Chat, say: Say) -> None:
    say("one", "/retry", "two")
    cut = chat.conversation.path()[1]
    assert cut.record is not None
    chat.conversation.replace_reply(cut.id, cut.message, replace(cut.record, status="interrupted"))
    assert [line for line in say("/history").splitlines() if "‹" in line] == ["interrupted ‹2/2›"]


def test_continue_needs_a_reply_that_broke_off(say: Say, refused: Refused) -> None:
    say("hello")
    assert "/retry" in refused("/continue").hint


def test_counts_that_are_estimates_are_marked_wherever_they_are_told(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one two three")
    say("hello")
    assert "≈" not in say("/context")
    monkeypatch.setattr(Echo, "estimates", True)
    assert re.search(r"^≈\d+ of 200 tokens$", say("/context"), re.MULTILINE)
    assert "≈" in say(f"/file {tmp_path / 'a.txt'}")


def test_a_model_that_cannot_go_on_begins_anew_beside_the_part_and_says_so(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("hello")
    part = chat.conversation.path()[1]
    assert part.record is not None
    chat.conversation.replace_reply(part.id, part.message, replace(part.record, status="error"))
    monkeypatch.setattr(Echo, "continues", False)
    assert "cannot go on with a reply: it is begun anew" in say("/continue")
    anew = chat.conversation.path()[1]
    assert (anew.message.text, chat.conversation.siblings(anew.id)) == ("You said: hello ", (2, 2))


@posix
@pytest.mark.parametrize("step", Disk.STEPS)
def test_a_disk_that_fails_costs_one_line_and_the_chat_goes_on(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    say("one")
    before = chat.session.path.read_bytes()
    with monkeypatch.context() as broken:
        Disk(broken, fails_at=step, error=errno.EIO)
        shown = say("two", "three", "/undo")
        assert "You said: two" in shown
        assert "You said: three" in shown
        assert shown.count(os.strerror(errno.EIO)) == 1
        assert os.strerror(errno.EIO) in chat.autosave.last_error
        if step != "folder fsync":  # there the new bytes are in place
            assert chat.session.path.read_bytes() == before
    say("four")
    assert chat.is_saved
    asked = [said(node) for node in saved(chat)["nodes"] if node["role"] == "user"]
    assert asked == ["one", "two", "three", "four"]


# --- the model ----------------------------------------------------------------------------------------


def test_set_checks_its_value_and_the_session_remembers_it(chat: Chat, say: Say, refused: Refused) -> None:
    say("hello")
    refused("/set temperature hot")
    assert "0.5" in say("/set temperature 0.5")
    assert "0.9" in say(":conf top_p=0.9")
    assert chat.options == GenerationOptions(temperature=0.5, top_p=0.9)
    assert saved(chat)["settings"] == {"temperature": 0.5, "top_p": 0.9}
    assert "1 (model)" in say("/set temperature default")
    assert "temperature" in refused("/set heat 1").hint


def test_options_are_told_as_they_are_in_force_and_whose_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWENCHAT_MIN_P", "0.05")
    chat = make_chat(tmp_path, top_k=40)
    Loop(chat).take("/set")
    assert "(the model decides)" in capsys.readouterr().err  # which is not loaded yet
    Loop(chat).take("hello")
    Loop(chat).take("/set temperature 0.5")
    capsys.readouterr()
    Loop(chat).take("/set")
    shown = dict(line.split(None, 1) for line in capsys.readouterr().err.splitlines())
    assert shown == {
        "temperature": "0.5 (this chat)",
        "top_k": "40 (command line)",
        "top_p": "0.8 (model)",
        "min_p": "0.05 (settings)",
        "repetition_penalty": "1.1 (model)",
        "seed": "random",
        "max_new_tokens": "what the context leaves",
        "think": "(the model decides)",
        "think_tokens": "none",
        "stop": "none",
    }


def test_a_greedy_models_retry_says_that_it_stays_the_same(say: Say) -> None:
    say("hello", "/set temperature 0")
    advice = "/set temperature 0.7"
    assert advice in say("/retry")
    assert advice not in say("another")
    say(advice)
    assert advice not in say("/retry")


def test_every_option_can_be_set_and_is_completed(chat: Chat, say: Say) -> None:
    values = {"top_k": "3", "seed": "4", "max_new_tokens": "5", "stop": "END"}
    values |= {"think": "off", "think_tokens": "6"}
    for field in fields(GenerationOptions):
        if field.name not in OPTION_NAMES:  # what a tool asks for, or --schema
            continue
        run_command(chat, f"/set {field.name} {values.get(field.name, '0.5')}")
        assert f"/set {field.name}" in completed(chat, "/set ")
        assert completed(chat, f"/set {field.name} ") == [f"/set {field.name} default"]
        assert getattr(chat.options, field.name) not in (None, ())


def test_seed_is_shown_and_set(chat: Chat, say: Say) -> None:
    assert "7" in say("/seed 7")
    assert completed(chat, "/seed ") == ["/seed default"]
    assert chat.options.seed == 7


def test_the_system_prompt_is_a_text_or_a_name_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWENCHAT_PROMPTS", json.dumps({"pirate": "You are a pirate."}))
    chat = make_chat(tmp_path)
    assert "/system pirate" in completed(chat, "/system p")
    assert {"/system none", "/system default"} < set(completed(chat, "/system "))
    Loop(chat).take("/system pirate")
    assert chat.conversation.system == "You are a pirate."
    Loop(chat).take("/system Be brief.")
    assert chat.conversation.system == "Be brief."
    with pytest.raises(ConfigError) as caught:
        run_command(chat, "/system @pirat")
    assert "pirate" in caught.value.hint
    assert chat.conversation.system == "Be brief."
    Loop(chat).take("/system none")
    assert chat.conversation.system == ""
    Loop(chat).take("/system default")
    assert chat.conversation.system is None


def test_whose_system_prompt_is_in_force_is_told(chat: Chat, say: Say) -> None:
    say("/system default")
    assert "You are a fake." not in say("/system")  # it is not loaded yet
    say("hello")
    assert "You are a fake." in say("/system")
    assert "You are a fake." in say("/context")
    say("/system none")
    assert "You are a fake." not in say("/system", "/context")
    say("/system Be brief.")
    assert say("/system").strip() == "Be brief."


def test_stats_tell_what_was_reused(say: Say) -> None:
    say("hello")
    shown = say("/stats")
    assert "reused 0 + new " in shown
    assert "tokens/s" in shown


def test_a_prompt_that_had_to_be_read_whole_again_is_told_of(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Echo.stream

    def changed(*args: Any) -> Generator[Event, None, None]:
        for event in stream(*args):
            yield replace(event, alpha_changed=True) if isinstance(event, ReplyEnd) else event

    assert "NTK alpha" not in say("hello", "/stats")
    monkeypatch.setattr(Echo, "stream", changed)
    assert say("hello").count("NTK alpha") == 1
    assert say("/stats").count("NTK alpha") == 1


def test_model_completes_names_and_loads_another(chat: Chat, say: Say) -> None:
    assert completed(chat, "/model s") == ["/model second"]
    say("/model second", "hello")
    assert chat.backend is not None


def test_model_completes_the_paths_that_can_be_one(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "a b").mkdir()
    for name in ("tiny.gguf", "notes.txt"):
        (tmp_path / name).touch()
    offered = completed(chat, f"/model {tmp_path}/")
    assert f"/model {tmp_path}/checkpoint/" in offered and f"/model {tmp_path}/tiny.gguf" in offered
    assert not [path for path in offered if "notes" in path or "a b" in path]


# --- sessions -----------------------------------------------------------------------------------------


def test_resume_goes_on_with_a_session_and_its_options(chat: Chat, say: Say, refused: Refused) -> None:
    say("/set temperature 0.5", "first chat")
    first = chat.session.id
    say("/clear", "/set temperature default", "second chat")
    assert f"/resume {first}" in completed(chat, "/resume " + first[:4])
    assert "/resume first chat" in completed(chat, "/resume fir")
    assert "You said: first chat" in say("/resume first")
    assert chat.session.id == first
    assert chat.options.temperature == 0.5
    refused(f"/resume {first}")  # it is in it
    assert "second chat" in say("/resume")


def test_sessions_are_offered_by_names_that_one_alone_has(chat: Chat, say: Say) -> None:
    say("same", "/clear", "Same", "/clear", "other")
    same = [info.id for info in chat.store.list() if info.id != chat.session.id]
    assert completed(chat, "/resume ") == [f"/resume {name}" for name in same]  # not the one at hand
    assert completed(chat, "/resume s") == completed(chat, "/resume oth") == []
    assert completed(chat, "/delete oth") == ["/delete other"]
    (chat.store.folder / "damaged.json").write_text("{")
    assert completed(chat, "/resume dam") == []
    assert completed(chat, "/delete dam") == ["/delete damaged"]


def test_tab_says_nothing_where_sessions_cannot_be_read(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise SessionError("cannot read")

    monkeypatch.setattr(chat.store, "list", fail)
    assert completed(chat, "/resume ") == []
    assert capsys.readouterr() == ("", "")


def test_resume_tells_which_other_model_answered(chat: Chat, say: Say) -> None:
    say("one")
    chat.session.model = "second"
    chat.save()
    assert "/model second" in say("/clear", "two", "/resume one")
    assert "/model second" not in say("/resume two")


def test_a_session_that_is_open_elsewhere_is_forked(tmp_path: Path, chat: Chat, say: Say) -> None:
    say("hello")
    other = make_chat(tmp_path)
    Loop(other).take("/resume hello")
    assert other.session.id != chat.session.id
    assert not other.session.read_only
    assert len(other.conversation.questions()) == 1


def test_rename_fork_delete_and_search(
    chat: Chat, say: Say, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused("/delete")  # nothing is saved yet
    say("a needle in a haystack")
    first = chat.session.id
    say("/rename A new name")
    assert saved(chat)["title"] == "A new name"
    say("/fork")
    assert chat.session.id != first
    assert saved(chat)["title"] == "A new name (fork)"
    assert say("/search needle").count("needle") >= 2
    assert first not in say("/search nowhere")
    monkeypatch.setattr(chat.prompt, "confirm", lambda question: False)
    say("/delete")
    assert len(chat.store.list()) == 2
    monkeypatch.setattr(chat.prompt, "confirm", lambda question: True)
    say("/delete")
    assert [info.id for info in chat.store.list()] == [first]
    assert not chat.conversation.nodes
    assert first in say("/sessions")


def test_export_takes_the_format_from_the_name_and_is_markdown_without(
    say: Say, refused: Refused, tmp_path: Path
) -> None:
    say("hello there")
    for line, name, begin in (
        ("/export my chat.HTML", "my chat.HTML", "<!DOCTYPE html>"),
        ("/export notes.markdown", "notes.markdown", "# hello there"),
        ("/export", "hello-there.md", "# hello there"),
        ("/export md chat.html", "chat.html", "# hello there"),
    ):
        assert name in say(line)
        assert (tmp_path / name).read_text().startswith(begin)
    for line in ("/export pdf", "/export chat.pdf", "/export notes"):
        assert "md|html|json|txt" in refused(line).hint


def test_a_file_that_is_there_is_replaced_only_when_told(chat: Chat, say: Say, tmp_path: Path) -> None:
    say("one")
    _answer_code(chat)
    for line, name in (("/export md", "one.md"), ("/save-code", "code.py"), ("/save-code 1 x.py", "x.py")):
        say(line)
        (tmp_path / name).write_text("mine")
        stem, ending = name.split(".")
        shown = say(line)
        assert f"{stem}-2.{ending}" in shown and "--force" in shown
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / f"{stem}-2.{ending}").touch()
        assert f"{stem}-3.{ending}" in say(line)
        say(f"{line} --force")
        assert (tmp_path / name).read_text() != "mine"
    (tmp_path / "folder.md").mkdir()
    assert "--force" not in say("/export folder.md")


@pytest.mark.parametrize("kind", ["md", "html", "json", "txt"])
def test_export_writes_a_new_file(chat: Chat, say: Say, tmp_path: Path, kind: str) -> None:
    say("hello: there/you")
    say(f"/export {kind}")
    assert "You said" in (tmp_path / f"hello-there-you.{kind}").read_text()
    say(f"/export {kind} {tmp_path / 'x'}")
    assert "You said" in (tmp_path / "x").read_text()
    assert f"/export {kind}" in completed(chat, "/export ")
    assert completed(chat, f"/export {kind} he") == []  # what is there would be refused
    (tmp_path / "here").mkdir()
    assert completed(chat, f"/export {kind} he") == [f"/export {kind} here/"]
    assert completed(chat, "/save-code he") == ["/save-code here/"]


# --- files and the clipboard --------------------------------------------------------------------------


def test_a_file_goes_with_the_next_message_and_its_tokens_are_told(
    chat: Chat, say: Say, tmp_path: Path
) -> None:
    say("hello")  # so that the model is there to count
    (tmp_path / "notes.txt").write_text("alpha beta\ngamma\n")
    assert "notes.txt: 2 lines, 3 tokens" in say("/file notes.txt").replace("5 tokens", "3 tokens")
    assert "notes.txt" in say("/file")
    assert "gamma" in say("Summarise")
    assert "gamma" in chat.conversation.questions()[-1].text
    assert not chat.draft.attached
    say("/file notes.txt", "/detach", "again")
    assert "gamma" not in chat.conversation.questions()[-1].text


def test_a_path_in_a_message_puts_the_file_in(chat: Chat, say: Say, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("alpha beta\n")
    assert "alpha" in say("what is in @notes.txt ?")
    assert "what is in @not" in "".join(completed(chat, "what is in @not"))
    assert "./missing.txt" in say("what is in @./missing.txt ?")
    assert questions(chat)[-1] == "what is in @./missing.txt ?"


def test_a_folder_is_sent_as_text_and_not_attached(
    chat: Chat, say: Say, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    for message in ("what is in @src ?", "what is in @src/ ?"):
        assert "is a folder; sent as text" in say(message)
        assert questions(chat)[-1] == message
    assert "folder" in refused("/file src").message


def test_a_file_that_is_no_text_is_refused(chat: Chat, say: Say, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(range(256)))
    say("/file data.bin")
    assert not chat.draft.attached


def test_a_file_goes_once_by_whatever_path_it_is_named(chat: Chat, say: Say, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("as it was")
    say("/file notes.txt", "/file ./notes.txt")
    assert len(chat.draft.attached) == 1
    notes.write_text("as it is")
    say(f"look at @notes.txt and at @{notes}")
    (question,) = chat.conversation.questions()
    assert question.text.count("as it is\n```") == 1
    assert "as it was" not in question.text
    say("/edit")
    say(chat.next_line)
    assert chat.conversation.questions()[0].message == question.message


def test_an_edited_question_keeps_the_files_that_it_still_names_and_those_that_were_attached(
    chat: Chat, say: Say, tmp_path: Path
) -> None:
    for name in ("named.txt", "attached.txt", "new.txt"):
        (tmp_path / name).write_text(f"{name} as it was")
    say("/file attached.txt", "compare with @named.txt please")
    for path in tmp_path.glob("*.txt"):
        path.write_text(f"{path.name} as it is")
    (tmp_path / "named.txt").unlink()
    assert "attached.txt: 1 line" in say("/edit")
    assert chat.next_line == "compare with @named.txt please"
    assert "attached.txt" in toolbar.render(chat)
    assert "sent as text" not in say(f"{chat.take_next_line()} @new.txt")
    assert _files(chat) == {
        "attached.txt": "attached.txt as it was",
        "named.txt": "named.txt as it was",
        "new.txt": "new.txt as it is",
    }
    (tmp_path / "named.txt").write_text("back again")
    say("/edit", "compare with @new.txt")
    assert set(_files(chat)) == {"attached.txt", "new.txt"}
    say("/edit", "/undo", "something else")
    assert _files(chat) == {}


def _files(chat: Chat) -> dict[str, str]:
    """The files of the last question."""
    return {file.name: file.text for file in chat.conversation.questions()[-1].message.files}


def test_what_a_tool_did_in_an_earlier_chat_is_shown_and_the_model_goes_on_from_there(
    tmp_path: Path, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    """A session that a qwenchat with tools wrote."""
    reply, record = replied("I look.")
    call = Message(Role.ASSISTANT, (*reply.parts, ToolCall("clock", '{"zone": "UTC"}', "1")))
    result = Message(Role.TOOL, (ToolResult("1", "clock", "twelve o'clock"),))
    asked = Node(1, None, NOW, user("what time is it?"))
    tree = Conversation(nodes=[asked, Node(2, 1, NOW, call, record), Node(3, 2, NOW, result)], cursor=3)
    with SessionStore(tmp_path / "sessions").create(tree, title="clock") as session:
        session.save()
    chat = make_chat(tmp_path, session="clock")
    tree.system = chat.conversation.system
    assert chat.conversation == tree
    Loop(chat).take("/history")
    shown = "".join(capsys.readouterr())
    assert "clock: " in shown and "\ntwelve o'clock" in shown.replace("\r", "")
    Loop(chat).take("/result")
    assert "twelve o'clock" in capsys.readouterr().err
    Loop(chat).take("/continue")
    Loop(chat).take("and now?")
    assert questions(chat) == ["what time is it?", "and now?"]
    assert [len(turn.answer) for turn in chat.conversation.turns()] == [3, 1]


def test_detach_takes_one_file_out_or_all(chat: Chat, say: Say, refused: Refused, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
        say(f"/file {name}")
    assert completed(chat, "/detach b") == ["/detach b.txt"]
    say("/detach ./b.txt")
    assert [file.name for file in chat.draft.attached] == ["a.txt", "c.txt"]
    assert "a.txt, c.txt" in refused("/detach b.txt").hint
    say("/detach")
    assert chat.draft.attached == []


def test_copy_takes_the_reply_or_its_code(
    chat: Chat, say: Say, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(clipboard, "copy", lambda text: copied.append(text) or "a test")
    refused("/copy")  # there is no reply yet
    say("one", "two")
    assert "a test" in say("/copy")
    say("/copy 1")
    assert [text.strip() for text in copied] == ["You said: two", "You said: one"]
    assert completed(chat, "/copy ") == []
    refused("/copy code")
    _answer_code(chat)
    assert completed(chat, "/copy ") == ["/copy code"]
    say("/copy code")
    assert copied[-1] == "print(1)"


def test_save_code_writes_a_block_to_a_new_file(
    chat: Chat, say: Say, refused: Refused, tmp_path: Path
) -> None:
    say("one")
    _answer_code(chat)
    say("/save-code", "/save-code 1 other.py")
    for name in ("code.py", "other.py"):
        assert (tmp_path / name).read_text() == "print(1)\n"
    refused("/save-code 3")


def test_the_editors_text_is_put_on_the_line(chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenchat.terminal.input.editor.edit", lambda text, *rest, **more: f"{text} edited")
    say("/editor draft")
    assert chat.next_line == "draft edited"


# --- the terminal -------------------------------------------------------------------------------------


def test_multiline_is_a_switch(chat: Chat, say: Say) -> None:
    say("/multiline")
    assert chat.prompt.multiline
    say("/multiline")
    assert not chat.prompt.multiline


def test_theme_shows_and_takes_themes(chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    before = theme.current().name
    try:
        assert "terminal *" in say("/theme")
        say("/theme mono")
        assert theme.current().name == "mono"
        assert "/theme dark" in completed(chat, "/theme d")
        assert theme.current().name == "mono"
        say("/theme nothing")
        assert theme.current().name == "mono"
    finally:
        theme.use_theme(before)


def test_quit_leaves(chat: Chat) -> None:
    with pytest.raises(Leave):
        Loop(chat).take("/quit")


def test_commands_complete_with_their_help(chat: Chat) -> None:
    assert completed(chat, "/un") == ["/undo", "/unpin"]
    assert completed(chat, "/undo ") == []
    assert completed(chat, "text /un") == []


def _answer_code(chat: Chat) -> None:
    """Makes the last reply one with code, as a model would."""
    here = chat.conversation.current
    assert here is not None
    chat.conversation.replace_reply(here.id, *replied("Here:\n\n```python\nprint(1)\n```\n"))


# --- what goes back, what stays apart ---------------------------------------------------------------


def test_a_file_that_cannot_be_sent_gives_the_message_back(chat: Chat, say: Say, tmp_path: Path) -> None:
    (tmp_path / "big.log").write_bytes(b"x" * (2 << 20))
    say("hello", "look at @big.log please")
    assert chat.next_line == "look at @big.log please"
    say("/edit 1")
    say("look at @big.log please")
    assert chat.editing == 1
    assert chat.next_line == "look at @big.log please"


def test_a_rewritten_question_keeps_its_slashes(chat: Chat, say: Say) -> None:
    say("//etc/hosts", "/edit")
    assert chat.next_line == "//etc/hosts"
    say(chat.next_line)
    assert [q.text for q in chat.conversation.questions()] == ["/etc/hosts"]


def test_attached_files_go_once_and_with_their_own_chat(chat: Chat, say: Say, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("content of a")
    say("/file a.txt", "one", "two")
    assert ["content of a" in q.text for q in chat.conversation.questions()] == [True, False]
    say("/file a.txt", "/clear", "three")
    assert "content of a" not in chat.conversation.questions()[-1].text
    say("see @a.txt", "/edit")
    say(chat.next_line)
    assert chat.conversation.questions()[-1].text.count("content of a") == 1


def test_a_stop_text_can_be_taken_away_again(chat: Chat, say: Say) -> None:
    say("/set stop END")
    assert chat.options.stop == ("END",)
    say("/set stop default")
    assert chat.options.stop == ()


def test_a_failed_model_says_how_to_ask_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = make_chat(tmp_path, fails=True)
    Loop(chat).take("hello")
    assert "/retry" in capsys.readouterr().err
    Loop(chat).take("/model second")
    Loop(chat).take("/retry")
    assert "You said: hello" in capsys.readouterr().out


@pytest.mark.parametrize("words", [0, 2])
def test_memory_that_runs_out_costs_one_line_and_the_chat_goes_on(
    say: Say, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    def run_out(*args: object) -> Iterator[TextDelta]:
        yield from (TextDelta("word ") for _ in range(words))
        raise InsufficientMemoryError("memory ran out: CUDA out of memory", "another model may fit")

    with monkeypatch.context() as poor:
        poor.setattr(Echo, "stream", run_out)
        assert "memory ran out: CUDA out of memory" in say("hello")
    assert "You said: hello" in say("/retry")
    assert "You said: again" in say("again")


def test_options_of_one_session_do_not_leak_into_another(tmp_path: Path, chat: Chat, say: Say) -> None:
    say("/set temperature 0.9", "hot")
    hot = chat.session.id
    say("/clear", "mild")
    assert chat.options.temperature is None
    mild = chat.session.id
    say("/clear")
    resumed = make_chat(tmp_path, session=hot, top_k=3)
    assert (resumed.options.temperature, resumed.options.top_k) == (0.9, 3)
    Loop(resumed).take(f"/resume {mild}")
    assert (resumed.options.temperature, resumed.options.top_k) == (None, 3)
    Loop(resumed).take("/set top_k 7")  # what is said last holds
    assert resumed.options.top_k == 7
    assert saved(resumed)["settings"] == {"top_k": 7}


def test_an_option_that_was_set_back_stays_so(tmp_path: Path, chat: Chat, say: Say) -> None:
    say("/set temperature 0.9", "hello", "/set temperature default", "/fork")
    assert chat.options.temperature is None
    assert saved(chat)["settings"] == {"temperature": None}


def test_a_chat_that_is_not_on_the_disk_is_not_left(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say("other", "/clear", "one")
    with monkeypatch.context() as broken:
        Disk(broken, fails_at="write", error=errno.ENOSPC)
        say("two")
        assert not chat.is_saved
        assert "not saved" in toolbar.render(chat)
        with chat.store.open("other"):  # which is not opened, either, so that nothing is said of a fork
            for line in ("/clear", "/resume other"):
                with pytest.raises(SessionError, match="not saved yet"):
                    run_command(chat, line)
                assert questions(chat) == ["one", "two"]
        chat.notices.show()
        assert "fork" not in capsys.readouterr().err
    left = chat.session.path
    say("/clear")
    assert not chat.conversation.nodes
    assert len(json.loads(left.read_text())["nodes"]) == 4


def run(chat: Chat, *lines: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs the chat with these lines, Ctrl-D for an empty one. Returns those that it did not get to read."""
    waiting = list(lines)

    def read(default: str = "") -> str:
        if line := waiting.pop(0):
            return line
        raise Leave

    monkeypatch.setattr(chat.prompt, "read", read)
    assert Loop(chat).run() == 0
    return waiting


@pytest.mark.parametrize("leave", ["/quit", ""])
def test_a_chat_that_is_not_on_the_disk_is_left_only_when_that_is_asked_twice(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], leave: str
) -> None:
    with monkeypatch.context() as broken:
        Disk(broken, fails_at="write", error=errno.ENOSPC)
        left = run(chat, "one", leave, "two", leave, leave, "three", monkeypatch=monkeypatch)
    assert left == ["three"]
    assert len(chat.conversation.questions()) == 2
    assert capsys.readouterr().err.count("this chat is not saved yet") == 2


@pytest.mark.parametrize("leave", ["/quit", ""])
def test_a_chat_that_is_saved_after_all_is_left_at_once(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    with monkeypatch.context() as broken:
        Disk(broken, fails_at="write", error=errno.ENOSPC)
        Loop(chat).take("one")
    assert not chat.is_saved
    assert run(chat, leave, "two", monkeypatch=monkeypatch) == ["two"]
    assert said(saved(chat)["nodes"][0]) == "one"


def test_what_happened_to_a_session_is_told_when_it_is_opened(
    tmp_path: Path, chat: Chat, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    say("hello")
    other = make_chat(tmp_path)
    Loop(other).take("/resume hello")
    assert "is open in another qwenchat; this is a fork of it" in capsys.readouterr().err
    path = chat.session.path
    say("/clear")
    path.write_text("{ damaged")
    assert "this begins anew, and the first question moves the file aside" in say(f"/resume {path.stem}")
    assert path.read_text() == "{ damaged"
    say("a new begin")
    assert (path.parent / "set-aside" / f"{path.stem}.1.json").read_text() == "{ damaged"


def test_another_model_is_looked_for_before_the_old_one_goes(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("hello")
    backend = chat.backend

    def refuse(name: str) -> None:
        raise ModelNotFoundError(f"there is no model called {name}")

    monkeypatch.setattr(chat, "check_model", refuse)
    assert "there is no model called tpyo" in say("/model tpyo")
    assert chat.backend is backend
    assert chat.model == "first"


def test_a_model_is_closed_once_the_next_is_there(chat: Chat, say: Say) -> None:
    say("hello")
    first = chat.loading.backend
    say("/model second", "again")
    assert isinstance(first, Echo)
    assert first.closed
    assert isinstance(chat.loading.backend, Echo)
    assert not chat.loading.backend.closed


def test_a_ctrl_c_in_a_command_does_not_end_the_chat(
    chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat.store, "search", interrupted)
    say("/search something")
    assert "You said: hello" in say("hello")


def test_a_toolbar_that_fails_costs_nothing(chat: Chat, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    say("hello")
    monkeypatch.setattr(Echo, "count_tokens", lambda *args: 1 // 0)
    assert toolbar.render(chat) == "first"


def test_a_huge_number_is_no_number(refused: Refused) -> None:
    refused("/undo " + "9" * 5000)


def test_hostile_titles_are_harmless_in_completions(chat: Chat, say: Say) -> None:
    say("\x1b[2J\u202eevil")
    for found in completions(chat, "/resume "):
        assert "\x1b" not in found.display_text + found.display_meta_text
        assert "\u202e" not in found.display_text + found.display_meta_text


def test_a_question_is_asked_again_verbatim(chat: Chat, say: Say) -> None:
    say("a\u202eb\x9b2J", "/edit")  # the line shows it harmless
    assert chat.next_line == "a\u202eb\x9b2J"
