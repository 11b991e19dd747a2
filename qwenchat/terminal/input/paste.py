"""Pastes as text: nothing that a terminal sends as a paste is taken for a key.

A terminal puts a paste between two marks, ESC [200~ and ESC [201~. Most take such marks out of what is
pasted, but not all do; there, a text that holds an end mark ends the paste early, and the rest of it
looks as if it had been typed: an Enter in it would send, a Ctrl-X Ctrl-E open the editor.

But a rest comes at once, and nobody types into the tenth of a second after a paste. So what comes then
is taken for pasted too, until it has been quiet for that long. Knows nothing of prompts: characters
in, keys out, in prompt_toolkit's terms.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

SETTLE_SECONDS = 0.1
"""So long after a paste's last character nobody types."""
STUCK_SECONDS = 1.0
"""After so long without its end mark, a Ctrl-C gives a paste up."""

_BEGIN, _END = "\x1b[200~", "\x1b[201~"
_MARK = re.compile(r"\x1b\[20[01]~")
_CURSOR_REPORT = re.compile(r"\x1b\[\d+;\d+R")
_UNDECODABLE = re.compile("[\ud800-\udfff]")


class PasteParser(Vt100Parser):
    """Terminal input to keys, where each paste is one key with the text as its data.

    Bytes that were no UTF-8 become U+FFFD: as the halves of surrogate pairs that they are decoded to,
    they could not be written to any file.

    Args:
        feed_key_callback: told each key.
        clock: seconds from anywhere; when :meth:`feed` is called is when its characters came.
    """

    def __init__(
        self, feed_key_callback: Callable[[KeyPress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(feed_key_callback)
        self._clock = clock
        self._pasted: list[str] = []
        self._recent = ""  # the paste's last characters, which may be the beginning of a mark
        self._last = 0.0

    @property
    def pasting(self) -> bool:
        """True if a paste is under way, or may have a rest that is yet to come."""
        return self._in_bracketed_paste or bool(self._pasted)

    def feed(self, data: str) -> None:
        """Takes what was read; keys are told as they are complete, a paste by :meth:`settle`."""
        if not data:
            return
        now = self._clock()
        quiet, self._last = now - self._last, now
        data = _UNDECODABLE.sub("\ufffd", data)
        if self._in_bracketed_paste and data == "\x03" and quiet > STUCK_SECONDS:
            self._in_bracketed_paste = False
            self._pasted.clear()
        elif self.pasting and not self._in_bracketed_paste and quiet >= SETTLE_SECONDS:
            self.settle()
        if self.pasting:
            self._take_pasted(data)
        else:
            self._take_typed(data)

    def settle(self) -> None:
        """It has been quiet since a paste ended: there is no more of it, and it is told as a key."""
        if self._in_bracketed_paste or not self._pasted:
            return
        text = "".join(self._pasted)
        self._pasted.clear()
        # What the terminal itself says amid a paste is not part of it: it was asked where the cursor is.
        for report in _CURSOR_REPORT.findall(text):
            self.feed_key_callback(KeyPress(Keys.CPRResponse, report))
        text = _MARK.sub("", _CURSOR_REPORT.sub("", text))
        self.feed_key_callback(KeyPress(Keys.BracketedPaste, text))

    def _take_typed(self, data: str) -> None:
        for i, character in enumerate(data, 1):
            self._input_parser.send(character)
            if self._in_bracketed_paste:  # that was a begin mark's last character
                self._recent = ""
                self._take_pasted(data[i:])
                return

    def _take_pasted(self, data: str) -> None:
        """Adds to the paste; for now it is over if the last mark in it is an end."""
        self._pasted.append(data)
        recent = self._recent + data
        begin, end = recent.rfind(_BEGIN), recent.rfind(_END)
        if max(begin, end) >= 0:
            self._in_bracketed_paste = begin > end
        self._recent = recent[1 - len(_END) :]
