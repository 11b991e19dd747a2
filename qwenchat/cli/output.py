"""Output of the commands: stdout as lines, tables or JSON, its width and looks; a question to the user.

stdout gets what was asked for and nothing else. Whoever calls has sanitised the lines; JSON is escaped here.
What a command says beside that goes by ``terminal/console.py``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from qwenchat.errors import Interrupted, OutputClosed, UsageError
from qwenchat.i18n.language import is_yes, tr

if TYPE_CHECKING:
    from qwenchat.terminal.columns import Paint, Table
    from qwenchat.terminal.theme import Look


def columns() -> int | None:
    """The width of the terminal that stdout is; None if it is none."""
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if on_terminal else None


def painter() -> Paint:
    """A function that gives a text its look on stdout; nothing changes where there are no styles."""
    if columns() is None:
        return _unpainted
    from qwenchat.terminal import console
    from qwenchat.terminal.rows import Span, paint
    from qwenchat.terminal.theme import current

    colors = console.colors(console.stdout_console())
    if colors is None:
        return _unpainted
    return lambda text, look: paint([Span(text, getattr(current(), look))], colors)


def _unpainted(text: str, look: Look) -> str:
    return text


def stdout() -> TextIO:
    """stdout as UTF-8 off a terminal; on one as the terminal has it, what it cannot show replaced."""
    if sys.stdout is None:  # closed before the start
        raise OutputClosed
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        if sys.stdout.isatty():
            reconfigure(errors="replace")
        else:
            reconfigure(encoding="utf-8", errors="replace", newline="\n")
    return sys.stdout


def print_objects(objects: Iterable[dict[str, Any]]) -> None:
    """A JSON array, an object a line."""
    lines = ",\n".join(json_line(value).rstrip("\n") for value in objects)
    print_lines(f"[\n{lines}\n]\n" if lines else "[]\n")


def print_object(value: dict[str, Any]) -> None:
    """A JSON object in a line."""
    print_lines(json_line(value))


def print_json_text(text: str) -> None:
    """JSON that was made elsewhere, in a line and escaped."""
    import json

    print_object(json.loads(text))


def json_line(value: dict[str, Any]) -> str:
    """JSON with readable text in which whatever could drive a terminal is escaped; parsed, it is verbatim."""
    import json  # which --help can do without
    import re

    from qwenchat.terminal.sanitize import sanitize

    def escaped(match: re.Match[str]) -> str:
        character = match.group()
        return character if sanitize(character) == character else json.dumps(character)[1:-1]

    line = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", escaped, line) + "\n"


def print_lines(*lines: str) -> None:
    """Lines that are sanitised, or may be verbatim."""
    from qwenchat.terminal.console import write

    write(stdout(), "".join(lines))


def print_tables(*tables: Table) -> None:
    """Tables, in the width and the looks of the terminal if it is one; they are sanitised here."""
    from qwenchat.terminal.columns import lay_out, written

    width, paint = columns(), painter()
    print_lines(*(written(lay_out(table, width), paint) for table in tables))


def print_gated(text: str) -> None:
    """A text from elsewhere: verbatim for a script, through the gate to a terminal."""
    from qwenchat.terminal.sanitize import sanitize

    print_lines(text if columns() is None else sanitize(text))


def confirm(question: str, *, unasked: str, declined: str) -> None:
    """Asks the user, on stderr.

    Args:
        question: what is asked; it is sanitised here.
        unasked: the hint where nobody can answer.
        declined: what is said where the answer is not yes.

    Raises:
        Interrupted: the answer is not yes.
        UsageError: nobody can answer.
    """
    from qwenchat.terminal.sanitize import sanitize_line

    check_terminal(unasked)
    sys.stderr.write(tr("{question} [y/N] ", question=sanitize_line(question)))
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D: the line is still open
        sys.stderr.write("\n")
    if not is_yes(answer):
        raise Interrupted(declined)


def check_terminal(hint: str) -> None:
    """Makes sure that somebody can answer.

    Raises:
        UsageError: nobody can.
    """
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError("there is no terminal to ask", hint)
