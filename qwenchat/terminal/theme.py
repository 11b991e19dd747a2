"""The themes: every colour of qwenchat, by the name of what has it.

Owns how each named thing looks in each theme. Does not know consoles, or what is shown. A style is
written in Rich's language ("bold red"); whoever shows something asks :func:`current` at that time, so
that another theme holds from the next thing shown on. Imports neither Rich nor prompt_toolkit.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from qwenchat.errors import Phrase, UsageError
from qwenchat.i18n.language import tr

Look = Literal[
    "term",
    "notice",
    "warning",
    "error",
    "stats",
    "progress",
    "prompt",
    "strong",
    "table_header",
    "added",
    "removed",
]
"""What a text that is said or stands in a table is; a theme has a style of that name."""


# Compared and hashed by identity, so that what is computed from a theme can be kept by theme.
@dataclass(frozen=True, eq=False)
class Theme:
    """A theme: a look for everything, in Rich's style language; plain text is the terminal's own.

    Attributes:
        name: what the user calls it.
        notice: what is said beside the answer.
        warning: what the user should heed.
        error: what went wrong.
        stats: figures about an answer.
        progress: the words, figures and done part of a progress line.
        track: the part of a progress bar that is still to do.
        term: what a list of terms and descriptions describes.
        prompt: the sign before what the user types.
        toolbar: the line below it.
        suggestion: what the prompt proposes behind the cursor.
        menu: completions to choose from.
        menu_current: the one that is chosen.
        menu_note: what stands beside a completion.
        headings: of Markdown, level 1 to 4 and beyond.
        emphasis: ``*text*``
        strong: ``**text**``
        deleted: ``~~text~~``
        code: in running text.
        link: the text of a link.
        address: where it leads.
        marker: a list's bullets and numbers.
        quote: the bar beside a quote.
        rule: the line of a thematic break.
        fence: the rows above and below code.
        table_header: a table's titles.
        border: the lines between a table's cells.
        status: what stands in place of an answer that is awaited.
        comment: in code, as all that follow.
        keyword: as ``if``.
        type: types, builtins, constants, attributes.
        definition: the name of a function or class that is defined; in a diff, its places.
        string: text.
        number: and other literals.
        removed: a line that a diff takes away.
        added: a line that it brings.
    """

    name: str
    notice: str
    warning: str
    error: str
    stats: str
    progress: str
    track: str
    term: str
    prompt: str
    toolbar: str
    suggestion: str
    menu: str
    menu_current: str
    menu_note: str
    headings: tuple[str, str, str, str]
    emphasis: str
    strong: str
    deleted: str
    code: str
    link: str
    address: str
    marker: str
    quote: str
    rule: str
    fence: str
    table_header: str
    border: str
    status: str
    comment: str
    keyword: str
    type: str
    definition: str
    string: str
    number: str
    removed: str
    added: str


def _theme(
    name: str, *, red: str, yellow: str, green: str, cyan: str, blue: str, magenta: str, faint: str
) -> Theme:
    """A theme from seven inks: what a thing looks like apart from its very tone is the same in all."""
    return Theme(
        name=name,
        notice=faint,
        warning=yellow,
        error=f"bold {red}",
        stats=faint,
        progress=cyan,
        track=faint,
        term=cyan,
        prompt=f"bold {magenta}",
        toolbar=faint,
        suggestion=faint,
        menu="",
        menu_current="reverse",
        menu_note=faint,
        headings=(f"bold underline {magenta}", f"bold {magenta}", "bold", "bold italic"),
        emphasis="italic",
        strong="bold",
        deleted="strike",
        code=cyan,
        link="underline",
        address=blue,
        marker=faint,
        quote=faint,
        rule=faint,
        fence=faint,
        table_header="bold",
        border=faint,
        status=faint,
        comment=faint,
        keyword=magenta,
        type=cyan,
        definition="bold",
        string=green,
        number=cyan,
        removed=red,
        added=green,
    )


_THEMES = (
    # The sixteen colours that follow the terminal's own palette. Not blue, which on many a black ground
    # cannot be read.
    replace(
        _theme(
            "terminal",
            red="red",
            yellow="yellow",
            green="green",
            cyan="cyan",
            blue="cyan",
            magenta="magenta",
            faint="dim",
        ),
        # A terminal without "dim" would show it like typed text.
        suggestion="bright_black",
    ),
    _theme(
        "dark",
        red="#ff7b72",
        yellow="#e3b341",
        green="#7ee787",
        cyan="#76d9e6",
        blue="#79b8ff",
        magenta="#d2a8ff",
        faint="#9aa4b0",
    ),
    _theme(
        "light",
        red="#b3261e",
        yellow="#7a5000",
        green="#1a6e2e",
        cyan="#0b6472",
        blue="#0a53b5",
        magenta="#7d2fa8",
        faint="#5f6670",
    ),
    # Bold, dim, italic and underline only.
    replace(
        _theme(
            "mono",
            red="",
            yellow="",
            green="",
            cyan="",
            blue="",
            magenta="",
            faint="dim",
        ),
        warning="bold",
        term="bold",
        code="bold italic",
        deleted="dim",
        menu_current="bold underline",
        address="italic",
        keyword="bold",
        string="italic",
        removed="dim",
        added="bold",
    ),
)
_current = _THEMES[0]


def current() -> Theme:
    """The theme in force."""
    return _current


def theme_names() -> tuple[str, ...]:
    """The names that :func:`use_theme` takes, the default first."""
    return tuple(theme.name for theme in _THEMES)


def use_theme(name: str) -> None:
    """Shows everything from now on in that theme, in the whole process.

    Raises:
        UsageError: there is none of that name.
    """
    global _current
    found = [theme for theme in _THEMES if theme.name == name]
    if not found:
        raise _no_such_theme(name)
    _current = found[0]


def _no_such_theme(name: str) -> UsageError:
    names = theme_names()
    close = difflib.get_close_matches(name.lower(), names, n=1)
    return UsageError(
        Phrase("unknown theme {name}", name=name),
        Phrase("did you mean {name}?", name=close[0])
        if close
        else Phrase("there are {names}", names=tr(", ").join(names)),
    )


def prompt_styles() -> dict[str, str]:
    """The looks of the prompt's parts, by prompt_toolkit's class, in its style language."""
    theme = current()
    looks = {
        "prompt": theme.prompt,
        "prompt-continuation": theme.toolbar,
        "placeholder": theme.suggestion,
        "auto-suggestion": theme.suggestion,
        "bottom-toolbar": theme.toolbar,
        "completion-menu": theme.menu,
        "completion-menu.completion": theme.menu,
        "completion-menu.completion.current": theme.menu_current,
        "completion-menu.meta.completion": theme.menu_note,
        "completion-menu.meta.completion.current": theme.menu_note,
        "scrollbar.background": theme.menu,
        "scrollbar.button": "reverse",
    }
    return {part: _for_prompt_toolkit(look) for part, look in looks.items()}


def _for_prompt_toolkit(style: str) -> str:
    # Begins anew: prompt_toolkit's own toolbar is reversed, and its menu is black on grey.
    words = ["noinherit"]
    for word in style.split():
        if word in ("bold", "dim", "italic", "underline", "reverse") or word.startswith("#"):
            words.append(word)
        else:
            words.append(f"ansi{word.replace('_', '')}")
    return " ".join(words)
