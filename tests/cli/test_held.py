"""What an answer is held to, from the flags of ``ask``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwenchat.cli.held import grammar_of
from qwenchat.errors import UsageError

pytest.importorskip("llguidance")


def test_flags_become_a_grammar(tmp_path: Path) -> None:
    schema, lark = tmp_path / "schema.json", tmp_path / "answer.lark"
    schema.write_text(json.dumps({"type": "object"}))
    lark.write_text('start: "a" | "b"\n')
    assert grammar_of(None, None, None) == ""
    assert grammar_of(None, None, 'yes, no "x"') == 'start: "yes" | "no \\"x\\""'
    assert grammar_of(None, lark, None) == 'start: "a" | "b"\n'
    assert grammar_of(schema, None, None).startswith("start: %json {")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON schema"),
        ("[1]", "no JSON schema"),
        ('{"type": 3}', "cannot be used"),
        (None, "held.json"),
    ],
)
def test_a_schema_that_cannot_be_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "held.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=words):
        grammar_of(path, None, None)


def test_a_choice_needs_words_and_one_flag_is_enough(tmp_path: Path) -> None:
    for choice in ("", "a,,b"):
        with pytest.raises(UsageError, match="empty word"):
            grammar_of(None, None, choice)
    with pytest.raises(UsageError, match="combined"):
        grammar_of(tmp_path, None, "a")
    bad = tmp_path / "bad.lark"
    bad.write_text("start: nothing")
    with pytest.raises(UsageError, match="cannot be used"):
        grammar_of(None, bad, None)
