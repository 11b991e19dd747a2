"""Pastes that try to type: whatever they hold, nothing is sent and nothing is run."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.places import TESTS

if os.name != "posix":
    pytest.skip("pseudo-terminals are POSIX's", allow_module_level=True)

from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

from qwenchat.terminal.input.paste import SETTLE_SECONDS, STUCK_SECONDS, PasteParser
from tests.terminal.screen import Screen

PROGRAM = TESTS / "terminal" / "chat_program.py"
BEGIN, END = b"\x1b[200~", b"\x1b[201~"
PLACEHOLDER = "say something, or /help"
MARKER = "executed"  # the file that every hostile command would make

PIECES = [
    *(
        BEGIN,
        END,
        END,
        END,
        END + b"\r",
        b"\x1b[20",
        b"\x1b[201",
        b"\x1b[2",
        b"1~",
        b"\x9b201~",
        b"\xc2\x9b201~",
    ),
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\r",
        b"\x1b\r",
        b"\x1bOM",
        b"\x1b[13u",
        b"\x1b[27;5;13~",
        b"\x16\r",
        b"\x0f",
    ),
    *(b"\x03", b"\x04", b"\x1a", b"\x1c", b"\x7f", b"\x15", b"\x0c", b"\x07", b"\x00", b"\x12hello\r"),
    *(
        b"\x18\x05",
        b"\x1b[24~",
        b"\x1bx",
        b"\x1b!",
        b"\x1b.",
        b"\x1b[A\r",
        b"\x1b[B",
        b"\x1b[D",
        b"\x1b[H",
        b"\x1b",
    ),
    *(
        b"/quit\r",
        b"/exit\r",
        b"/clear\r",
        b"/help\r",
        f"!touch {MARKER}\r".encode(),
        f"`touch {MARKER}`\r".encode(),
    ),
    *(
        b"\x1b]52;c;aGFja2Vk\x07",
        b"\x1b]0;title\x07",
        b"\x1bP+q544e\x1b\\",
        b"\x1b[6n",
        b"\x1b[24;1R",
        b"\x1bc",
    ),
    *(
        b"\x1b[M !!",
        b"\x1b[<0;1;1M",
        b"\x1b[I",
        b"\x1b[?2004l",
        b"\x1b[?1049h",
        b"\x90",
        b"\x9d",
        b"\xc2\x85",
    ),
    *(
        b"\xff\xfe",
        b"\xc3",
        b"\xe4\xb8",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        "中文，好\r".encode(),
        "\u202e".encode(),
    ),
    *(
        "e\u0301".encode(),
        "\u2028".encode(),
        "😀".encode(),
        b"word ",
        b"\t",
        b"@/etc/passwd ",
        b"hello\r",
    ),
]
HUGE = 200 * 1024


def hostile_pastes(count: int, seed: int = 0) -> Iterator[bytes]:
    """What a terminal that filters nothing sends for so many pastes, their marks around them."""
    chance = random.Random(seed)
    for n in range(count):
        pieces = [chance.choice(PIECES) for _ in range(chance.choice((1, 3, 10, 40)))]
        if n % 50 == 49:
            huge = chance.choice((b"x" * HUGE, b"line\r" * (HUGE // 5), "中".encode() * (HUGE // 3)))
            pieces.insert(chance.randrange(len(pieces) + 1), huge)
        if n % 3 == 0:  # the attack itself: an end mark, then what is to be typed
            pieces += [
                END,
                chance.choice((b"", b"text")),
                chance.choice((b"\r", b"/quit\r", b"\x18\x05", b"\x04")),
            ]
        yield BEGIN + b"".join(pieces) + END


# --- the parser, without a terminal ------------------------------------------------------------


class Typing:
    """A parser with a clock that only we move, and the keys that came of it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.keys: list[KeyPress] = []
        self.parser = PasteParser(self.keys.append, clock=lambda: self.now)

    def feed(self, data: str, after: float = 0.0) -> None:
        self.now += after
        self.parser.feed(data)

    def names(self) -> list[str]:
        return [
            key.data if key.key == Keys.BracketedPaste else str(getattr(key.key, "value", key.key))
            for key in self.keys
        ]


def test_of_500_hostile_pastes_none_types_a_key() -> None:
    chance = random.Random(1)
    for paste in hostile_pastes(500):
        typing = Typing()
        text = paste.decode("utf-8", "surrogateescape")
        while text:  # as it is read: in pieces of any size
            size = chance.choice((1, 2, 5, 1024)) if len(text) < 5000 else 1024
            typing.feed(text[:size], after=chance.uniform(0, SETTLE_SECONDS * 0.9) if len(text) < 500 else 0)
            text = text[size:]
        typing.feed("a", after=2 * SETTLE_SECONDS)
        *keys, typed = typing.keys
        assert {key.key for key in keys} <= {Keys.BracketedPaste, Keys.CPRResponse}
        assert typed.key == "a"
        said = "".join(key.data for key in keys if key.key == Keys.BracketedPaste)
        assert "\x1b[201~" not in said
        said.encode()  # whatever its bytes were, it can be written to a file


