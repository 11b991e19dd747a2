"""The README's picture: a real chat with the built-in model, drawn as an SVG.

    python -m docs.picture [FILE]

Plays a short walk in a pseudo-terminal and draws the screen as it then is. Every character is what the
program showed, the speed among them. Owns the walk, the palette and the small SVG writer; the terminal
is the tests' own, and the program is told nothing of all this. POSIX only; needs what the tests need.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import pyte.graphics
from pyte.screens import Char, HistoryScreen

from qwenchat.models import catalog
from qwenchat.models.builtin import demo
from tests.terminal.screen import Screen

# pyte knows no dim text. It knows blinking text, which qwenchat has none of: what is dim blinks here.
# Both end with a reset; the code 22, which ends dim and bold alone, is not among what qwenchat writes.
pyte.graphics.TEXT[2] = "+blink"

COLUMNS, LINES = 96, 35
COMMAND = "qwenchat -m demo --temperature 0"
PATIENCE = 120.0
"""Seconds that an answer may take."""


# --- the walk --------------------------------------------------------------------------------------


def play(home: Path) -> HistoryScreen:
    """Chats, and returns the screen as it is at the end.

    Args:
        home: where the chat keeps its files; the built-in model is there.
    """
    for name in [name for name in os.environ if name.startswith("QWENCHAT_")]:
        del os.environ[name]  # the picture shows the defaults
    chat = Screen(
        [sys.executable, "-m", *COMMAND.split()],
        columns=COLUMNS,
        lines=LINES,
        environment={"QWENCHAT_HOME": str(home), "LC_ALL": "C.UTF-8", "COLORTERM": "truecolor"},
    )
    try:
        chat.until("context ", PATIENCE)
        _say(chat, "Write a Python function that checks whether a string is a palindrome.\r")
        _say(chat, "Explain Python.\r", stop_at="Frameworks: A")
        _say(chat, "/edit\r")  # puts the question on the line
        _say(chat, "\x7f in one sentence.\r")
        chat.type("/")
        chat.until("/undo", PATIENCE)
        chat.feed(1.0)  # the menu is drawn, and whatever belongs to it
        return chat.screen
    finally:
        chat.close()


def _say(chat: Screen, keys: str, stop_at: str = "") -> None:
    """Types, and waits for the next prompt; Ctrl-C once the screen shows ``stop_at``."""
    before = chat.prompts
    chat.type(keys)
    if stop_at:
        chat.until(stop_at, PATIENCE)
        chat.type("\x03")
    chat.until_prompt(before, PATIENCE)


# --- how it looks ----------------------------------------------------------------------------------

# Cells of 0.6 em, as most monospaced fonts have them; in others the text is stretched to fit.
FONT_SIZE = 14.0
CELL, ROW = 8.4, 20.0
BASELINE = 14.5  # below a row's top
MARGIN = 20.0
TITLE_BAR = 44.0
FONTS = "ui-monospace, SFMono-Regular, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

GROUND, INK, FRAME, QUIET = "#0d1117", "#e6edf3", "#3d444d", "#8b949e"
DIM = 0.6  # of the ink; the rest is ground

# The sixteen colours of the picture's terminal, by pyte's names ("brown" is yellow).
PALETTE = {
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79b8ff",
    "magenta": "#d2a8ff",
    "cyan": "#76d9e6",
    "white": "#c9d1d9",
    "brightblack": "#6e7681",
    "brightred": "#ffa198",
    "brightgreen": "#aff5b4",
    "brightbrown": "#f2cc60",
    "brightblue": "#a5d6ff",
    "brightmagenta": "#e2c5ff",
    "brightcyan": "#b3f0ff",
    "brightwhite": "#ffffff",
}


@dataclass(frozen=True)
class Look:
    """What a cell looks like; colours as ``#rrggbb``.

    Attributes:
        ink: of the text.
        ground: behind it.
        bold, italic: of the font.
        lines: ``text-decoration``, or nothing.
    """

    ink: str
    ground: str
    bold: bool
    italic: bool
    lines: str


def look_of(cell: Char) -> Look:
    """What pyte's cell looks like."""
    ink, ground = _colour(cell.fg, INK), _colour(cell.bg, GROUND)
    if cell.reverse:
        ink, ground = ground, ink
    if cell.blink:
        ink = _mixed(ink, ground, DIM)
    lines = [
        name for name, on in (("underline", cell.underscore), ("line-through", cell.strikethrough)) if on
    ]
    return Look(ink, ground, cell.bold, cell.italics, " ".join(lines))


def _colour(name: str, default: str) -> str:
    return default if name == "default" else PALETTE.get(name, f"#{name}")


