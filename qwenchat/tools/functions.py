"""Functions of a file of the user's as tools: it is their own code, and runs in a child process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase, UsageError, shorten
from qwenchat.files.opening import check_file, reason_of
from qwenchat.tools import function_child
from qwenchat.tools.child import Child
from qwenchat.tools.forms import Definition
from qwenchat.tools.rules import rule_of
from qwenchat.tools.tool import PlainTool, ToolError

SECONDS = 60.0
"""Of one call."""
_IMPORT_SECONDS = 30.0


class FunctionFile:
    """A file of functions, and the process that runs them.

    Args:
        path: of the file.
        cancel: ends the start when set.
        seconds: of one call.

    Attributes:
        tools: its functions.

    Raises:
        UsageError: there is no such file, it does not import, or has no function that can be a tool.
    """

    def __init__(self, path: Path, cancel: threading.Event, *, seconds: float = SECONDS) -> None:
        self._path, self._seconds = path.absolute(), seconds
        try:
            check_file(path)
        except (OSError, ValueError) as error:
            raise UsageError("{path}: {reason}", path=path, reason=reason_of(error)) from error
        self._child: Child | None = None
        try:
            found = self._start(cancel)
        except ToolError as error:
            self.close()
            raise UsageError(
                "{path} does not import: {reason}", path=path, reason=shorten(str(error), 300)
            ) from error
        self.tools = [_Function(self, self._definition(told)) for told in found]
        if not self.tools:
            self.close()
            raise UsageError(
                "{path}: there is no function for a tool in it",
                "a tool is a function with types and a docstring, whose name has no underscore before it",
                path=path,
            )

    def call(self, name: str, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        """The result of a function; behind what it printed.

        Raises:
            ToolError: it failed.
        """
        if self._child is None or not self._child.runs:
            self._start(cancel)
        assert self._child is not None
        reply, printed = self._child.ask({"call": name, "arguments": dict(arguments)}, self._seconds, cancel)
        said = "\n".join(filter(None, (printed.strip(), str(reply.get("result", "")))))
        if "error" in reply:
            raise ToolError("\n".join(filter(None, (said, str(reply["error"])))))
        return said or "Done."

    def close(self) -> None:
        """Ends the process."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _start(self, cancel: threading.Event) -> list[dict[str, Any]]:
        self.close()
        try:
            self._child = Child([sys.executable, "-P", "-u", function_child.__file__])
        except OSError as error:
            raise ToolError(f"The process cannot be started: {reason_of(error)}") from error
        reply, printed = self._child.ask({"file": str(self._path)}, _IMPORT_SECONDS, cancel)
        if "error" in reply:
            raise ToolError(f"{reply['error']} {printed}".strip())
        return list(reply["functions"])

    def _definition(self, told: dict[str, Any]) -> Definition:
        if "problem" in told:
            self.close()
            raise UsageError(
                "{path}: {name} cannot be a tool: {problem}",
                "give it types that JSON has, or begin its name with an underscore",
                path=self._path.name,
                name=told["name"],
                problem=Phrase(shorten(str(told["problem"]), 200)),
            )
        return Definition(told["name"], told["description"], told["parameters"])


class _Function(PlainTool):
    """One function of the file."""

    def __init__(self, file: FunctionFile, definition: Definition) -> None:
        self._file = file
        self.definition = definition
        self.origin = file._path.name

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        return self._file.call(self.definition.name, arguments, cancel)

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return rule_of(self.definition.name, arguments)

    def close(self) -> None:
        self._file.close()
