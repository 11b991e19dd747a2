"""The text on the prompt's line: what is stepped over and deleted as one, and what is shown of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.layout.controls import BufferControl
from prompt_toolkit.layout.processors import TransformationInput
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.utils import get_cwidth

from qwenchat.terminal import signs
from qwenchat.terminal.input import display
from qwenchat.terminal.input.line import FOLD_CHARACTERS, FOLD_LINES, Line, Pastes, Shown
from qwenchat.terminal.input.prompt import Prompt, PromptCompleter
from qwenchat.terminal.signs import plain, whole

SIGNS = ["a", "🇩🇪", "👍🏽", "👨‍👩‍👧", "e\u0301", "⚠️", "1️⃣", "각", "中", "\ud800", "z"]
LONG = "\n".join(f"line {n}" for n in range(40))


def line_with(text: str) -> Line:
    line = Line()
    line.document = Document(text, len(text))
    return line


def before(line: Line) -> str:
    return plain(line.document.text_before_cursor)


def test_the_cursor_steps_over_a_whole_sign_in_both_directions() -> None:
    line = line_with("".join(SIGNS))
    for n in range(len(SIGNS), -1, -1):
        assert before(line) == "".join(SIGNS[:n])
        line.cursor_left()
    for n in range(len(SIGNS) + 1):
        assert before(line) == "".join(SIGNS[:n])
        line.cursor_right()


def test_a_sign_is_deleted_whole_from_either_side() -> None:
    line = line_with("".join(SIGNS))
    for n in range(len(SIGNS) - 1, -1, -1):
        line.delete_before_cursor()
        assert plain(line.text) == "".join(SIGNS[:n])
    line = line_with("".join(SIGNS))
    line.cursor_position = 0
    for n in range(1, len(SIGNS) + 1):
        line.delete()
        assert plain(line.text) == "".join(SIGNS[n:])


def test_a_sign_is_typed_character_by_character() -> None:
    line = line_with("👨👧")
    line.cursor_position = 1
    line.insert_text("\u200d")
    assert (before(line), plain(line.text)) == ("👨\u200d👧", "👨\u200d👧")
    line.delete_before_cursor()
    assert line.text == ""


def test_a_text_of_more_signs_than_there_are_stand_ins_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "_free", iter([0xDFFF]))
    monkeypatch.setattr(signs, "_stand_ins", {})
    monkeypatch.setattr(signs, "_signs", {})
    text = "a\u0301b\u0301c\u0301"
    assert len(whole(text)) == 5 and plain(whole(text)) == text


# --- keys ----------------------------------------------------------------------------------------

FAMILY, ACUTE, FLAG, JAMO = "👨‍👩‍👧", "e\u0301", "🇩🇪", "\u1112\u1161\u11ab"
ALL = FAMILY + ACUTE + FLAG + JAMO  # four signs, of 5, 2, 2 and 3 characters
ESCAPE, ALT, HOME = "\x1b", "\x1b", "\x01"
PASTED = "\x1b[200~{}\x1b[201~".format


def typed(keys: str, begun: str = ALL, *, vi: bool = False, history: Path | None = None) -> str:
    """What is sent when these keys are typed on a line, then Enter."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        prompt = Prompt(history, on_ready=lambda: None, vi=vi)
        pipe.send_text(keys + "\r")
        return prompt.read(begun)


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        ("0x", ACUTE + FLAG + JAMO),
        ("02x", FLAG + JAMO),
        ("$x", FAMILY + ACUTE + FLAG),
        ("$X", FAMILY + ACUTE + JAMO),
        ("$2X", FAMILY + JAMO),
        ("0dl", ACUTE + FLAG + JAMO),
        ("03dl", JAMO),
        ("$dh", FAMILY + ACUTE + JAMO),
        ("02lx", FAMILY + ACUTE + JAMO),
        ("$hx", FAMILY + ACUTE + JAMO),
        ("0rz", "z" + ACUTE + FLAG + JAMO),
        ("0rzx", ACUTE + FLAG + JAMO),
        ("0sz", "z" + ACUTE + FLAG + JAMO),
        ("02sz", "z" + FLAG + JAMO),
        ("0clz", "z" + ACUTE + FLAG + JAMO),
        ("0Rzz", "zz" + FLAG + JAMO),
        ("0l~", FAMILY + "E\u0301" + FLAG + JAMO),
        ("04~", FAMILY + "E\u0301" + FLAG + JAMO),
        ("0~x", FAMILY + FLAG + JAMO),
        ("0g~~", FAMILY + "E\u0301" + FLAG + JAMO),
        ("0xp", ACUTE + FAMILY + FLAG + JAMO),
        ("0ylP", FAMILY + ALL),
        ("03|x", FAMILY + ACUTE + JAMO),
        ("0\x16lx", FLAG + JAMO),
    ],
)
def test_keys_of_vi_count_signs(keys: str, sent: str) -> None:
    assert typed(ESCAPE + keys, vi=True) == sent


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        ("\x14", FAMILY + ACUTE + JAMO + FLAG),
        (f"{HOME}\x06\x14", ACUTE + FAMILY + FLAG + JAMO),
        (f"{HOME}{ALT}3\x06-", FAMILY + ACUTE + FLAG + "-" + JAMO),
        (f"{ALT}3\x02-", FAMILY + "-" + ACUTE + FLAG + JAMO),
        (f"{ALT}2\x7f", FAMILY + ACUTE),
        (f"{HOME}{ALT}2\x04", FLAG + JAMO),
        (f"{HOME}{ALT}2{FLAG[0]}", FLAG[0] * 2 + ALL),
    ],
)
def test_keys_of_emacs_count_signs(keys: str, sent: str) -> None:
    assert typed(keys) == sent


