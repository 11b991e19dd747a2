"""Pictures on the terminal: by kitty's protocol, iTerm2's, or as sixels, in terminals that say they can.

Owns how a terminal is asked, and how a PNG becomes what it draws. Nothing is guessed from names: who does not
answer gets no picture. A picture comes from code that nobody trusts: it is read with limits.
"""

from __future__ import annotations

import base64
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from qwenchat.terminal import png

Protocol = Literal["kitty", "iterm2", "sixel", ""]

_KITTY_ASKS = "\x1b_Gi=4211,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_VERSION = "\x1b[>q"
_ATTRIBUTES = "\x1b[c"  # what every terminal answers, so that nobody waits for those that answer nothing else
_PATIENCE = 1.0  # seconds
_MOST_BYTES = 16 << 20  # of a file
_CHUNK = 4096  # characters of kitty's pieces
_asked: list[Protocol] = []


def show(path: Path) -> bool:
    """Draws a PNG below the cursor; False where the terminal cannot.

    Raises:
        OSError: it cannot be read.
    """
    how = protocol()
    if not how:
        return False
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    size = png.size(data)
    if size is None or len(data) > _MOST_BYTES:
        return False
    drawn = _drawn(how, data)
    if drawn:
        sys.stdout.write(drawn + "\n")
        sys.stdout.flush()
    return bool(drawn)


def protocol() -> Protocol:
    """What the terminal draws pictures by, asked once; empty if by nothing."""
    if not _asked:
        _asked.append(_ask())
    return _asked[0]


def understood(answer: str) -> Protocol:
    """What a terminal's answers say of pictures."""
    if re.search(r"\x1b_Gi=4211;OK", answer):
        return "kitty"
    if re.search(r"\x1bP>\|(iTerm2|WezTerm) ", answer):
        return "iterm2"
    attributes = re.search(r"\x1b\[\?([\d;]*)c", answer)
    return "sixel" if attributes and "4" in attributes[1].split(";")[1:] else ""


def _drawn(how: Protocol, data: bytes) -> str:
    if how == "sixel":
        return png.sixels(data)
    text = base64.b64encode(data).decode()
    if how == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(data)};preserveAspectRatio=1:{text}\x07"
    pieces = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    controls = ["a=T,f=100,q=2," if i == 0 else "" for i in range(len(pieces))]
    return "".join(
        f"\x1b_G{control}m={int(i + 1 < len(pieces))};{piece}\x1b\\"
        for i, (control, piece) in enumerate(zip(controls, pieces, strict=True))
    )


def _ask() -> Protocol:
    try:
        keyboard = sys.stdin.fileno()
        if not (os.isatty(keyboard) and sys.stdout.isatty()) or os.environ.get("TERM") in ("dumb", None):
            return ""
        with _raw(keyboard):
            sys.stdout.write(_KITTY_ASKS + _VERSION + _ATTRIBUTES)
            sys.stdout.flush()
            return understood(_answer(keyboard))
    except (ImportError, AttributeError, OSError, ValueError):
        return ""


def _answer(keyboard: int) -> str:
    """What comes back, up to the answer that every terminal gives."""
    answer, deadline = b"", time.monotonic() + _PATIENCE
    while not re.search(rb"\x1b\[\?[\d;]*c", answer):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([keyboard], [], [], left)[0]:
            break
        answer += os.read(keyboard, 1024)
    return answer.decode("ascii", "replace")


@contextmanager
def _raw(keyboard: int) -> Iterator[None]:
    """The keyboard without lines and echo, so that answers are read and not shown."""
    import termios

    before = termios.tcgetattr(keyboard)
    settings = termios.tcgetattr(keyboard)
    settings[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(keyboard, termios.TCSANOW, settings)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSANOW, before)
