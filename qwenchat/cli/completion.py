"""Shell completion: what a press of Tab offers after a flag or in the place of a name.

Nothing here fails: whatever is broken, a press of Tab is no place to say so. Typer hands what is offered to
the shell unquoted, so nothing of it is special to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Literal

_MOST_SESSIONS = 50  # more than that nobody chooses from
_SPECIAL = re.compile(r"[^\w.,+/-]", re.ASCII)


def offering(candidates: Callable[[], Iterable[str]]) -> Callable[[], list[str]]:
    """A function for Typer, which takes those of the candidates that begin as what is typed."""

    def complete() -> list[str]:
        try:
            return list(candidates())
        except Exception:  # noqa: BLE001 - see above
            return []

    return complete


def words_of(key: str) -> Callable[[], list[str]]:
    """The words that a setting is one of."""

    def words() -> Iterable[str]:
        from qwenchat.settings.schema import choices

        return choices(key)

    return offering(words)


def models_to(
    do: Literal["load", "show", "pull", "check", "remove", "quantize", "export", "imitate"],
) -> Callable[[], list[str]]:
    """The names of models that a thing can be done with."""

    def names() -> Iterable[str]:
        from qwenchat.models import offers

        found: Iterable[str] = getattr(offers, f"to_{do}")()
        # A folder's name may have anything in it.
        return [name for name in found if re.fullmatch(r"[\w.][\w./-]*", name, re.ASCII)]

    return offering(names)


@offering
def remotes() -> Iterable[str]:
    """The remotes of the config file."""
    from qwenchat.settings.sources import load_settings

    return load_settings({}).settings.remotes


def models_to_chat_with() -> list[str]:
    """The remotes of the config file, and the models that are here."""
    return [*remotes(), *models_to("load")()]


@offering
def devices() -> Iterable[str]:
    """The kinds of devices that are here."""
    from qwenchat.backends.devices import predict_device

    return ("auto", "cpu", "cuda")[: 3 if predict_device("auto", "float32")[0] == "cuda" else 2]


@offering
def tools() -> Iterable[str]:
    """The tools that come with the program."""
    from qwenchat.tools.toolbox import BUILT_IN

    return BUILT_IN


@offering
def prompts() -> Iterable[str]:
    """The named system prompts of the config file."""
    from qwenchat.settings.sources import load_settings

    return [f"@{name}" for name in load_settings({}).settings.prompts]


@offering
def export_formats() -> Iterable[str]:
    """The formats that a session can be exported in."""
    from qwenchat.sessions.export import FORMATS

    return FORMATS


@offering
def weight_formats() -> Iterable[str]:
    """The formats of random weights."""
    from qwenchat.bench.random_weights import FORMATS

    return FORMATS


@offering
def eval_tasks() -> Iterable[str]:
    """The benchmarks."""
    from qwenchat.evals.registry import NAMES

    return NAMES


# --- sessions ------------------------------------------------------------------------------------


def sessions(incomplete: str) -> list[tuple[str, str]]:
    """The names of sessions, the one saved last first: ids, and titles of one word.

    Returns:
        Each with a text of help: an id with its title, a title with its id.
    """
    return _names_of_sessions(incomplete, readable=False)


def readable_sessions(incomplete: str) -> list[tuple[str, str]]:
    """As :func:`sessions`, where what is damaged or a newer version's is refused."""
    return _names_of_sessions(incomplete, readable=True)


def _names_of_sessions(incomplete: str, *, readable: bool) -> list[tuple[str, str]]:
    from qwenchat.cli.context import session_store
    from qwenchat.sessions.listing import with_a_title_alone

    try:
        infos = [info for info in session_store(lambda line: None).list() if not (readable and info.problem)]
    except Exception:  # noqa: BLE001 - see above
        return []
    words = [("latest", info.title) for info in infos if not info.problem][:1]
    words += [(info.id, info.title or info.problem) for info in infos]
    if incomplete:  # else they would stand beside each id anyway
        words += [(info.title, info.id) for info in with_a_title_alone(infos)]
    found = (word for word in words if word[0].startswith(incomplete) and _is_word(word[0]))
    return [(word, _harmless(text)) for word, text in islice(found, _MOST_SESSIONS)]


def _is_word(text: str) -> bool:
    """Says whether every shell takes the text for one word that stands for nothing but itself."""
    return text[:1] not in ("", "-") and _harmless(text) == text and " " not in text


def _harmless(text: str) -> str:
    """The text with a blank for everything in it that could be special to a shell: a title may be $(...)."""
    return "".join(c if c.isprintable() and not (c.isascii() and _SPECIAL.match(c)) else " " for c in text)
