"""Guesses from what stood before: which tokens, how many, and when none."""

from __future__ import annotations

import random

from qwenchat.engine.prompt_lookup import MOST, Costs, PromptLookup


def test_what_followed_the_same_tokens_is_guessed() -> None:
    assert PromptLookup([1, 2, 3, 4, 5, 6, 9, 1, 2]).guess(2) == [3, 4]


def test_where_more_tokens_are_the_same_is_preferred_and_of_equals_the_last() -> None:
    assert PromptLookup([7, 8, 1, 2, 3, 0, 1, 2, 4, 0, 7, 8, 1, 2]).guess(1) == [3]
    assert PromptLookup([9, 1, 2, 3, 0, 9, 1, 2, 4, 0, 9, 1, 2]).guess(1) == [4]


def test_behind_a_token_that_was_replaced_the_text_is_expected_to_go_on() -> None:
    text = list(range(50))
    lookup = PromptLookup([*text, 0, 1, 2])
    guess = lookup.guess(2)
    assert guess == [3, 4]
    lookup.took(2, 1)  # 3 was right, and 99 came for 4
    for token in (3, 99):
        lookup.add(token)
    assert lookup.guess(2) == [5, 6]
    lookup.took(2, 0)  # it was more than one token that was put in its place
    lookup.add(98)
    for _ in range(3):
        lookup.add(97)
    assert lookup.guess(2) in ([], [97, 97])


def test_what_goes_round_is_guessed_round_and_round() -> None:
    guess = PromptLookup([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]).guess(MOST)
    assert len(guess) > 3
    assert guess == [1, 2, 3, 1, 2, 3, 1, 2][: len(guess)]


def test_nothing_is_guessed_without_room_or_where_nothing_stood_before() -> None:
    assert PromptLookup([1, 2, 3, 1, 2]).guess(0) == []
    for ids in ([], [1], [1, 2], [1, 2, 3, 4], [1, 2, 3, 2, 1]):
        assert PromptLookup(ids).guess(5) == []


def test_guesses_grow_while_they_are_right_and_stop_after_misses() -> None:
    text = list(range(100)) * 2
    lookup = PromptLookup(text[:110])
    lengths = []
    for _ in range(5):
        guess = lookup.guess(MOST)
        assert guess == text[len(lookup.ids) : len(lookup.ids) + len(guess)]
        lengths.append(len(guess))
        lookup.took(len(guess), len(guess))
        for token in text[len(lookup.ids) : len(lookup.ids) + len(guess) + 1]:
            lookup.add(token)
    assert lengths == sorted(lengths)
    for _ in range(30):
        if guess := lookup.guess(MOST):
            lookup.took(len(guess), 0)
    assert lookup.guess(MOST) == []
    assert any(lookup.guess(MOST) for _ in range(1000)), "and tries again later"


def test_nothing_is_guessed_where_a_pass_of_several_tokens_costs_as_much_as_them() -> None:
    costs = Costs()
    ids = [1, 2, 3, 4, 5, 6, 9, 1, 2]
    assert PromptLookup(ids, costs).guess(MOST)
    for tokens in range(1, MOST + 2):
        costs.ran(tokens, 0.01 * tokens)
    assert PromptLookup(ids, costs).guess(MOST) == []
    for tokens in range(2, MOST + 2):
        costs.ran(tokens, 0.0101)  # one good measurement says what it can cost
    assert len(PromptLookup(ids, costs).guess(MOST)) > 1


def test_a_busy_machine_does_not_make_a_pass_look_dear() -> None:
    costs = Costs()
    for tokens in (1, 4):
        costs.ran(tokens, 0.01)
        costs.ran(tokens, 0.01)
    costs.ran(4, 0.02)
    assert costs.of(4) < 1.2


def test_a_long_text_is_looked_through_once() -> None:
    """Else a reply of thousands of tokens would get slower and slower."""
    ids = random.Random(0).choices(range(5), k=20_000)
    lookup = PromptLookup(ids)
    lookup.guess(1)

    class Unread(list[int]):
        def __iter__(self) -> object:
            raise AssertionError("all of it was read again")

    lookup.ids = Unread(ids)
    for token in (1, 2, 3):
        lookup.add(token)
        lookup.guess(1)
