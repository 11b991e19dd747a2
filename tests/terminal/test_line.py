"""The text on the prompt's line: what is stepped over and deleted as one, and what is shown of it."""

from __future__ import annotations

import pytest
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.layout.controls import BufferControl
from prompt_toolkit.layout.processors import TransformationInput
from prompt_toolkit.utils import get_cwidth

from qwenchat.terminal import display
from qwenchat.terminal.line import FOLD_CHARACTERS, FOLD_LINES, Line, Pastes, Shown

SIGNS = ["a", "🇩🇪", "👍🏽", "👨‍👩‍👧", "e\u0301", "⚠️", "1️⃣", "각", "中", "\ud800", "z"]
LONG = "\n".join(f"line {n}" for n in range(40))


def line_with(text: str) -> Line:
    line = Line()
    line.on_cursor_position_changed += lambda _: line.cursor_moved()
    line.document = Document(text, len(text))
    return line


def test_the_cursor_steps_over_a_whole_sign_in_both_directions() -> None:
    line = line_with("".join(SIGNS))
    for n in range(len(SIGNS), -1, -1):
        assert line.text[: line.cursor_position] == "".join(SIGNS[:n])
        line.cursor_left()
    for n in range(len(SIGNS) + 1):
        assert line.text[: line.cursor_position] == "".join(SIGNS[:n])
        line.cursor_right()


def test_a_sign_is_deleted_whole_from_either_side() -> None:
    line = line_with("".join(SIGNS))
    for n in range(len(SIGNS) - 1, -1, -1):
        line.delete_before_cursor()
        assert line.text == "".join(SIGNS[:n])
    line = line_with("".join(SIGNS))
    line.cursor_position = 0
    for n in range(1, len(SIGNS) + 1):
        line.delete()
        assert line.text == "".join(SIGNS[n:])


def test_no_part_of_a_sign_is_left_where_a_word_ends_in_it() -> None:
    line = line_with("cafe\u0301")
    line.delete_before_cursor(1)  # as a command does that takes the accent for a word
    assert line.text == "caf"
    line = line_with("👍🏽👍🏽")
    line.cursor_position = 1  # a column of another line, for one
    assert line.cursor_position in (0, 2)


def test_a_sign_is_typed_character_by_character() -> None:
    line = line_with("👨👧")
    line.cursor_position = 1
    line.insert_text("\u200d")
    assert line.cursor_position == len(line.text)
    line.delete_before_cursor()
    assert line.text == ""


# --- pastes --------------------------------------------------------------------------------------


def test_a_short_paste_is_as_it_is_and_a_long_one_a_single_character() -> None:
    pastes = Pastes()
    assert pastes.fold("a\n" * (FOLD_LINES - 1) + "b") == "a\n" * (FOLD_LINES - 1) + "b"
    for text in (LONG, "x" * (FOLD_CHARACTERS + 1)):
        folded = pastes.fold(text)
        assert len(folded) == 1
        assert pastes.unfold(f"see {folded}!") == f"see {text}!"
        assert pastes.refold(f"see {text}!") == f"see {folded}!"
        assert len(pastes.hide(folded)) == 1 and pastes.hide(folded).encode()
    assert pastes.unfold("[paste 1: 40 lines]") == "[paste 1: 40 lines]"


def test_thousands_of_pastes_are_each_themselves() -> None:
    pastes = Pastes()
    folded = [pastes.fold(f"{n}\n{LONG}") for n in range(1500)]
    assert [pastes.unfold(folded[n])[:4] for n in (600, 1499)] == ["600\n", "1499"]


def test_a_text_from_elsewhere_cannot_bring_a_paste_in() -> None:
    pastes = Pastes()
    folded = pastes.fold(LONG)
    assert pastes.unfold(pastes.refold(f"a {folded} b")) == "a \ufffd b"


# --- what is shown -------------------------------------------------------------------------------


def shown(text: str, pastes: Pastes | None = None, *, drawn: bool = False) -> tuple[list[str], list[int]]:
    """What stands for each sign, and the place in it of each character and of the end."""
    pastes = pastes or Pastes()
    processor = Shown(lambda sign: display.drawn(pastes.shown(sign)) if drawn else pastes.shown(sign))
    result = processor.apply_transformation(
        TransformationInput(BufferControl(Buffer()), Document(text), 0, lambda n: n, [("", text)], 80, 24)
    )
    places = [result.source_to_display(n) for n in range(len(text) + 1)]
    assert all(result.display_to_source(place) >= n for n, place in enumerate(places))
    return [part for _, part, *_ in result.fragments], places


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\u2066a\u2069", "<U+2066>a<U+2069>"),
        ("a\u200fb\u00adc\u200bd", "abcd"),
        ("\x1b[2J\x07\x9b", "␛[2J␇<U+009B>"),
        ("plain", "plain"),
    ],
)
def test_only_what_is_shown_passes_the_gate(text: str, seen: str) -> None:
    parts, places = shown(text)
    assert "".join(parts) == seen
    assert places[0] == 0 and places[-1] == len(seen)


def test_a_folded_paste_is_shown_as_a_few_words() -> None:
    pastes = Pastes()
    text = f"a{pastes.fold(LONG)}{pastes.fold('x' * 3000)}b"
    parts, places = shown(text, pastes)
    assert parts == ["a", "[paste 1: 40 lines]", "[paste 2: 3,000 characters]", "b"]
    assert places == [0, 1, 20, 47, 48]


@pytest.mark.parametrize("sign", ["🇩🇪", "👍🏽", "👨‍👩‍👧", "⚠️", "1️⃣"])
def test_a_sign_is_measured_as_the_two_cells_that_it_takes(sign: str) -> None:
    (part,), places = shown(sign, drawn=True)
    assert get_cwidth(part) == 2
    assert places == [0] * len(sign) + [1]


def test_what_stands_for_a_sign_is_told_from_the_same_character_typed() -> None:
    (stand_in,), _ = shown("🇩🇪", drawn=True)
    (typed,), _ = shown(stand_in, drawn=True)
    assert typed != stand_in and get_cwidth(typed) == get_cwidth(stand_in)
