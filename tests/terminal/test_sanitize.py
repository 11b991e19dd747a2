"""The gate between text from elsewhere and the terminal: nothing that a terminal obeys gets through."""

from __future__ import annotations

import random
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenchat.terminal import sanitize as module
from qwenchat.terminal.sanitize import StreamGate, sanitize, sanitize_line

EVERY_CHARACTER = "".join(map(chr, range(sys.maxunicode + 1)))


@pytest.fixture(scope="module")
def shown_alone() -> list[str]:
    """What each character is shown as, alone."""
    return list(map(sanitize, EVERY_CHARACTER))


# Spelled out again rather than taken from the module, so that the two must agree.
JOINERS = "\u200c\u200d"
PRINTED_FORMAT_CHARACTERS = (
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


# --- every character there is --------------------------------------------------------------------


def test_no_control_format_or_separator_character_survives_but_the_documented_ones(
    shown_alone: list[str],
) -> None:
    survivors = {"Cc": "", "Cf": "", "Cs": "", "Zl": "", "Zp": ""}
    for character, shown in zip(EVERY_CHARACTER, shown_alone, strict=True):
        if shown == character:
            category = unicodedata.category(character)
            if category in survivors:
                survivors[category] += character
    # An older Python does not know all of these as format characters yet, so: no others.
    allowed = set(JOINERS + PRINTED_FORMAT_CHARACTERS)
    assert set(survivors.pop("Cf")) <= allowed
    assert survivors == {"Cc": "\t\n", "Cs": "", "Zl": "", "Zp": ""}
    assert all(sanitize(character) == character for character in allowed)


def test_what_stands_in_is_visible_and_what_does_not_need_one_stays(shown_alone: list[str]) -> None:
    for character, shown in zip(EVERY_CHARACTER, shown_alone, strict=True):
        if shown == character:
            continue
        assert shown == "\n" if character in "\u2028\u2029" else shown.isprintable(), hex(ord(character))
        # Letters, marks, numbers, signs and spaces are nobody's threat.
        assert unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp"), hex(ord(character))


def test_everything_together_is_shown_as_each_alone_and_is_plain_utf8(shown_alone: list[str]) -> None:
    shown = sanitize(EVERY_CHARACTER)
    assert shown == "".join(shown_alone)
    assert not FORBIDDEN.search(shown)
    assert shown.encode("utf-8").decode("utf-8") == shown


def test_sanitising_twice_is_sanitising_once(shown_alone: list[str]) -> None:
    stand_ins = {
        shown for character, shown in zip(EVERY_CHARACTER, shown_alone, strict=True) if shown != character
    }
    assert all(sanitize(shown) == shown for shown in stand_ins)


def test_text_that_walks_through_all_of_unicode_does_not_fill_the_memory(shown_alone: list[str]) -> None:
    assert len(module._TABLE) <= 20_000
    assert sanitize("\U000fabcd \U0010fffe 终") == "\U000fabcd <U+10FFFE> 终"


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b]8;;http://x\x1b\\y", "␛]8;;http://x␛\\y"),
        ("\x00\x08\x0b\x0c\x1f\x7f", "␀␈␋␌␟␡"),
        ("100 %\r50 %", "100 %␍50 %"),
        ("a\r\nb\r\r\n", "a\nb␍\n"),
        ("\x9b2J\x85", "<U+009B>2J<U+0085>"),
        ("user\u202etxt.exe", "user<U+202E>txt.exe"),
        ("\u2066a\u2069", "<U+2066>a<U+2069>"),
        ("one\u2028two\u2029three", "one\ntwo\nthree"),
        ("\ufeffso\u00adft\u200b\u2060 \u200eword\u200f\u061c", "soft word"),
        ("a\ufff9b\ufffac\ufffbd", "abcd"),
        ("hi\U000e0001\U000e0068\U000e0069\U000e007f", "hi"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "\U0001f3f4"),
        ("caf\udce9 \ud83d", "caf<U+DCE9> <U+D83D>"),
        ("\ufdd0\ufffe\U0010ffff", "<U+FDD0><U+FFFE><U+10FFFF>"),
        ("[b]x[/b] <i> :smile: \\x1b <U+202E>", "[b]x[/b] <i> :smile: \\x1b <U+202E>"),
        ("", ""),
    ],
)
def test_each_kind_is_shown_as_documented(text: str, shown: str) -> None:
    assert sanitize(text) == shown


def test_a_line_stays_a_line() -> None:
    assert sanitize_line("a\nb\tc\r\nd\u2028e\x85\x0b\x0cf") == "a b c d e<U+0085>␋␌f"
    assert len(sanitize_line(EVERY_CHARACTER).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 ❤️‍🔥 🇩🇪 1️⃣",
        "क्षत्रिय क्‍ष श्री",
        "می‌خواهم ﷽ ۝",
        "你好，世界。　全角空格「」——…",
        "葛\U000e0100城市",
        "日本語 한국어 עברית العربية ไทย",
        "Zoë naïve e\u0301 ½ € 𝔘 ∑ \u00a0 \ufffd",
        "┌─┐│█▒ \ue0b0",
    ],
)
def test_the_scripts_of_the_world_and_emoji_survive_unchanged(text: str) -> None:
    assert sanitize(text) == text


# --- streams -------------------------------------------------------------------------------------

PIECES = [
    *(
        "\x1b[",
        "\x1b]",
        "\x1bP",
        "\x1b_",
        "\x1b\\",
        "\x9b",
        "\x9d",
        "\x90",
        "\x07",
        "\r",
        "\r\n",
        "\x08",
        "\x7f",
        "\x00",
    ),
    *("31m", "2J", "0;title", "52;c;cm0gLXJm", "8;;http://example.com", "?1049h", "6n", "201~", "c"),
    *(
        "\u202e",
        "\u202c",
        "\u2066",
        "\u2069",
        "\u200f",
        "\ufeff",
        "\u200b",
        "\xad",
        "\u2028",
        "\U000e0041",
        "\udc9b",
    ),
    *("hello", " ", "\n", "\t", "你好", "👨‍👩‍👧", "می‌", "[bold]", "```", "<U+", "\\x1b"),
]


def test_fuzzed_escape_sequences_come_out_harmless_however_the_stream_is_cut() -> None:
    rng = random.Random(3)
    for _ in range(100_000):
        text = "".join(rng.choices(PIECES, k=rng.randrange(12)))
        shown = sanitize(text)
        assert not FORBIDDEN.search(shown)
        cut = rng.randint(0, len(text))
        gate = StreamGate()
        assert gate.push(text[:cut]) + gate.push(text[cut:]) + gate.finish() == shown


@given(st.lists(st.text(st.characters(codec=None) | st.sampled_from("\r\n"))))
def test_cutting_changes_nothing(pieces: list[str]) -> None:
    gate = StreamGate()
    shown = "".join(map(gate.push, pieces)) + gate.finish()
    assert shown == sanitize("".join(pieces))
    shown.encode("utf-8")
