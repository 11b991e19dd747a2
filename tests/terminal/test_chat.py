"""The chat as a user meets it: the real loop and prompt in a pseudo-terminal, a screen behind it."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chats import said
from tests.places import TESTS

if os.name != "posix":
    pytest.skip("pseudo-terminals are POSIX's", allow_module_level=True)

from tests.terminal import screen as terminal

PROGRAM = TESTS / "terminal" / "chat_program.py"


class Screen(terminal.Screen):
    """The program in a terminal of 80 by 24, and what that shows."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.folder = folder
        super().__init__(
            [sys.executable, str(PROGRAM), str(folder), *arguments],
            environment={"LC_ALL": "C.UTF-8", **variables},
            folder=folder,
        )

    def session(self) -> dict[str, Any]:
        """The one session's file."""
        (path,) = (self.folder / "sessions").glob("*.json")
        session: dict[str, Any] = json.loads(path.read_text())
        return session


@pytest.fixture
def open_chat(tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    opened: list[Screen] = []

    def start(*arguments: str, **variables: str) -> Screen:
        opened.append(Screen(tmp_path, *arguments, **variables))
        return opened[-1]

    yield start
    for screen in opened:
        screen.close()


def ready(screen: Screen) -> Screen:
    screen.until("echo (a test)")
    return screen


def idle(screen: Screen) -> Screen:
    """Waits until the line is there again and empty."""
    screen.until(lambda text: [line for line in text.splitlines() if line][-2] == ">")
    return screen


def listening(screen: Screen) -> Screen:
    """Waits until the prompt takes keys, on a terminal that has no toolbar to tell by."""
    screen.until(lambda _: not screen.settings()[3] & termios.ICANON)
    return screen


def leave(screen: Screen) -> int | None:
    """Ctrl-D, once the line is there again and empty."""
    idle(screen).type("\x04")
    return screen.wait()


def test_a_question_is_answered_and_saved(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("hello there\r")
    screen.until("You said: hello there")
    assert leave(screen) == 0
    session = screen.session()
    assert session["title"] == "hello there"
    assert "complete" in json.dumps(session)


def test_ctrl_c_keeps_the_part_and_continue_goes_on(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("slow one two three four five six seven eight nine ten\r")
    screen.until("You said: slow one")
    screen.type("\x03")
    screen.until("interrupted; /continue")
    assert "interrupted" in json.dumps(screen.session())
    idle(screen).type("/continue\r")
    screen.until("nine ten")
    assert leave(screen) == 0
    assert json.dumps(screen.session()).count("nine ten") == 3  # the title, the question and the whole reply


def test_a_message_waits_for_the_model(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat("2")
    screen.until("first: loading weights")
    screen.type("early\r")
    screen.until("You said: early")


def test_ctrl_c_takes_a_waiting_message_back(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat("60")
    screen.until("first: loading weights")
    screen.type("never mind\r")
    time.sleep(0.5)
    screen.type("\x03")
    screen.until(lambda text: "taken back" in text and text.rstrip().count("> never mind") == 2)


def test_a_model_that_fails_is_told_and_another_can_be_tried(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat("0", "fail")
    screen.until("there is no model called first; /model NAME tries another")
    screen.type("hello\r")
    screen.until(lambda text: text.count("there is no model called first") >= 2)
    idle(screen).type("/model second\r")
    ready(screen).type("hello again\r")
    screen.until("You said: hello again")


def test_a_model_that_fails_leaves_the_one_that_is_there_and_says_so_at_once(
    open_chat: Callable[..., Screen],
) -> None:
    screen = ready(open_chat())
    screen.type("/model damaged\rhalf a mess")
    for text in ("there is no model called damaged", "keeping first", "> half a mess", "echo (a test)"):
        screen.until(text)
    screen.type("age\r")
    screen.until("You said: half a message")


def test_undo_and_retry_walk_the_tree(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("first\r")
    screen.until("You said: first")
    idle(screen).type("/retry\r")
    screen.until("‹2/2›")
    idle(screen).type("/prev\r")
    screen.until("‹1/2›")
    idle(screen).type("/undo\r")
    screen.until("took back the last turn")
    idle(screen).type("/redo\r")
    screen.until("went forward one turn")


@pytest.mark.parametrize("paste", ["a\rb\rc", "rm -rf /\n\x1b[201~\r", "x\x1b[200~y\r\n"])
def test_a_paste_never_sends_by_itself(open_chat: Callable[..., Screen], paste: str) -> None:
    screen = ready(open_chat())
    screen.type(f"\x1b[200~{paste.split(chr(27) + '[201~')[0]}\x1b[201~")
    time.sleep(0.5)
    assert "You said" not in screen.text
    assert not list((screen.folder / "sessions").glob("*.json"))


def test_a_large_paste_folds_and_is_sent_whole(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("\x1b[200~" + "\r".join(f"line{i}" for i in range(30)) + "\x1b[201~")
    screen.until("[paste 1: 30 lines]")
    screen.type("\r")
    screen.until("line29")


def test_a_large_paste_without_line_breaks_folds_as_well(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("\x1b[200~" + "x" * 2500 + " the end\x1b[201~")
    screen.until("[paste 1: 2,508 characters]")
    screen.type("\r")
    screen.until("the end")


def test_what_is_pasted_is_shown_harmless_and_sent_verbatim(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    text = "\u2066iso\u2069 \u200fright soft\u00adhy zero\u200bwidth \x1b[2J tab\tx nul\x00 end"
    screen.paste(text)
    screen.until("<U+2066>iso<U+2069> right softhy zerowidth ␛[2J")
    screen.type("\r")
    screen.until("You said: <U+2066>iso")
    idle(screen)
    assert said(screen.session()["nodes"][0]) == text


def test_a_folded_paste_is_deleted_as_one_character_and_the_letters_beside_it_are_letters(
    open_chat: Callable[..., Screen],
) -> None:
    screen = ready(open_chat())
    paste = "\n".join(f"line {n}" for n in range(40))
    screen.type("say ")
    screen.paste(paste)
    screen.until("> say [paste 1: 40 lines]")
    screen.type("XY\x7f\x1b[D\x1b[DZ")
    screen.until("> say Z[paste 1: 40 lines]X")
    screen.type("\x1b[C\x7f")  # over the paste, which goes
    screen.until("> say ZX")
    screen.type("\x1f")  # and comes again
    screen.until("> say Z[paste 1: 40 lines]X")
    screen.type("\r")
    screen.until("line 39X")
    idle(screen)
    assert said(screen.session()["nodes"][0]) == f"say Z{paste}X"


def test_a_paste_that_is_refused_stays_folded_below_the_reason(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("hello\r")
    screen.until("You said: hello")
    idle(screen)
    screen.paste("\n".join("many words " * 5 for _ in range(40)))
    screen.until("> [paste 1: 40 lines]")
    screen.type("\r")
    shown = screen.until(lambda text: text.count("> [paste 1: 40 lines]") == 2)
    reason = shown.splitlines()[screen.rows.index("> [paste 1: 40 lines]") + 1]
    assert "context" in reason


def test_signs_of_several_characters_are_stepped_over_and_redrawn_whole(
    open_chat: Callable[..., Screen],
) -> None:
    screen = ready(open_chat())
    screen.type("a👨‍👩‍👧b⚠️c")
    screen.until(lambda _: screen.screen.cursor.x == 9)
    screen.type("\x1b[H")
    for column in (3, 5, 6, 8, 9):
        screen.type("\x1b[C")
        screen.until(lambda _, column=column: screen.screen.cursor.x == column)
    screen.type("\x1b[D\x7f\x1b[D\x7f")
    screen.until(lambda _: screen.screen.cursor.x == 3)
    screen.type("\r")
    screen.until("You said: abc")


def test_alt_enter_breaks_the_line(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("one\x1b\rtwo\r")
    screen.until("You said: one two")


def test_a_mistyped_command_suggests_and_two_slashes_are_text(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("/hlep\r")
    screen.until("did you mean /help?")
    idle(screen).type("//etc/hosts\r")
    screen.until("You said: /etc/hosts")


def test_what_no_longer_fits_is_said_by_turn(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    for n in range(4):
        screen.type(f"{n} " + "word " * 30 + "\r")
        screen.until(lambda text, n=n: f"You said: {n}" in text and "tokens/s" in text.splitlines()[-1])  # type: ignore[misc]
    screen.until("no longer fits the context and is left out")


def test_ctrl_c_twice_on_an_empty_line_leaves(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("some text\x03")
    screen.type("\x03")
    screen.until("Ctrl-C again or Ctrl-D leaves")
    screen.type("\x03")
    assert screen.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_leaves(open_chat: Callable[..., Screen], number: signal.Signals) -> None:
    screen = ready(open_chat())
    screen.type("slow " + "word " * 40 + "\r")
    screen.until("You said: slow word")
    screen.process.kill(number)
    assert screen.wait() == 128 + number
    assert "interrupted" in json.dumps(screen.session())


def test_what_was_typed_is_kept_for_its_owner_alone(open_chat: Callable[..., Screen]) -> None:
    previous = os.umask(0)
    try:
        screen = ready(open_chat())
    finally:
        os.umask(previous)
    screen.type("hello\r")
    screen.until("You said: hello")
    assert stat.S_IMODE((screen.folder / "history").stat().st_mode) == 0o600
    leave(screen)
    again = ready(open_chat())
    again.type("\x1b[A")
    again.until("> hello")


# --- the line ------------------------------------------------------------------------------------


def asked(screen: Screen) -> str:
    """The text of the last question, once it was answered."""
    screen.until(lambda text: "tokens/s" in text.splitlines()[-1])
    nodes = screen.session()["nodes"]
    return str([said(node) for node in nodes if node["role"] == "user"][-1])


def test_ctrl_r_searches_what_was_typed_before(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("a needle of old\r")
    screen.until("You said: a needle")
    idle(screen).type("something else\r")
    screen.until("You said: something")
    idle(screen).type("\x12need")
    screen.until("I-search backward: need")
    screen.type("\r\r")
    screen.until(lambda text: text.count("You said: a needle") == 2)
    idle(screen).type("\x12need")
    screen.until("I-search backward: need")
    screen.type("\x03")
    idle(screen)


def test_what_was_typed_before_is_suggested_and_the_right_arrow_takes_it(
    open_chat: Callable[..., Screen],
) -> None:
    screen = ready(open_chat())
    screen.type("hello out there\r")
    screen.until("You said: hello")
    screen.type("hello")
    screen.until(lambda text: text.count("> hello out there") == 2)
    screen.type("\x1b[C\r")
    screen.until(lambda text: text.count("You said: hello out there") == 2)


def test_vi_keys_move_and_change(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat(QWENCHAT_KEYS="vi"))
    screen.type("hello there\x1b")
    time.sleep(1)  # an escape is one once no more of a sequence comes
    screen.type("0cegoodbye\x1b\r")
    screen.until("You said: goodbye there")


def test_ctrl_x_ctrl_e_opens_the_editor(open_chat: Callable[..., Screen], tmp_path: Path) -> None:
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\nprintf "typed from the editor" > "$1"\n')
    script.chmod(0o700)
    screen = ready(open_chat(EDITOR=str(script), VISUAL=""))
    screen.type("typed\x18\x05")
    screen.until("typed from the editor")
    screen.type("\r")
    screen.until("You said: typed from the editor")


def test_tab_completes_commands_and_paths(open_chat: Callable[..., Screen], tmp_path: Path) -> None:
    (tmp_path / "unmistakable.txt").write_text("the content")
    screen = ready(open_chat())
    screen.type("/hist")
    screen.until("Print the chat so far.")
    screen.type("\t")
    screen.until("> /history")
    screen.type("\rread @unmi\t")
    screen.until("> read @unmistakable.txt")
    screen.until(lambda text: "unmistakable.txt: 4 tokens" in text.splitlines()[-1])
    screen.type("\r")
    assert "the content" in asked(screen)


def test_slash_shows_the_commands_while_typing(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("/un")
    screen.until("Let turn N leave the context again.")
    screen.type("\x03")


def test_multiline_swaps_enter_and_alt_enter(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("/multiline\r")
    screen.until("Enter breaks the line")
    idle(screen).type("one\rtwo\x1b\r")
    screen.until("You said: one two")
    idle(screen).type("/multiline\r")
    screen.until("Enter sends")


def test_chinese_and_emoji_are_edited_by_character(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("你好世界👋\x7f\x7f\x1b[D美")
    screen.until("美")
    screen.type("\r")
    assert asked(screen) == "你好美世"


def test_a_long_chinese_line_wraps_and_is_sent_whole(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("长" * 100 + "\r")
    assert asked(screen) == "长" * 100


def test_keys_typed_while_a_reply_comes_wait_for_the_prompt(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("slow one two three four five\r")
    screen.until("You said: slow")
    screen.type("typed ahead")
    screen.until("four five")
    shown = screen.until("> typed ahead")
    assert shown.count("typed ahead") == 1


def test_delete_asks_first(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("hello\r")
    screen.until("You said: hello")
    idle(screen).type("/delete\r")
    screen.until("delete 'hello' (one turn)? [y/N]")
    screen.type("\r")
    screen.until("it stays")
    idle(screen).type("/delete\r")
    screen.until(lambda text: text.count("[y/N]") == 2)
    screen.type("y\r")
    screen.until("deleted 'hello'")
    assert not list((screen.folder / "sessions").glob("*.json"))


def test_the_meter_counts_a_session_that_is_gone_on_with(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("hello there\r")
    screen.until("context 10/200")
    screen.type("/clear\r")
    screen.until("context 0/200")
    screen.type("/resume\r")
    screen.until("context 10/200")


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"QWENCHAT_PLAIN": "1"}])
def test_a_plain_terminal_gets_the_text_as_it_comes(
    open_chat: Callable[..., Screen], variables: dict[str, str]
) -> None:
    screen = open_chat(**variables)
    listening(screen).type("**bold** text\r")
    screen.until("You said: **bold** text")


@pytest.mark.parametrize("quiet", ["0", "1"])
def test_on_a_dumb_terminal_too_the_progress_is_kept_from_who_wants_it_quiet(
    open_chat: Callable[..., Screen], quiet: str
) -> None:
    screen = open_chat("1", TERM="dumb", QWENCHAT_QUIET=quiet)
    listening(screen).type("hello\r")
    screen.until("You said: hello")
    assert (b"loading weights" in screen.output) == (quiet == "0")


def test_a_dumb_terminal_gets_no_escape(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat(TERM="dumb")
    for line, shown in (("**bold** text", "You said: **bold** text"), ("/delete", "[y/N]"), ("", "it stays")):
        listening(screen).type(f"{line}\r")
        screen.until(shown)
    assert b"\x1b" not in screen.output


def test_a_history_that_cannot_be_written_costs_a_line(
    open_chat: Callable[..., Screen], tmp_path: Path
) -> None:
    (tmp_path / "history").mkdir()
    screen = ready(open_chat())
    screen.type("hello\r")
    screen.until("You said: hello")
    screen.until("the history of typed lines is not saved")
    idle(screen).type("again\r")
    assert screen.until("You said: again").count("is not saved") == 1


def test_a_second_ctrl_c_does_not_end_the_chat(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("slow one two three four five six seven\r")
    screen.until("You said: slow one")
    screen.type("\x03\x03")
    screen.until("interrupted; /continue")
    idle(screen).type("hello\r")
    screen.until("You said: hello")


def test_a_folded_paste_is_recalled_whole(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("\x1b[200~" + "\r".join(f"line{i}" for i in range(20)) + "\x1b[201~")
    screen.until("[paste 1: 20 lines]")
    screen.type("\r")
    screen.until("tokens/s")
    idle(screen).type("\x1b[A")
    screen.until("> line0")


def test_ctrl_c_gives_up_an_edit(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("first\r")
    screen.until("You said: first")
    idle(screen).type("/edit\r")
    screen.until("question 1 in other words")
    screen.type("\x03")
    idle(screen).type("second\r")
    screen.until("You said: second")
    assert screen.session()["turns"] == 2


@pytest.mark.parametrize("command", ["/help", "/deutsch"])
def test_the_chat_speaks_chinese_where_the_locale_does(
    open_chat: Callable[..., Screen], command: str
) -> None:
    screen = open_chat(LC_ALL="", LANG="zh_CN.UTF-8", PYTHONUTF8="1")
    screen.until("上下文 0/200")
    screen.type(f"{command}\r")
    screen.until("撤销最后一轮" if command == "/help" else "没有命令 /deutsch")
