"""The tools of a chat: named by the user, known by their names, closed at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from qwenchat.errors import Names, Phrase, UsageError
from qwenchat.tools import files
from qwenchat.tools.forms import Definition
from qwenchat.tools.tool import Tool

BUILT_IN = ("time", *files.NAMES, "python", "web_fetch")
"""The names of the tools that come with the program; each is off until it is named."""


class Toolbox:
    """The tools that a model may call.

    Args:
        python: runs Python and gives the observation.
        unconfined: does so where nothing confines it, after a yes to each run; None: it is not run there.
    """

    def __init__(
        self,
        python: Callable[[str, threading.Event], str],
        unconfined: Callable[[str, threading.Event], str] | None = None,
    ) -> None:
        self._python, self._unconfined = python, unconfined
        self._tools: dict[str, Tool] = {}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in the order of naming."""
        return tuple(self._tools.values())

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """What a model is told of them."""
        return tuple(tool.definition for tool in self._tools.values())

    def find(self, name: str) -> Tool | None:
        """The tool of a name."""
        return self._tools.get(name)

    def add(self, spec: str, cancel: threading.Event | None = None) -> list[str]:
        """Adds what a user named: a Python file, one of MCP servers, or built-in tools with what they need.

            time                        tools.py                    python
            read_file,list_files=DIR    web_fetch=HOST,HOST         mcp.json

        Returns:
            The names of the new tools.

        Raises:
            UsageError: there is no such tool, it lacks something, or one of that name is there.
        """
        return self.take(self._made(spec.strip(), cancel or threading.Event()))

    def take(self, tools: Iterable[Tool]) -> list[str]:
        """Adds tools that were made elsewhere. Returns their names; raises as :meth:`add`."""
        new = {}
        tools = list(tools)
        for tool in tools:
            name = tool.definition.name
            if name in self._tools or name in new:
                for other in tools:
                    other.close()
                raise UsageError("there are two tools called {name}", "name one of them otherwise", name=name)
            new[name] = tool
        self._tools.update(new)
        return list(new)

    def drop(self, name: str) -> None:
        """Takes a tool away.

        Raises:
            UsageError: there is none of that name.
        """
        tool = self._tools.pop(name, None)
        if tool is None:
            known = Names(self._tools)
            hint = Phrase("there are {names}", names=known) if known else Phrase("there is none")
            raise UsageError(Phrase("there is no tool {name!r}", name=name), hint)
        tool.close()

    def close(self) -> None:
        """Ends what they have running."""
        for tool in self._tools.values():
            with suppress(Exception):  # one that fails must not keep the others running
                tool.close()

    def _made(self, spec: str, cancel: threading.Event) -> list[Tool]:
        if spec.endswith(".json"):
            from qwenchat.tools import mcp  # the SDK comes with an extra

            return list(mcp.servers_of(Path(spec).expanduser(), cancel))
        if spec.endswith(".py") or (("/" in spec or "\\" in spec) and "=" not in spec):
            from qwenchat.tools.functions import FunctionFile  # which starts processes

            return list(FunctionFile(Path(spec).expanduser(), cancel).tools)
        names, _, what = spec.partition("=")
        return [self._built_in(name.strip(), what.strip()) for name in names.split(",")]

    def _built_in(self, name: str, what: str) -> Tool:
        from qwenchat.tools import builtin

        if name in files.NAMES:
            folder = Path(what).expanduser()
            if not what or not folder.is_dir():
                raise UsageError("{name} needs a folder", "name one that is there: {name}=FOLDER", name=name)
            return files.file_tool(name, folder)
        if name == "web_fetch":
            hosts = [host.strip() for host in what.split(",") if host.strip()]
            if not hosts:
                raise UsageError(
                    "web_fetch needs the hosts that it may ask",
                    "name them: web_fetch=example.org,example.com",
                )
            return builtin.WebFetch(hosts)
        if name not in BUILT_IN or what:
            raise UsageError(
                Phrase("there is no tool {name!r}", name=f"{name}={what}" if what else name),
                Phrase("there are {names}; a Python file's are named by its path", names=Names(BUILT_IN)),
            )
        return builtin.Python(self._python, self._unconfined) if name == "python" else builtin.Time()
