"""The text on the line that the user types on: what it holds, how one steps through it, how it is shown.

What is typed and pasted is held as it came; only what is shown passes the gate. A sign of several
characters is held as one (see :mod:`qwenchat.terminal.signs`), so whatever key counts characters counts
signs, and none is parted.

A long paste is folded: in the text it is one character, shown as a few words. So it is whole or gone, like
any character. That one is a lone surrogate, which no keyboard, paste or file can bring in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.formatted_text.utils import fragment_list_to_text
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from wcwidth import iter_graphemes

from qwenchat.i18n.language import tr
from qwenchat.terminal.sanitize import sanitize_line
from qwenchat.terminal.signs import plain, whole

FOLD_LINES = 12
"""A paste of more lines than this is shown folded into a few words, and sent whole."""
FOLD_CHARACTERS = 2000
"""So is one of more characters, on however few lines."""

_FIRST, _KEPT = 0xD800, 0x200  # surrogates; when there were so many pastes, the first is forgotten
_FOLDED = re.compile("[\ud800-\ud9ff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
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
        """The text of a line, with the signs and the pastes themselves."""
        return _FOLDED.sub(lambda found: self._texts.get(found[0], (0, ""))[1], plain(text))

    def refold(self, text: str) -> str:
        """A text for the line, with what was folded before folded again."""
        text = _SURROGATES.sub("\ufffd", text)
        for character, (_, pasted) in self._texts.items():
            text = text.replace(pasted, character)
        return text

    @staticmethod
    def hide(text: str) -> str:
        """A line for whoever looks for names in what was typed."""
        return _FOLDED.sub(_OTHER, plain(text))

    def shown(self, sign: str) -> str:
        """A sign as it is shown: of a paste the words for it, of all else what passes the gate."""
        if sign not in self._texts:
            return sanitize_line(plain(sign)) if sign != "\t" else sign
        number, text = self._texts[sign]
        if (lines := text.removesuffix("\n").count("\n") + 1) >= FOLD_LINES:
            return tr("[paste {number}: {count} lines]", number=number, count=f"{lines:,}")
        return tr("[paste {number}: {count} characters]", number=number, count=f"{len(text):,}")


class Line(Buffer):
    """The text being typed, each sign and each folded paste one character."""

    @property
    def text(self) -> str:
        """The text; what is set may have signs of several characters."""
        held: str = super().text
        return held

    @text.setter
    def text(self, value: str) -> None:
        self.document = Document(value, min(self.cursor_position, len(value)))

    def set_document(self, value: Document, bypass_readonly: bool = False) -> None:
        """Sets text and cursor; see the base class."""
        super().set_document(_whole(value), bypass_readonly)

    def reset(self, document: Document | None = None, append_to_history: bool = False) -> None:
        """Begins anew; see the base class."""
        super().reset(document and _whole(document), append_to_history)

    def transform_region(self, from_: int, to: int, transform_callback: Callable[[str], str]) -> None:
        """Changes a part, such as its case, which its letters have and not what stands for them."""
        super().transform_region(from_, to, lambda text: transform_callback(plain(text)))

    def transform_current_line(self, transform_callback: Callable[[str], str]) -> None:
        """Changes the cursor's line; see :meth:`transform_region`."""
        super().transform_current_line(lambda text: transform_callback(plain(text)))


def swap_case(buffer: Buffer, count: int = 1) -> None:
    """Swaps the case of so many signs behind the cursor in its line, and steps over them."""
    begin = buffer.cursor_position
    end = begin + buffer.document.get_cursor_right_position(count)
    if begin < end:
        buffer.transform_region(begin, end, str.swapcase)
        buffer.cursor_position = end


def _whole(document: Document) -> Document:
    """A document with each sign as one character; a cursor within a sign stands behind it."""
    text = whole(document.text)
    if text == document.text:
        return document
    before = len(plain(document.text[: document.cursor_position]))
    position = 0
    while before > 0:
        before -= len(plain(text[position]))
        position += 1
    return Document(text, position)


class Shown(Processor):
    """The line as shown: sanitised signs, each as wide as a terminal draws it.

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
