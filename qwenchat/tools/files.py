"""Tools for the files of one folder that the user named: read, list, search, write, edit."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.files import atomic
from qwenchat.files.opening import read_file, reason_of
from qwenchat.tools.forms import Definition
from qwenchat.tools.rules import rule_of
from qwenchat.tools.tool import PlainTool, ToolError

_LARGEST = 4 * 2**20  # bytes of a file that is read or written
_MOST = 500  # names or lines that are told
_MOST_SEARCHED = 20_000  # files


def _object(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _whole(description: str) -> dict[str, Any]:
    return {"type": "integer", "description": description}


_PATH = _text("Path of a file, relative to the folder.")


class Folder:
    """The folder that the tools see.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def inside(self, name: str) -> Path:
        """The place of a name in the folder, with every link on the way followed.

        Raises:
            ToolError: it lies outside.
        """
        try:
            found = (self.path / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise ToolError(f"{name!r} is no path: {error}") from None
        if not found.is_relative_to(self.path):
            raise ToolError(f"{name!r} lies outside the folder.")
        return found

    def read(self, name: str) -> str:
        """A file's text.

        Raises:
            ToolError: it cannot be read, or is no text.
        """
        try:
            data, _ = read_file(self.inside(name), _LARGEST, links=False)
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ToolError(f"{name} is no text in UTF-8.") from None
        except (OSError, ValueError) as error:
            raise ToolError(f"{name}: {reason_of(error)}") from None

    def write(self, name: str, text: str) -> None:
        """Writes a file whole or not at all; what it was it keeps until then.

        Raises:
            ToolError: it cannot be written.
        """
        path = self.inside(name)
        data = text.encode("utf-8", "replace")
        if len(data) > _LARGEST:
            raise ToolError(f"A file of more than {_LARGEST >> 20} MiB is not written.")
        if path.is_dir():
            raise ToolError(f"{name} is a folder.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = path.stat().st_mode & 0o777 if path.exists() else None
            new = atomic.write_temporary(path, data)
            if mode is not None:
                new.path.chmod(mode)
            new.replace(path)
        except OSError as error:
            raise ToolError(f"{name}: {reason_of(error)}") from None

    def files(self, name: str = ".") -> Iterator[Path]:
        """The files below a folder, in order, without hidden ones and without following links."""
        for folder, names, files in os.walk(self.inside(name)):
            names[:] = sorted(n for n in names if not n.startswith("."))
            for file in sorted(files):
                path = Path(folder) / file
                if not file.startswith(".") and not path.is_symlink():
                    yield path


Run = Callable[[Folder, Mapping[str, Any], threading.Event], str]
Preview = Callable[[Folder, Mapping[str, Any]], str]


@dataclass(frozen=True)
class FileTool(PlainTool):
    """One tool of a folder; see :class:`~qwenchat.tools.tool.Tool`."""

    definition: Definition
    folder: Folder
    does: Run
    shows: Preview = lambda folder, arguments: ""

    @property
    def origin(self) -> str:
        return str(self.folder.path)

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        return self.does(self.folder, arguments, cancel)

    def preview(self, arguments: Mapping[str, Any]) -> str:
        return self.shows(self.folder, arguments)

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return rule_of(self.definition.name, arguments, ("path",))


def _read(folder: Folder, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
    lines = folder.read(arguments["path"]).splitlines(keepends=True)
    first = max(int(arguments.get("first_line", 1)), 1)
    return "".join(lines[first - 1 :][: max(int(arguments.get("lines", len(lines))), 0)]) or "(empty)"


def _list(folder: Folder, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
    place = folder.inside(arguments.get("path", "."))
    try:
        entries = sorted(place.iterdir())
    except OSError as error:
        raise ToolError(f"{arguments.get('path', '.')}: {reason_of(error)}") from None
    names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries]
    return _told(names, "entries") or "(empty)"


def _search(folder: Folder, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
    wanted = str(arguments["text"]).casefold()
    if not wanted:
        raise ToolError("The text to search for is empty.")
    found: list[str] = []
    for n, path in enumerate(folder.files(arguments.get("path", "."))):
        if cancel.is_set() or n >= _MOST_SEARCHED or len(found) > _MOST:
            break
        name = path.relative_to(folder.path).as_posix()
        try:
            text = folder.read(name)
        except ToolError:
            continue
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{name}:{k}: {line.strip()[:300]}" for k, line in lines if wanted in line.casefold()]
    return _told(found, "lines") or "Nothing found."


def _told(lines: list[str], what: str) -> str:
    more = [f"… and more {what}"] if len(lines) > _MOST else []
    return "\n".join([*lines[:_MOST], *more])


def _write(folder: Folder, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
    folder.write(arguments["path"], arguments["text"])
    return f"Wrote {arguments['path']}."


def _edit(folder: Folder, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
    folder.write(arguments["path"], _edited(folder, arguments)[1])
    return f"Edited {arguments['path']}."


def _edited(folder: Folder, arguments: Mapping[str, Any]) -> tuple[str, str]:
    """A file's text before and after an edit.

    Raises:
        ToolError: what is to be replaced does not stand there once.
    """
    before, old = folder.read(arguments["path"]), str(arguments["old"])
    count = before.count(old) if old else 0
    if count != 1:
        where = "is empty" if not old else "does not occur" if not count else f"occurs {count} times"
        raise ToolError(f"The text to replace {where} in {arguments['path']}; it must occur once.")
    return before, before.replace(old, str(arguments["new"]))


def _diff_of_write(folder: Folder, arguments: Mapping[str, Any]) -> str:
    name = arguments["path"]
    before = folder.read(name) if folder.inside(name).exists() else ""
    return _diff(name, before, arguments["text"])


def _diff_of_edit(folder: Folder, arguments: Mapping[str, Any]) -> str:
    return _diff(arguments["path"], *_edited(folder, arguments))


def _diff(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="", n=2
    )
    return "\n".join(lines) or "(no change)"


_TOOLS: Mapping[str, tuple[Definition, Run, Preview | None]] = {
    definition.name: (definition, run, preview)
    for definition, run, preview in (
        (
            Definition(
                "read_file",
                "Reads a text file.",
                _object(
                    "path",
                    path=_PATH,
                    first_line=_whole("The first line to read, counted from 1."),
                    lines=_whole("How many lines to read."),
                ),
            ),
            _read,
            None,
        ),
        (
            Definition(
                "list_files",
                "Lists the files and folders of a folder.",
                _object(path=_text("Path of a folder, relative to the folder; . for itself.")),
            ),
            _list,
            None,
        ),
        (
            Definition(
                "search_files",
                "Searches text files for a text, ignoring case, and gives the lines that hold it.",
                _object("text", text=_text("The text."), path=_text("Path of a folder to search in.")),
            ),
            _search,
            None,
        ),
        (
            Definition(
                "write_file",
                "Writes a text file, in place of one that is there.",
                _object("path", "text", path=_PATH, text=_text("The whole text of the file.")),
            ),
            _write,
            _diff_of_write,
        ),
        (
            Definition(
                "edit_file",
                "Replaces a text that occurs once in a text file.",
                _object(
                    "path",
                    "old",
                    "new",
                    path=_PATH,
                    old=_text("The text to replace, as it stands there."),
                    new=_text("The text to put in its place."),
                ),
            ),
            _edit,
            _diff_of_edit,
        ),
    )
}

NAMES = tuple(_TOOLS)
"""The names of these tools."""


def file_tool(name: str, folder: Path) -> FileTool:
    """The tool of a name, for a folder."""
    definition, run, preview = _TOOLS[name]
    if preview is None:
        return FileTool(definition, Folder(folder), run)
    return FileTool(definition, Folder(folder), run, preview)
