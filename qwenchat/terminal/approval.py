"""A call as the user sees it, and the question whether it may run.

Owns the card of a call, the beginning of a result, and how the user says yes or no. What comes of either is
``tools/loop.py``'s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from qwenchat.chat.parts import ToolCall, ToolResult
from qwenchat.i18n.language import is_yes, plural, tr
from qwenchat.terminal import console
from qwenchat.terminal.echo import discard_typed
from qwenchat.terminal.theme import Look
from qwenchat.tools.loop import Decision, Request

RESULT_LINES = 6
"""Lines of a result that are shown at once."""
_LINE = 400  # characters of a line of a card
_BAR = "│ "


def show_call(call: ToolCall) -> None:
    """The card of a call: the tool and its arguments."""
    console.say(f"▸ {call.name}", "strong")
    for line in _arguments(call.arguments):
        console.say(_BAR + line)


def show_preview(preview: str) -> None:
    """What would change, as a diff."""
    for line in preview.splitlines():
        look: Look = "added" if line[:1] == "+" else "removed" if line[:1] == "-" else "notice"
        console.say(_BAR + line[:_LINE], look)


def show_result(result: ToolResult, n: int, lines: int | None = RESULT_LINES) -> None:
    """What came of a call, folded after a few lines.

    Args:
        n: which result of the chat it is, counted from 1.
        lines: how many are shown; None for all.
    """
    told = result.text.splitlines() or [""]
    shown = told if lines is None or len(told) <= lines + 1 else told[:lines]
    for line in shown:
        console.say(
            _BAR + (line if lines is None else line[:_LINE]), "warning" if result.failed else "notice"
        )
    if left := len(told) - len(shown):
        console.say(_BAR + plural(left, "one line more; /result {n}", "{count} lines more; /result {n}", n=n))


def can_ask() -> bool:
    """Whether there is somebody who reads what is asked about, and types an answer."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask(request: Request) -> Decision:
    """Asks whether a call may run; Enter is no, and what was typed before the question is no answer.

    Raises:
        KeyboardInterrupt: the user wants to stop.
    """
    if request.risk is not None:
        code = str(request.arguments.get("code", ""))
        return Decision("yes" if ask_unconfined(request.risk.reason, code) else "no")
    if request.changed:
        console.say(
            tr(
                "{origin} says otherwise of {tool} than when you allowed it",
                origin=request.tool.origin,
                tool=request.call.name,
            ),
            "warning",
        )
        console.say(_BAR + request.tool.definition.description)
    show_preview(request.preview)
    console.say(
        tr(
            "y runs it · a also what {rule} allows, in this chat · e edits it · Enter does not",
            rule=request.rule,
        )
    )
    answer = _line(tr("run it? y, a, e, or why not: "))
    word = answer.strip().casefold()
    if word in ("a", "always"):
        return Decision("always")
    if word in ("e", "edit"):
        return Decision("edit", _line("", request.call.arguments))
    if is_yes(word):
        return Decision("yes")
    return Decision("no", "" if word in ("", "n", "no", "否") else answer.strip())


def ask_unconfined(reason: str, code: str) -> bool:
    """Asks whether code may run that nothing confines: Enter is no, and a yes is one to this run.

    Args:
        reason: why nothing does.
        code: which is shown whole.

    Raises:
        KeyboardInterrupt: the user wants to stop.
    """
    for line in code.splitlines():
        console.say(_BAR + line)
    console.say(
        tr("nothing here confines code ({reason}); it would run with all your rights", reason=reason),
        "warning",
    )
    return can_ask() and is_yes(_line(tr("run it once? [y/N] ")))


def _line(question: str, text: str = "") -> str:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input.typeahead import clear_typeahead

    discard_typed()
    session = PromptSession[str]()
    clear_typeahead(session.input)  # what came with the line before
    try:
        return session.prompt(question, default=text, multiline="\n" in text)
    except EOFError:
        return ""


def _arguments(text: str) -> list[str]:
    """Arguments a line each; as they are where they are no object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, Mapping):
        return [line[:_LINE] for line in text.splitlines()]
    told = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in value.items()}
    lines: list[str] = []
    for name, said in told.items():
        first, *rest = said.splitlines() or [""]
        lines += [f"{name}: {first}"[:_LINE], *(f"  {line}"[:_LINE] for line in rest)]
    return lines
