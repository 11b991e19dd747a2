"""What an answer is held to: a JSON schema, a grammar or a choice of words, as a grammar of llguidance's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwenchat.errors import UsageError

_LARGEST = 2**20


def grammar_of(schema: Path | None, grammar: Path | None, choice: str | None) -> str:
    """The grammar that the flags ask for; empty if they ask for none.

    Raises:
        UsageError: they ask for several, or for what is none.
    """
    if sum(flag is not None for flag in (schema, grammar, choice)) > 1:
        raise UsageError("--schema, --grammar and --choice cannot be combined", "choose one")
    if schema is not None:
        from qwenchat.tools.grammar import json_rule

        found = f"start: {json_rule(_schema(schema))}"
    elif grammar is not None:
        found = _text(grammar)
    elif choice is not None:
        found = _choices(choice)
    else:
        return ""
    from qwenchat.text.grammars import check_grammar

    check_grammar(found)
    return found


def _schema(path: Path) -> dict[str, Any]:
    import json

    try:
        schema = json.loads(_text(path))
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise UsageError("{path} holds no JSON schema", path=path)
    return schema


def _choices(words: str) -> str:
    import json

    found = [word.strip() for word in words.split(",")]
    if not all(found):
        raise UsageError("--choice has an empty word", "separate the words by commas: --choice yes,no")
    return f"start: {' | '.join(json.dumps(word, ensure_ascii=False) for word in found)}"


def _text(path: Path) -> str:
    from qwenchat.files.opening import read_file, reason_of
    from qwenchat.files.text import decode

    try:
        data, _ = read_file(path.expanduser(), _LARGEST)
    except (OSError, ValueError) as error:
        raise UsageError("{path}: {reason}", path=path, reason=reason_of(error)) from error
    return decode(data, str(path))
