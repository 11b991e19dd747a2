"""The files that go with the next message: attached by a command, or named in it by ``@path``.

Owns which they are and what is said of their length. How a file is read and put into a message is
``attachments.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.chat.turn import turn_tokens
from qwenchat.errors import Phrase, QwenchatError, UsageError
from qwenchat.i18n.language import plural, tr
from qwenchat.terminal.input import attachments
from qwenchat.terminal.input.attachments import Attachment

_COUNTED_AT_ONCE = 64 * 1024  # characters; counting more would be felt while typing


class Draft:
    """The next message in the making: its text and its files.

    Attributes:
        attached: files that were attached; they stay until a message with them was sent.
    """

    def __init__(self) -> None:
        self.attached: list[Attachment] = []
        self._tokens: dict[tuple[str, int], int] = {}
        self._seen: dict[str, tuple[tuple[int, int], Attachment]] = {}

    def attach(self, typed: str) -> Attachment:
        """Reads a file, to go with the next message; one that is in it already is read again.

        Raises:
            QwenchatError: it cannot be sent.
        """
        file = attachments.read_file(typed)
        self.attached = _once([*self.attached, file])
        return file

    def detach(self, typed: str) -> int:
        """Takes the files out again, or the one of a name or a path. Returns how many there were.

        Raises:
            UsageError: no file that is attached is called so.
        """
        place = attachments.place_of(typed)
        out = [file for file in self.attached if not typed or typed == file.name or place == file.place]
        if typed and not out:
            names = tr(", ").join(file.name for file in self.attached)
            hint = tr("there are {names}", names=names) if names else tr("no file is")
            raise UsageError(Phrase("{path} is not attached", path=typed), hint)
        self.attached = [file for file in self.attached if file not in out]
        return len(out)

    def message(self, text: str) -> tuple[str, list[Attachment], list[str]]:
        """The message with its files, the files that the text names, and names that no file has.

        Raises:
            QwenchatError: a file that the text names cannot be sent.
        """
        paths = attachments.find_mentions(text)
        # A question that is asked again may have its files in it.
        there = {attachments.place_of(path) for path in paths if f"\n{path}:\n" in text}
        named = _once(
            attachments.read_file(path) for path in paths if attachments.place_of(path) not in there
        )
        missing = list(attachments.missing_mentions(text))
        return attachments.with_files(text, _once([*self.attached, *named])), named, missing

    def describe(self, file: Attachment, backend: Backend | None) -> str:
        """A file's name, its lines and, where a model is there to count them, its tokens."""
        lines = plural(file.lines, "1 line", "{count} lines")
        if backend is None:
            return tr("{path}: {size}", path=file.name, size=lines)
        tokens = plural(self._count(file, backend), "1 token", "{count} tokens")
        return tr("{path}: {size}", path=file.name, size=tr("{lines}, {tokens}", lines=lines, tokens=tokens))

    def marks(self, text: str, backend: Backend) -> Iterator[str]:
        """For each file that would go with ``text``, a few words for the toolbar."""
        files = list(self.attached)
        for path in attachments.find_mentions(text) if "@" in text else ():
            file = self._read_while_typing(path)
            if file is not None:
                files.append(file)
        for file in _once(files):
            if len(file.text) > _COUNTED_AT_ONCE:
                yield self.describe(file, None)
            else:
                tokens = plural(self._count(file, backend), "1 token", "{count} tokens")
                yield tr("{path}: {size}", path=file.name, size=tokens)

    def _read_while_typing(self, name: str) -> Attachment | None:
        """A file, read again only if it has changed; None if it cannot be sent, which is told later."""
        try:
            status = attachments.to_path(name).stat()
            state = (status.st_mtime_ns, status.st_size)
            if name not in self._seen or self._seen[name][0] != state:
                self._seen[name] = state, attachments.read_file(name)
        except (OSError, ValueError, QwenchatError):
            return None
        return self._seen[name][1]

    def _count(self, file: Attachment, backend: Backend) -> int:
        key = (backend.name, hash(file.text))
        if key not in self._tokens:
            self._tokens[key] = turn_tokens(backend, [Message.of_text(Role.USER, file.text)])
        return self._tokens[key]


def _once(files: Iterable[Attachment]) -> list[Attachment]:
    """The files, each once by whatever paths it was named; what was read last counts."""
    return list({file.place: file for file in files}.values())
