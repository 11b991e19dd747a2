"""The text on the line that the user types on: what it holds, how one steps through it, how it is shown.

What is typed and pasted is held as it came; only what is shown passes the gate. A sign, which may be
several characters (a flag, an emoji with its skin tone, a letter with its accents: a grapheme cluster), is
stepped over and deleted as one.

A long paste is folded: in the text it is one character, shown as a few words. So it is whole or gone, like
any character. That one is a lone surrogate, which no keyboard, paste or file can bring in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.formatted_text.utils import fragment_list_to_text
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from wcwidth import grapheme_boundary_before, iter_graphemes

from qwenchat.language import tr
from qwenchat.terminal.sanitize import sanitize_line

FOLD_LINES = 12
"""A paste of more lines than this is shown folded into a few words, and sent whole."""
FOLD_CHARACTERS = 2000
"""So is one of more characters, on however few lines."""

_FIRST, _KEPT = 0xD800, 0x400  # surrogates; when there were so many pastes, the first is forgotten
_FOLDED = re.compile("[\ud800-\udbff]")
_OTHER = "\ufffc"  # stands for an object in a text


class Pastes:
    """The pastes of this run that were folded."""

    def __init__(self) -> None:
        self._count = 0
        self._texts: dict[str, tuple[int, str]] = {}

    def fold(self, text: str) -> str:
        """A paste as the line holds it: as it is if it is short, else one character."""
        if text.count("\n") < FOLD_LINES and len(text) <= FOLD_CHARACTERS:
            return text
        character = chr(_FIRST + self._count % _KEPT)
        self._count += 1
        self._texts[character] = self._count, text
        return character

    def unfold(self, text: str) -> str:
        """A line with the pastes themselves."""
        return _FOLDED.sub(lambda found: self._texts.get(found[0], (0, ""))[1], text)

    def refold(self, text: str) -> str:
        """A text for the line, with what was folded before folded again."""
        text = _FOLDED.sub("\ufffd", text)
        for character, (_, pasted) in self._texts.items():
            text = text.replace(pasted, character)
        return text

    @staticmethod
    def hide(text: str) -> str:
        """A line of the same length, for whoever looks for names in what was typed."""
        return _FOLDED.sub(_OTHER, text)

    def shown(self, sign: str) -> str:
        """A sign as it is shown: of a paste the words for it, of all else what passes the gate."""
        if sign not in self._texts:
            return sanitize_line(sign) if sign != "\t" else sign
        number, text = self._texts[sign]
        if (lines := text.removesuffix("\n").count("\n") + 1) >= FOLD_LINES:
            return tr("[paste {number}: {count} lines]", number=number, count=f"{lines:,}")
        return tr("[paste {number}: {count} characters]", number=number, count=f"{len(text):,}")


class Line(Buffer):
    """The text being typed. The cursor never stands within a sign, and no part of one is deleted."""

    _was = 0  # where the cursor stood

    def cursor_moved(self) -> None:
        """Leads the cursor out of a sign, on the side that it was moving to."""
        begin, end = sign_at(self.text, self.cursor_position)
        if begin != self.cursor_position:
            self.cursor_position = end if self.cursor_position > self._was else begin
        self._was = self.cursor_position

    def delete(self, count: int = 1) -> str:
        """Deletes so many characters behind the cursor, and the rest of a sign that they end in."""
        begin, end = sign_at(self.text, self.cursor_position + count)
        return super().delete(count if begin == self.cursor_position + count else end - self.cursor_position)

    def delete_before_cursor(self, count: int = 1) -> str:
        """Deletes so many characters before the cursor, and the rest of a sign that they begin in."""
        begin, _ = sign_at(self.text, max(0, self.cursor_position - count))
        return super().delete_before_cursor(self.cursor_position - begin)


def sign_at(text: str, position: int) -> tuple[int, int]:
    """Where the sign that the character at a position belongs to begins and ends."""
    if position >= len(text):
        return len(text), len(text)
    begin = grapheme_boundary_before(text, position + 1)
    return begin, begin + len(next(iter_graphemes(text, begin)))


class Shown(Processor):
    """What is shown of a line: signs that passed the gate, each as wide as a terminal draws it.

    Args:
        drawn: a sign as it is drawn.
    """

    def __init__(self, drawn: Callable[[str], str]) -> None:
        self._drawn = drawn

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """One line; see the base class."""
        fragments = transformation_input.fragments
        text = fragment_list_to_text(fragments)
        if text.isascii() and text.isprintable():
            return Transformation(fragments)
        styles = [style for style, *_ in explode_text_fragments(fragments)]
        shown: StyleAndTextTuples = []
        places = [0]  # where each character, and then the end, is shown
        start = 0
        for sign in iter_graphemes(text):
            drawn = self._drawn(sign)
            shown.append((styles[start], drawn))
            places += [places[-1]] * (len(sign) - 1) + [places[-1] + len(drawn)]
            start += len(sign)
        return Transformation(shown, *_maps(places))


def _maps(places: list[int]) -> Iterator[Callable[[int], int]]:
    """From a place in the text to one in what is shown, and back."""
    from bisect import bisect_right

    last = len(places) - 1
    yield lambda source: places[min(source, last)] + max(0, source - last)
    yield lambda shown: bisect_right(places, shown) - 1 if shown < places[-1] else last + shown - places[-1]