def _mixed(one: str, other: str, share: float) -> str:
    parts = ((int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in parts)


# --- the writer ------------------------------------------------------------------------------------


def draw(screen: HistoryScreen, command: str = COMMAND, title: str = "A chat with qwenchat") -> str:
    """The screen in a window of its own, as an SVG that stands by itself.

    Args:
        command: the window's title.
        title: the picture's.
    """
    width = 2 * MARGIN + screen.columns * CELL
    height = TITLE_BAR + screen.lines * ROW + MARGIN
    size = f'width="{_n(width)}" height="{_n(height)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_n(width)} {_n(height)}" role="img"'
        f' font-family="{FONTS}" font-size="{_n(FONT_SIZE)}" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        *_window(width, height, command),
    ]
    for y in range(screen.lines):
        parts += _row([_cell(screen, x, y) for x in range(screen.columns)], TITLE_BAR + y * ROW)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _window(width: float, height: float, command: str) -> Iterator[str]:
    # Half a pixel in, so that the frame is one sharp pixel.
    yield (
        f'<rect x="0.5" y="0.5" width="{_n(width - 1)}" height="{_n(height - 1)}" rx="9.5"'
        f' fill="{GROUND}" stroke="{FRAME}"/>'
    )
    for x in (0, 1, 2):
        yield f'<circle cx="{_n(MARGIN + 20 * x)}" cy="18" r="5.5" fill="{FRAME}"/>'
    yield (
        f'<text x="{_n(width / 2)}" y="22" font-size="12" fill="{QUIET}"'
        f' text-anchor="middle">{escape(command)}</text>'
    )


def _cell(screen: HistoryScreen, x: int, y: int) -> Char:
    """What stands in a cell; where the cursor is, a block in the ink's colour."""
    cell = screen.buffer[y][x]
    is_cursor = (x, y) == (screen.cursor.x, screen.cursor.y) and not screen.cursor.hidden
    return Char(cell.data, reverse=True) if is_cursor else cell


def _row(cells: list[Char], top: float) -> Iterator[str]:
    """A row's grounds, then its texts, each with the place where it begins and the room that it takes."""
    runs = []
    for look, group in groupby(enumerate(cells), key=lambda place: look_of(place[1])):
        run = list(group)
        runs.append((look, run[0][0], [cell.data for _, cell in run]))
    for look, x, texts in runs:
        if look.ground != GROUND:
            yield _rect(x, top, len(texts), look.ground)
    for look, x, texts in runs:
        # A wide character and the empty cell after it have a text to themselves. A gap of two spaces ends
        # a text, so that none depends on how white space is kept.
        for match in re.finditer("w+|x+(?: x+)*", _signs(texts)):
            text = "".join(texts[match.start() : match.end()])
            yield _text(look, x + match.start(), top, len(match.group()), text)


def _signs(texts: list[str]) -> str:
    """A sign for each cell: ``w`` for half of a wide character, ``x`` for any other but the space."""
    pairs = zip(texts, [*texts[1:], " "], strict=True)
    return "".join("w" if not (text and after) else " " if text == " " else "x" for text, after in pairs)


def _text(look: Look, x: int, top: float, cells: int, text: str) -> str:
    attributes = [
        f'x="{_n(MARGIN + x * CELL)}"',
        f'y="{_n(top + BASELINE)}"',
        f'textLength="{_n(cells * CELL)}"',
        'lengthAdjust="spacingAndGlyphs"',
    ]
    attributes += [f'fill="{look.ink}"'] if look.ink != INK else []
    attributes += ['font-weight="bold"'] if look.bold else []
    attributes += ['font-style="italic"'] if look.italic else []
    attributes += [f'text-decoration="{look.lines}"'] if look.lines else []
    return f"<text {' '.join(attributes)}>{escape(text)}</text>"


def _rect(x: int, top: float, cells: int, fill: str) -> str:
    place = f'x="{_n(MARGIN + x * CELL)}" y="{_n(top)}"'
    return f'<rect {place} width="{_n(cells * CELL)}" height="{_n(ROW)}" fill="{fill}"/>'


def _n(number: float) -> str:
    """A number, as short as it can be."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def main() -> None:
    """Plays, draws and writes."""
    parser = argparse.ArgumentParser(description="Draw the README's picture.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("chat.svg"))
    file: Path = parser.parse_args().file
    models = catalog.made_models_dir()
    demo.ensure(models)
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "cache").mkdir()
        (Path(home) / "cache" / models.name).symlink_to(models)
        picture = draw(play(Path(home)))
    file.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
