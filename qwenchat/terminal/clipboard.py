"""The user's clipboard, to write to: by a tool of the desktop, or by the terminal itself.

Owns which ways there are, and their order. Does not know what is copied, and never reads the clipboard.

- On the user's own machine a desktop's tool comes first: it is sure, and takes any length. Over SSH such
  a tool would fill the clipboard of the wrong machine; there only X11 may be forwarded, and comes last.
- OSC 52 asks the terminal, which is on the user's side however far away the program runs. Nothing
  answers, so it comes after all that can fail, and text that terminals are known to cut is not sent.
- tmux since 3.3 obeys OSC 52 by default neither plain (set-clipboard) nor in its passthrough
  (allow-passthrough). ``tmux load-buffer -w`` makes tmux itself send it, whatever these options say.
  A tmux before 3.2 does not know ``-w``, but passes the passthrough on without being told to.

Pasting must be no way round the sanitiser: what a terminal would obey goes in as it is shown.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwenchat.errors import QwenchatError
from qwenchat.terminal.sanitize import sanitize

MAX_TERMINAL_BYTES = 74_994
"""The longest text, in UTF-8, for the terminal's clipboard: what a sequence of 100,000 bytes holds.

Some terminals take less and some take any length, and none says so. What is too long is lost or, worse,
printed, so beyond the limit that hterm made customary nothing is sent.
"""

_TIMEOUT = 5  # seconds that a tool may take
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# screen cuts longer strings; to the terminal the parts are one.
_SCREEN_PART = 512


@dataclass(frozen=True, slots=True)
class _Tool:
    """A program that takes the clipboard's text from its stdin."""

    name: str
    args: tuple[str, ...] = ()
    encoding: str = "utf-8"
    settings: Mapping[str, str] = field(default_factory=dict)


# Else it guesses what kind of text it is, and offers HTML for one as nothing but HTML.
_WL_COPY = _Tool("wl-copy", ("--type", "text/plain"))
_X_TOOLS = (_Tool("xclip", ("-selection", "clipboard")), _Tool("xsel", ("--clipboard", "--input")))
# It goes by the locale, which is often not set.
_PBCOPY = _Tool("pbcopy", settings={"LC_ALL": "en_US.UTF-8"})
# It reads UTF-16; a byte-order mark would stay in front of the text.
_CLIP = _Tool("clip.exe", encoding="utf-16-le")
_TMUX = _Tool("tmux", ("load-buffer", "-w", "-"))


def copy(
    text: str,
    write: Callable[[str], None] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    which: Callable[[str], str | None] = shutil.which,
    platform: str = sys.platform,
) -> str | None:
    """Puts a text on the user's clipboard.

    Args:
        text: of any length, if there is a tool; else as long as terminals take.
        write: writes to the terminal, as it is; by default to the one that the program runs in.
        environ: what the ways are chosen by.
        which: finds a program.
        platform: as ``sys.platform``.

    Returns:
        The name of the tool that took it; None if it was sent to the terminal, which does not say whether it
        took it. A way that fails is not named; the next is taken.

    Raises:
        QwenchatError: there is no way, or none works.
    """
    text = _CONTROLS.sub(lambda match: sanitize(match.group()), text.replace("\r\n", "\n"))
    too_long = False
    for way in _ways(environ, platform):
        by_terminal = way is None or way is _TMUX
        if by_terminal and len(text.encode()) > MAX_TERMINAL_BYTES:
            too_long = True
        elif way is not None:
            path = which(way.name)
            if path and _runs(way, path, text, environ):
                return way.name
        elif _write_osc52(text, write or _write_to_terminal, environ):
            return None
    if too_long:
        raise QwenchatError(
            "the text is too long for a terminal's clipboard", "/export and /save-code write files"
        )
    raise QwenchatError(
        "no way to the clipboard was found",
        "install wl-clipboard, xclip or xsel; /export and /save-code write files",
    )


def _ways(environ: Mapping[str, str], platform: str) -> Iterator[_Tool | None]:
    """The ways to try, in their order; None is OSC 52."""
    is_remote = bool(environ.get("SSH_TTY") or environ.get("SSH_CONNECTION"))
    if not is_remote:
        if platform == "darwin":
            yield _PBCOPY
        if platform == "win32" or environ.get("WSL_DISTRO_NAME"):
            yield _CLIP
        if environ.get("WAYLAND_DISPLAY"):
            yield _WL_COPY
        if environ.get("DISPLAY"):
            yield from _X_TOOLS
    if environ.get("TMUX"):
        yield _TMUX
    yield None
    if is_remote and environ.get("DISPLAY"):
        yield from _X_TOOLS


def _runs(tool: _Tool, path: str, text: str, environ: Mapping[str, str]) -> bool:
    """True if the tool took the text.

    Several of them stay in the background to hand it out: no pipe of ours may be left with them, or we
    would wait for its end; and no Ctrl-C that is meant for us may reach them.
    """
    try:
        result = subprocess.run(
            [path, *tool.args],
            input=text.encode(tool.encoding),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environ, **tool.settings},
            timeout=_TIMEOUT,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def _write_osc52(text: str, write: Callable[[str], None], environ: Mapping[str, str]) -> bool:
    if environ.get("TERM", "").lower() in ("dumb", "unknown", "linux"):  # these have no clipboard
        return False
    try:
        write(_osc52(text, environ))
    except OSError:
        return False
    return True


def _osc52(text: str, environ: Mapping[str, str]) -> str:
    """The sequence, in the wrapping that makes a multiplexer hand it on."""
    encoded = base64.b64encode(text.encode()).decode()
    sequence = f"\033]52;c;{encoded}\a"
    if environ.get("TMUX"):
        doubled = sequence.replace("\033", "\033\033")
        return f"\033Ptmux;{doubled}\033\\"
    if environ.get("STY"):
        starts = range(0, len(sequence), _SCREEN_PART)
        return "".join(f"\033P{sequence[start : start + _SCREEN_PART]}\033\\" for start in starts)
    return sequence


def _write_to_terminal(sequence: str) -> None:
    """Writes to the terminal itself, as stdout may go elsewhere.

    Raises:
        OSError: there is none.
    """
    if sys.platform == "win32":
        if not sys.stdout.isatty():
            raise OSError("no terminal")
        sys.stdout.write(sequence)
        sys.stdout.flush()
    else:
        with Path("/dev/tty").open("w", encoding="ascii") as terminal:
            terminal.write(sequence)
