"""The next message: its text and its files, attached by a command or named in it by ``@path``.

Owns which files go with it and what is said of their length. How a file is read is ``attachments.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import AttachedFile, Role, Text
from qwenchat.chat.turn import turn_tokens
from qwenchat.errors import Phrase, QwenchatError, UsageError
from qwenchat.i18n.language import plural, tr
from qwenchat.terminal.input import attachments
from qwenchat.terminal.stats import about

_COUNTED_AT_ONCE = 64 * 1024  # characters; counting more would be felt while typing


class Draft:
    """The next message in the making: its text and its files.

    Attributes:
        attached: files that were attached; they stay until a message with them was sent.
        edited: the question that this is another form of; None for a new one. Its files go with this one as
            they were, but for those that it mentioned and this one no longer does.
    """

    def __init__(self) -> None:
        self.attached: list[AttachedFile] = []
        self.edited: Message | None = None
        self._tokens: dict[tuple[str, int], int] = {}
        self._seen: dict[str, tuple[tuple[int, int], AttachedFile]] = {}

    def attach(self, typed: str) -> AttachedFile:
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
        out = [file for file in self.attached if not typed or typed == file.name or place == _place(file)]
        if typed and not out:
            names = tr(", ").join(file.name for file in self.attached)
            hint = tr("there are {names}", names=names) if names else tr("no file is")
            raise UsageError(Phrase("{path} is not attached", path=typed), hint)
        self.attached = [file for file in self.attached if file not in out]
        return len(out)

    def message(self, text: str) -> tuple[Message, list[AttachedFile], list[str]]:
        """The message with its files, the files that the text names, and names that no file has.

        Raises:
            QwenchatError: a file that the text names cannot be sent.
        """
        kept, is_new = self._kept(text), self._is_new(text)
        named = _once(attachments.read_file(path) for path in attachments.find_mentions(text) if is_new(path))
        missing = [path for path in attachments.missing_mentions(text) if is_new(path)]
        files = _once([*kept, *self.attached, *named])
        said = [Text(text)] if text.strip() or not files else []
        return Message(Role.USER, (*said, *files)), named, missing

    def describe(self, file: AttachedFile, backend: Backend | None) -> str:
        """A file's name, its lines and, where a model is there to count them, its tokens."""
        lines = plural(attachments.line_count(file.text), "1 line", "{count} lines")
        if backend is None:
            return tr("{path}: {size}", path=file.name, size=lines)
        tokens = self._told(file, backend)
        return tr("{path}: {size}", path=file.name, size=tr("{lines}, {tokens}", lines=lines, tokens=tokens))

    def marks(self, text: str, backend: Backend) -> Iterator[str]:
        """For each file that would go with ``text``, a few words for the toolbar."""
        files, is_new = [*self._kept(text), *self.attached], self._is_new(text)
        for path in attachments.find_mentions(text) if "@" in text else ():
            file = self._read_while_typing(path) if is_new(path) else None
            if file is not None:
                files.append(file)
        for file in _once(files):
            if len(file.text) > _COUNTED_AT_ONCE:
                yield self.describe(file, None)
            else:
                yield tr("{path}: {size}", path=file.name, size=self._told(file, backend))

    def _kept(self, text: str) -> list[AttachedFile]:
        """The files of the edited question that go with ``text``, its new form."""
        if self.edited is None or not self.edited.files:
            return []
        no_longer_named = _places_named(self.edited.text) - _places_named(text)
        return [file for file in self.edited.files if _place(file) not in no_longer_named]

    def _is_new(self, text: str) -> Callable[[str], bool]:
        """Tells whether a path in ``text`` names a file that did not come with the edited question."""
        kept = {_place(file) for file in self._kept(text)}
        # A question of a session of schema 1 has its files in its text.
        pasted = text if self.edited is not None else ""
        return lambda path: attachments.place_of(path) not in kept and f"\n{path}:\n" not in pasted

    def _read_while_typing(self, name: str) -> AttachedFile | None:
        """A file, read again only if it has changed; None if it cannot be sent, which is told later."""
        try:
            status = attachments.to_path(name).stat()
            state = (status.st_mtime_ns, status.st_size)
            if name not in self._seen or self._seen[name][0] != state:
                self._seen[name] = state, attachments.read_file(name)
        except (OSError, ValueError, QwenchatError):
            return None
        return self._seen[name][1]

    def _told(self, file: AttachedFile, backend: Backend) -> str:
        """Its tokens, in words."""
        return about(backend) + plural(self._count(file, backend), "1 token", "{count} tokens")

    def _count(self, file: AttachedFile, backend: Backend) -> int:
        key = (backend.name, hash(file.text))
        if key not in self._tokens:
            self._tokens[key] = turn_tokens(backend, [Message.of_text(Role.USER, file.text)])
        return self._tokens[key]


def _once(files: Iterable[AttachedFile]) -> list[AttachedFile]:
    """The files, each once by whatever paths it was named; what was read last counts."""
    return list({_place(file): file for file in files}.values())


def _places_named(text: str) -> set[str]:
    return set(map(attachments.place_of, attachments.find_mentions(text)))


def _place(file: AttachedFile) -> str:
    """The resolved path, the same by whatever path the file is named."""
    return attachments.place_of(file.name)
