"""Code blocks of a Markdown text: those between fences, all at once or as the text comes.

Owns where a fence opens and closes, and which language goes with which file name. Does not know where
the text is from or where the code goes.

Fences are CommonMark's (0.31, section 4.5): three or more of ````` or ``~``, closed by as many or more of
the same, so that a longer fence can hold a shorter one. Models are sloppy where fences stand in lists, so
there more passes than CommonMark has:

- within a list a fence may be indented by any amount, and stand behind the item's marker;
- lines inside lose as much indentation as the fence has, if they have it; one with less does not end it;
- a closing fence may be indented less than the opening one.

Fences in quotes are text. CR LF is read as LF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

_FENCE = re.compile(r"(?P<before>[ \t]*(?:(?:[-+*]|\d{1,9}[.)])[ \t]+)*)(?P<mark>`{3,}|~{3,})(?P<info>.*)")
_ITEM = re.compile(r"[ \t]*(?:[-+*]|\d{1,9}[.)])(?:[ \t]|$)")
_LANGUAGE = re.compile(r"[\w+#.-]+")
_TAB = 4  # columns

# Languages by the suffix of their files; the first name of each is the one to write behind a fence.
_LANGUAGES: dict[str, tuple[str, ...]] = {
    "py": ("python", "python3"),
    "js": ("javascript", "mjs", "node"),
    "ts": ("typescript",),
    "jsx": ("jsx",),
    "tsx": ("tsx",),
    "sh": ("bash", "shell", "zsh", "console", "shell-session"),
    "ps1": ("powershell", "pwsh"),
    "bat": ("batch", "cmd"),
    "c": ("c", "h"),
    "cpp": ("cpp", "c++", "cc", "cxx", "hpp"),
    "cu": ("cuda",),
    "cs": ("csharp", "c#"),
    "java": ("java",),
    "kt": ("kotlin",),
    "scala": ("scala",),
    "swift": ("swift",),
    "go": ("go", "golang"),
    "rs": ("rust",),
    "zig": ("zig",),
    "rb": ("ruby",),
    "php": ("php",),
    "pl": ("perl",),
    "lua": ("lua",),
    "r": ("r",),
    "jl": ("julia",),
    "hs": ("haskell",),
    "ex": ("elixir",),
    "erl": ("erlang",),
    "clj": ("clojure",),
    "dart": ("dart",),
    "sql": ("sql", "mysql", "postgresql", "sqlite"),
    "html": ("html", "htm"),
    "css": ("css",),
    "scss": ("scss",),
    "vue": ("vue",),
    "xml": ("xml",),
    "svg": ("svg",),
    "json": ("json",),
    "jsonl": ("jsonl",),
    "yaml": ("yaml", "yml"),
    "toml": ("toml",),
    "ini": ("ini", "cfg"),
    "csv": ("csv",),
    "md": ("markdown",),
    "tex": ("latex",),
    "diff": ("diff", "patch"),
    "txt": ("text", "plaintext", "log"),
}
_SUFFIXES = {name: suffix for suffix, names in _LANGUAGES.items() for name in (*names, suffix)}
# Files that are known by their whole name.
_FILES = {"dockerfile": "Dockerfile", "makefile": "Makefile", "cmake": "CMakeLists.txt"}


@dataclass(frozen=True, slots=True)
class Block:
    """A run of lines: prose, or the inside of a code fence.

    Attributes:
        text: the lines, without a newline behind the last.
        fence: the marks that opened the fence; empty for prose.
        language: the first word behind them.
        indent: columns before them.
        closed: False if the text ends inside the fence.
    """

    text: str
    fence: str = ""
    language: str = ""
    indent: int = 0
    closed: bool = True


def blocks(text: str) -> Iterator[Block]:
    """The text in runs of prose and code, in its order."""
    reader = _Reader()
    lines: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        within = reader.fence
        content = reader.read(line)
        if content is not None:
            lines.append(content)
            continue
        if lines or within:
            yield _block(lines, within)
        lines = []
    if lines or reader.fence:
        yield _block(lines, reader.fence, closed=reader.fence is None)


def code_blocks(text: str) -> list[Block]:
    """The blocks that are code, but those that hold nothing."""
    return [block for block in blocks(text) if block.fence and block.text.strip()]


class CodeStream:
    """The code of a reply that is still coming, line by line.

    All blocks are given, a blank line between two. A reply without any code in fences is given whole at
    its end: a model that is asked for code alone often answers with just that.
    """

    def __init__(self) -> None:
        self._reader = _Reader()
        self._line: list[str] = []  # the line that is coming, in pieces
        self._whole: list[str] = []  # the whole reply, as long as there was no code
        self._blank: list[str] = []  # lines that are code if the block has more
        self._block_begun = False
        self._any = False

    def feed(self, text: str) -> str:
        """Takes a piece of the reply; returns the lines of code that are now complete."""
        if not self._any:
            self._whole.append(text)
        *ends, rest = text.split("\n")
        code = []
        for end in ends:
            self._line.append(end)
            code.append(self._end_line())
        self._line.append(rest)
        return "".join(code)

    def finish(self) -> str:
        """Returns the rest when the reply is over: its last line, or all of it if there was no code."""
        last = self._end_line() if any(self._line) else ""
        return last if self._any else "".join(self._whole)

    def _end_line(self) -> str:
        content = self._reader.read("".join(self._line))
        self._line.clear()
        if content is None:
            self._block_begun = False
            self._blank.clear()
            return ""
        if self._reader.fence is None:
            return ""
        if not self._block_begun and not content.strip():
            self._blank.append(content)
            return ""
        gap = [""] if self._any and not self._block_begun else []
        lines = [*gap, *self._blank, content, ""]
        self._block_begun = self._any = True
        self._blank.clear()
        self._whole.clear()
        return "\n".join(lines)


def suggested_name(block: Block) -> str:
    """A file name for a block of code, from its language: ``code.py``; ``code.txt`` if that says nothing."""
    name = block.language.lower()
    if name in _FILES:
        return _FILES[name]
    # Some write a file's name where the language goes.
    suffix = _SUFFIXES.get(name) or _SUFFIXES.get(name.rpartition(".")[2], "txt")
    return f"code.{suffix}"


def language_of(file_name: str) -> str:
    """The word to write behind a fence around that file, from its name; empty if that says nothing."""
    path = PurePath(file_name)
    if path.name in _FILES.values():
        return next(language for language, name in _FILES.items() if name == path.name)
    suffix = path.suffix[1:].lower()
    return _LANGUAGES[_SUFFIXES[suffix]][0] if suffix in _SUFFIXES else ""


@dataclass(frozen=True, slots=True)
class _Fence:
    mark: str
    language: str
    indent: int


class _Reader:
    """Reads a text line by line.

    Attributes:
        fence: the fence that is open.
    """

    def __init__(self) -> None:
        self.fence: _Fence | None = None
        self._in_list = False
        self._after_blank = True

    def read(self, line: str) -> str | None:
        """The line as its block has it; None if it opens or closes a fence."""
        line = line.removesuffix("\r")
        found = _FENCE.fullmatch(line)
        if self.fence is not None:
            if found and self._closes(found, self.fence):
                self.fence = None
                return None
            return _dedent(line, self.fence.indent)
        self._watch_lists(line)
        self.fence = self._opened(found) if found else None
        return line if self.fence is None else None

    def _opened(self, found: re.Match[str]) -> _Fence | None:
        mark, info = found["mark"], found["info"]
        indent = len(found["before"].expandtabs(_TAB))
        if (indent > 3 and not self._in_list) or (mark[0] == "`" and "`" in info):
            return None
        language = _LANGUAGE.match(info.lstrip(" \t{."))
        return _Fence(mark, language[0] if language else "", indent)

    @staticmethod
    def _closes(found: re.Match[str], fence: _Fence) -> bool:
        before = found["before"]
        is_near = not before.strip() and len(before.expandtabs(_TAB)) <= fence.indent + 3
        return is_near and found["mark"].startswith(fence.mark) and not found["info"].strip()

    def _watch_lists(self, line: str) -> None:
        """A list goes on until a line that is not indented follows a blank one."""
        if _ITEM.match(line):
            self._in_list = True
        elif self._after_blank and line[:1].strip():
            self._in_list = False
        self._after_blank = not line.strip()


def _block(lines: list[str], fence: _Fence | None, closed: bool = True) -> Block:
    text = "\n".join(lines)
    return Block(text, fence.mark, fence.language, fence.indent, closed) if fence else Block(text)


def _dedent(line: str, columns: int) -> str:
    """The line without as many columns of indentation, or as many as it has."""
    column = 0
    for position, character in enumerate(line):
        column += _TAB - column % _TAB if character == "\t" else 1
        if character not in " \t" or column > columns:
            return line[position:]
    return ""
