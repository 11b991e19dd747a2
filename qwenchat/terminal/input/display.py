"""The output of the prompt's line: prompt_toolkit's, with the sanitiser before the terminal.

prompt_toolkit measures characters one by one, and moves the cursor by what it measured. But a sign of
several characters, as a flag, is as wide as the terminal makes it. So for each such sign prompt_toolkit is
given one character of the right width; when that is written, the sign itself is, and the cursor is put behind
the cells that were counted, whatever the terminal made of it.
"""

from __future__ import annotations

import os
import re
import sys

from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_cwidth, is_dumb_terminal
from wcwidth import wcswidth

from qwenchat.terminal import console
from qwenchat.terminal.sanitize import sanitize

# Of one and of two cells: at the end of the planes for private use, and of one that has no characters yet.
_STAND_INS = {1: range(0x10F000, 0x10FFFE), 2: range(0x3F000, 0x3FFFE)}
_STAND_IN = re.compile("([\U0010f000-\U0010fffd\U0003f000-\U0003fffd])")
_MOVES = frozenset("\r\n")

_SAVE_CURSOR, _RESTORE_CURSOR = "\x1b7", "\x1b8"


_signs: dict[str, str] = {}  # by what stands for them
_stand_ins: dict[str, str] = {}
_free = {width: iter(codes) for width, codes in _STAND_INS.items()}


def drawn(sign: str) -> str:
    """The character that stands for a sanitised sign in prompt_toolkit, for a :class:`Display` to write."""
    if sign in _stand_ins:
        return _stand_ins[sign]
    width = wcswidth(sign)
    if (width == get_cwidth(sign) and not _STAND_IN.search(sign)) or width not in _free:
        return sign
    code = next(_free[width], None)
    if code is None:  # there were thousands: this one is measured as prompt_toolkit does
        return _STAND_IN.sub("\ufffd", sign)
    _stand_ins[sign] = chr(code)
    _signs[chr(code)] = sign
    return chr(code)


class Display(Vt100_Output):
    """A terminal that a line may be drawn on, and erased from, at its very top."""

    _marked = False

    def write(self, data: str) -> None:
        """Writes text, which passes the gate, and line breaks."""
        if not _MOVES.issuperset(data):
            data = sanitize(data)
        for part in _STAND_IN.split(data):
            if _STAND_IN.fullmatch(part):
                width = get_cwidth(part)
                sign = _signs.get(part, "\ufffd")
                # Blanks first: the terminal may make less of the sign than was counted.
                cells = (f"{_SAVE_CURSOR}{text}{_RESTORE_CURSOR}" for text in (" " * width, sign))
                self.write_raw(f"{''.join(cells)}\x1b[{width}C")
            elif part:
                super().write(part)

    def mark_pastes(self, marked: bool) -> None:
        """Lets the terminal mark what is pasted from now on, also beside a prompt; or not any more."""
        self._marked = marked
        (self.enable_bracketed_paste if marked else self.disable_bracketed_paste)()
        self.flush()

    def disable_bracketed_paste(self) -> None:
        """Keep bracketed paste on, which prompt_toolkit would switch off at the end of a prompt."""
        if not self._marked:
            super().disable_bracketed_paste()

    def erase_down(self) -> None:
        """Erases from the cursor's row on; it is only asked where the cursor begins one."""
        self.write_raw(console.ERASE_BELOW)


class PlainDisplay(PlainTextOutput):
    """A terminal that obeys nothing: what is typed is written behind the prompt, through the gate."""

    def write(self, data: str) -> None:
        """Writes text."""
        super().write(data if _MOVES.issuperset(data) else sanitize(data))


def display() -> Output | None:
    """The output to draw the line on; None for prompt_toolkit's: on Windows, and off capable terminals."""
    if sys.platform == "win32" or is_dumb_terminal() or not sys.stdout.isatty():
        return None
    return Display.from_pty(
        sys.stdout, term=os.environ.get("TERM"), default_color_depth=ColorDepth.from_env()
    )
