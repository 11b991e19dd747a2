"""Names and texts that people take for the same."""

from __future__ import annotations

import unicodedata

import pytest

from qwenchat.text.caseless import fold, named

APART, COMPOSED = unicodedata.normalize("NFD", "Café 한글"), "café 한글"


@pytest.mark.parametrize(
    ("one", "other"), [(APART, COMPOSED), ("STRASSE", "straße"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ﬁn", "FIN")]
)
def test_case_and_composition_do_not_matter(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_a_letter_without_its_accent_is_another() -> None:
    assert "cafe" not in fold(COMPOSED) and "caf" in fold(APART)


def test_the_very_name_is_meant_before_one_like_it() -> None:
    assert named("plan", ["Plan", "plan"]) == "plan"
    assert named(COMPOSED, [APART, "x"]) == APART
    assert named("PLAN", ["Plan", "plan"]) is None  # either could be meant


def test_accents_without_end_do_not_take_hours() -> None:
    endless = "e" + "\u0301\u0316" * 100_000
    assert fold(endless.upper()) == fold(endless)
    assert sorted(fold(endless)) == sorted(endless)