def test_a_word_is_deleted_with_the_accents_of_its_last_letter() -> None:
    assert typed(f"{ESCAPE}0dw", f"caf{ACUTE} x", vi=True) in ("x", f"{ACUTE} x")  # é is a word as à is
    assert typed(f"{ESCAPE}0dW", f"caf{ACUTE} x", vi=True) == "x"


def test_what_completes_replaces_what_is_typed_whatever_it_is_written_with() -> None:
    whole_line = line_with(f"@{ACUTE}t")
    completer = PromptCompleter(lambda typed: [Completion(f"{ACUTE}t{ACUTE}", start_position=1 - len(typed))])
    (found,) = completer.get_completions(whole_line.document, CompleteEvent())
    assert found.display_text == f"{ACUTE}t{ACUTE}"
    whole_line.apply_completion(found)
    assert plain(whole_line.text) == f"@{ACUTE}t{ACUTE}"


def test_what_was_typed_is_kept_found_and_typed_again_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "history"
    assert typed("", ALL, history=path) == ALL
    assert ALL in path.read_text("utf-8")
    assert typed("\x1b[A\x7f", "", history=path) == FAMILY + ACUTE + FLAG
    assert typed(f"\x12{ACUTE}{FLAG[0]}{FLAG[1]}\r\x0b", "", history=path) == FAMILY


def test_a_paste_of_signs_is_sent_as_it_is() -> None:
    assert typed(PASTED(ALL) + "\x7f", "") == FAMILY + ACUTE + FLAG


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
    assert [pastes.unfold(folded[n])[:4] for n in (1000, 1499)] == ["1000", "1499"]


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


def test_a_redraw_from_another_thread_never_fails_as_a_line_is_sent() -> None:
    failed: list[Exception] = []
    over = threading.Event()

    def load(prompt: Prompt) -> None:
        while not over.is_set():
            try:
                prompt.redraw()
            except (RuntimeError, AttributeError) as error:
                failed.append(error)
                return

    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        prompt = Prompt(None, on_ready=lambda: None)
        loader = threading.Thread(target=load, args=(prompt,))
        loader.start()
        for _ in range(40):
            keys.send_text("hi\r")
            assert prompt.read() == "hi"
        over.set()
        loader.join()
    assert failed == []
