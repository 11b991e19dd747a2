"""Which turns fit: the original's rule, the room for a reply, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from qwenchat.chat.chatml import prompt_ids, turn_ids
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.chat.window import fit_window
from qwenchat.errors import ContextLengthError, PromptError
from qwenchat.tokenizer import QwenTokenizer
from tests.places import GOLDEN

ROWS = json.loads((GOLDEN / "context.json").read_text())


def chat(*turns: str, system: str | None = "s") -> list[Message]:
    messages = [] if system is None else [Message.of_text(Role.SYSTEM, system)]
    for turn in turns[:-1]:
        messages += [Message.of_text(Role.USER, turn), Message.of_text(Role.ASSISTANT, turn)]
    return [*messages, Message.of_text(Role.USER, turns[-1])]


def letters(messages: Sequence[Message]) -> int:
    return sum(len(m.text) for m in messages)


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_the_same_turns_fit_as_in_the_original(row: dict) -> None:
    qwen = QwenTokenizer.default()
    messages = [Message.of_text(Role.SYSTEM, row["system"])]
    for question, answer in row["history"]:
        messages += [Message.of_text(Role.USER, question), Message.of_text(Role.ASSISTANT, answer)]
    messages.append(Message.of_text(Role.USER, row["query"]))

    # The original's window counts the system message and the history alone.
    uncounted = len(prompt_ids(qwen, [messages[0], messages[-1]])) - len(turn_ids(qwen, messages[0]))
    fit = fit_window(
        messages,
        lambda kept: len(prompt_ids(qwen, kept)),
        window=row["max_window_size"] + uncounted,
        reply_budget=0,
    )
    assert prompt_ids(qwen, fit.messages) == row["ids"]
    assert len(fit.messages) + len(fit.left_out) == len(messages)
    assert fit.prompt_tokens == len(row["ids"])


def test_newest_turns_stay_and_older_ones_are_named() -> None:
    fit = fit_window(chat("aaaa", "bb", "c"), letters, window=7, reply_budget=0)
    assert [m.text for m in fit.messages] == ["s", "bb", "bb", "c"]
    assert [m.text for m in fit.left_out] == ["aaaa", "aaaa"]
    assert fit.prompt_tokens == 6


def test_the_window_is_never_filled_to_the_brim() -> None:
    assert not fit_window(chat("bb", "c"), letters, window=7, reply_budget=0).left_out
    assert fit_window(chat("bb", "c"), letters, window=6, reply_budget=0).left_out


def test_room_for_the_reply_comes_before_old_turns() -> None:
    assert not fit_window(chat("bb", "c"), letters, window=17, reply_budget=10).left_out
    assert fit_window(chat("bb", "c"), letters, window=16, reply_budget=10).left_out


def test_no_gap_opens_behind_a_turn_that_does_not_fit() -> None:
    fit = fit_window(chat("a", "bbbbbbbb", "c"), letters, window=10, reply_budget=0)
    assert [m.text for m in fit.messages] == ["s", "c"]


def test_a_last_turn_that_cannot_fit_is_an_error() -> None:
    with pytest.raises(ContextLengthError, match="10 tokens"):
        fit_window(chat("ccccccccc"), letters, window=10, reply_budget=0)


def test_a_chat_without_a_system_message_is_fine() -> None:
    fit = fit_window(chat("a", "c", system=None), letters, window=3, reply_budget=0)
    assert [m.text for m in fit.messages] == ["c"]


def test_there_must_be_something_to_answer() -> None:
    with pytest.raises(PromptError):
        fit_window([Message.of_text(Role.SYSTEM, "s")], letters, window=10, reply_budget=0)


def test_pinned_turns_stay_where_they_are() -> None:
    fit = fit_window(chat("aa", "b", "c", "d"), letters, window=9, reply_budget=0, pinned=[1])
    assert [m.text for m in fit.messages] == ["s", "aa", "aa", "c", "c", "d"]
    assert [m.text for m in fit.left_out] == ["b", "b"]
    assert fit.left_out_turns == (2,)
    assert fit.prompt_tokens == 8


def test_pins_change_nothing_while_all_fits() -> None:
    free = fit_window(chat("a", "b", "c"), letters, window=99, reply_budget=0)
    assert fit_window(chat("a", "b", "c"), letters, window=99, reply_budget=0, pinned=[1, 3, 7]) == free


def test_pinned_turns_that_cannot_fit_are_an_error() -> None:
    with pytest.raises(ContextLengthError, match=r"pinned turns make a prompt of 8 tokens.*unpin"):
        fit_window(chat("aaa", "b", "c"), letters, window=8, reply_budget=0, pinned=[1])


@pytest.mark.parametrize("window", [20, 500, 700, 805, 900, 10_000])
@pytest.mark.parametrize("pinned", [(), (1, 50, 99)])
def test_a_long_chat_is_counted_a_few_times_only(window: int, pinned: Sequence[int]) -> None:
    messages = chat(*("a" * (n % 7) for n in range(1, 200)))
    counts = []

    def count(kept: Sequence[Message]) -> int:
        counts.append(letters(kept))
        return counts[-1]

    fit = fit_window(messages, count, window=window, reply_budget=3, pinned=pinned)
    assert len(counts) <= 12  # of 199 turns
    # One turn more would be too many.
    more = [n for n in fit.left_out_turns if n not in pinned][-1:]
    assert fit.prompt_tokens == letters(fit.messages) < window
    assert all(fit.prompt_tokens + 2 * (n % 7) + 3 >= window for n in more)