def test_a_paste_is_one_key_and_keeps_its_text() -> None:
    typing = Typing()
    typing.feed("a\x1b[200~one\rtwo\x1b[A\x03 \x1b[201~")
    typing.feed("b", after=2 * SETTLE_SECONDS)
    assert typing.names() == ["a", "one\rtwo\x1b[A\x03 ", "b"]


def test_what_follows_an_early_end_at_once_is_pasted() -> None:
    typing = Typing()
    typing.feed("\x1b[200~text\x1b[201~\r")
    typing.feed("/quit\r", after=SETTLE_SECONDS / 2)
    typing.feed("\x1b[201~", after=SETTLE_SECONDS / 2)
    typing.parser.settle()
    assert typing.names() == ["text\r/quit\r"]


def test_enter_a_moment_after_a_paste_is_enter() -> None:
    typing = Typing()
    typing.feed("\x1b[200~text\x1b[201~")
    typing.feed("\r", after=2 * SETTLE_SECONDS)
    assert typing.names() == ["text", "c-m"]


def test_a_paste_that_comes_in_pieces_waits_for_its_end() -> None:
    typing = Typing()
    for piece in ("\x1b[20", "0~on", "e\x1b[2", "01", "~"):
        typing.feed(piece, after=SETTLE_SECONDS / 2)
    assert typing.parser.pasting
    typing.parser.settle()
    assert typing.names() == ["one"]
    assert not typing.parser.pasting


def test_a_paste_that_never_ends_is_given_up_by_ctrl_c() -> None:
    typing = Typing()
    typing.feed("\x1b[200~text")
    typing.feed("\x03", after=STUCK_SECONDS / 2)  # too soon: it may be the paste's
    typing.feed("\x03", after=STUCK_SECONDS * 2)
    typing.feed("a")
    assert typing.names() == ["c-c", "a"]


def test_a_second_paste_right_behind_the_first_is_read_to_its_end() -> None:
    typing = Typing()
    typing.feed("\x1b[200~one\x1b[201~\x1b[200~two")
    typing.feed(" three\r\x1b[201~", after=STUCK_SECONDS * 5)
    typing.parser.settle()
    assert typing.names() == ["onetwo three\r"]


def test_where_the_cursor_is_can_be_told_in_the_midst_of_a_paste() -> None:
    typing = Typing()
    typing.feed("\x1b[200~text\x1b[201~\x1b[3;1R")
    typing.parser.settle()
    assert sorted(typing.names()) == [Keys.CPRResponse.value, "text"]


# --- the chat in a terminal --------------------------------------------------------------------


def open_chat(folder: Path) -> Any:
    """The chat on its echo backend, with an editor that leaves a marker if it is ever started."""
    editor = folder / "editor"
    editor.write_text(f"#!/bin/sh\ntouch '{folder / MARKER}'\n")
    editor.chmod(0o700)
    environment = {"EDITOR": str(editor), "VISUAL": str(editor), "PWD": str(folder)}
    screen = Screen([sys.executable, str(PROGRAM), str(folder)], environment=environment, folder=folder)
    screen.until("echo (a test)")
    return screen


def paste_and_look(screen: Any, folder: Path, paste: bytes, number: int) -> None:
    """Pastes, then empties the line; fails if anything but text came of the paste."""
    prompts = screen.prompts
    del screen.output[:]
    screen.type(paste)
    # Typed once it has been quiet: an "x" that the line takes, and a Ctrl-C that empties it.
    done = f"x{number}x"
    screen.pause(2 * SETTLE_SECONDS)
    screen.type(done)
    screen.until(lambda _: done in screen.line.replace(" ", "") or done in "".join(screen.rows))
    screen.type("\x03")
    screen.until(lambda _: screen.line in ("", PLACEHOLDER))
    assert screen.prompts == prompts and screen.at_prompt, (
        f"{paste[:200]!r} closed the prompt:\n{screen.text}"
    )
    assert b"\x1b]52" not in screen.output and b"\x1b[?1049h" not in screen.output
    assert not list(folder.glob("sessions/*.json")), f"{paste[:200]!r} was sent"
    assert not (folder / MARKER).exists(), f"{paste[:200]!r} was executed"


def test_hostile_pastes_into_the_chat_send_and_run_nothing(tmp_path: Path) -> None:
    screen = open_chat(tmp_path)
    try:
        for number, paste in enumerate(hostile_pastes(12, seed=2)):
            paste_and_look(screen, tmp_path, paste, number)
        screen.type("hello there\r")
        screen.until("You said: hello there")
    finally:
        screen.close()
