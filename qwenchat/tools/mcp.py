"""MCP servers as tools: those of the ``mcpServers`` JSON that other programs share, over stdio and HTTP.

Stands on the official SDK, which an extra brings. A server is a stranger: what it says of its tools is text,
its annotations count for nothing, it gets no more of the environment than the SDK's allow-list and its own
entries, what it prints goes nowhere, and every wait for it has a limit. Its processes end with the chat.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotYet
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from qwenchat.errors import QwenchatError, UsageError, shorten
from qwenchat.files.json_values import read_json
from qwenchat.tools.child import guarded
from qwenchat.tools.forms import Definition
from qwenchat.tools.rules import rule_of
from qwenchat.tools.tool import PlainTool, ToolError

START_SECONDS, CALL_SECONDS = 30.0, 100.0
_END_SECONDS = 10.0
_TICK = 0.05
_LONGEST_MESSAGE = 8 * 2**20
"""Bytes; a server that says more in one line is ended."""
_NAME = re.compile(r"[\w.:/-]{1,128}")
_LONGEST_TEXT = 8000
"""Characters of a description: no more of the context for a stranger's words."""
_MOST_PAGES, _MOST_TOOLS = 20, 200
_FIELDS = {"command", "args", "env", "cwd", "url", "headers", "type", "disabled"}

T = TypeVar("T")


def servers_of(path: Path, cancel: threading.Event) -> list[McpTool]:
    """The tools of all servers that a file names, each server started.

    Raises:
        UsageError: the file cannot be read, the SDK is missing, or a server does not start.
    """
    started: list[Server] = []
    try:
        for name, entry in _entries(path).items():
            started.append(Server(name, entry, path, cancel))
    except BaseException:
        for server in started:
            server.close()
        raise
    return [tool for server in started for tool in server.tools]


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The servers of a file that are not disabled."""
    try:
        found = read_json(path).get("mcpServers")
    except (OSError, QwenchatError) as error:
        raise UsageError("{path}: {reason}", path=path, reason=shorten(str(error), 200)) from error
    entries = {}
    for name, entry in found.items() if isinstance(found, dict) else ():
        wrong = (
            not isinstance(entry, dict)
            or not set(entry) <= _FIELDS
            or ("command" in entry) is ("url" in entry)
        )
        if wrong or not _are_texts(entry):
            raise UsageError(
                "{path}: the server {name} has neither a command nor a url, or what is unknown here",
                "a server has command, args, env and cwd, or url and headers",
                path=path,
                name=name,
            )
        if not entry.get("disabled"):
            entries[str(name)] = entry
    if not entries:
        raise UsageError("{path}: there are no mcpServers in it", path=path)
    return entries


def _are_texts(entry: Mapping[str, Any]) -> bool:
    """Whether the fields are of the kinds that they should be."""
    lists, tables = entry.get("args", []), [entry.get("env", {}), entry.get("headers", {})]
    texts = [entry[name] for name in ("command", "url", "cwd") if name in entry]
    return (
        isinstance(lists, list)
        and all(isinstance(table, dict) for table in tables)
        and all(
            isinstance(t, str) for t in (*texts, *lists, *(v for table in tables for v in table.values()))
        )
    )


class Server:
    """A running server, in a thread of its own; to be closed.

    Args:
        name: as the file calls it.
        entry: what the file says of it.
        path: the file.
        cancel: ends the start when set.

    Attributes:
        name: as given.
        tools: what it offers.

    Raises:
        UsageError: it does not start.
    """

    def __init__(self, name: str, entry: Mapping[str, Any], path: Path, cancel: threading.Event) -> None:
        self.name = name
        self._entry = entry
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"MCP server {name}", daemon=True)
        self._thread.start()
        try:
            self._await_start(cancel)
            found = self.listed(cancel)
        except ToolError as error:
            self.close()
            raise UsageError(
                "{path}: the server {name} does not start: {reason}",
                path=path.name,
                name=name,
                reason=shorten(str(error), 300),
            ) from error
        self.tools = [McpTool(self, definition) for definition in found.values()]

    def listed(self, cancel: threading.Event) -> dict[str, Definition]:
        """The tools that it offers now, by their names.

        Raises:
            ToolError: it does not say.
        """

        async def ask() -> list[Any]:
            found: list[Any] = []
            cursor = None
            for _ in range(_MOST_PAGES):
                page = await self._client.list_tools(cursor=cursor, cache_mode="refresh")
                found += page.tools
                cursor = page.next_cursor
                if not cursor or len(found) > _MOST_TOOLS:
                    break
            return found[:_MOST_TOOLS]

        return {tool.name: definition_of(tool) for tool in self._asked(ask, START_SECONDS, cancel)}

    def call(self, tool: str, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        """What a tool gives back.

        Raises:
            ToolError: it fails, or the server does.
        """
        result = self._asked(lambda: self._client.call_tool(tool, dict(arguments)), CALL_SECONDS, cancel)
        parts = [_text_of(block) for block in result.content]
        if not parts and result.structured_content is not None:
            parts = [json.dumps(result.structured_content, ensure_ascii=False)]
        text = "\n".join(parts)
        if result.is_error:
            raise ToolError(text or "The tool failed and said nothing.")
        return text or "Done."

    def close(self) -> None:
        """Ends it, and all processes that it started."""
        if self._stop is not None:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_END_SECONDS)

    def _await_start(self, cancel: threading.Event) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._ready.wait(_TICK):
            if cancel.is_set():
                raise ToolError("Interrupted by the user.")
            if time.monotonic() > end:
                raise ToolError(f"It says nothing after {START_SECONDS:g} s.")
        if self._failure is not None:
            raise ToolError(_reason(self._failure))

    def _asked(self, ask: Callable[[], Awaitable[T]], seconds: float, cancel: threading.Event) -> T:
        """What the server replies, which is waited for so long."""

        async def bounded() -> T:
            return await asyncio.wait_for(ask(), seconds)

        if not self._thread.is_alive():
            raise ToolError(f"The server {self.name} has ended.")
        future = asyncio.run_coroutine_threadsafe(bounded(), self._loop)
        while True:
            try:
                return future.result(_TICK)
            except NotYet:
                if future.done():
                    raise ToolError(f"The server {self.name} gave no reply in {seconds:g} s.") from None
                if cancel.is_set() or not self._thread.is_alive():
                    future.cancel()
                    ended = (
                        "Interrupted by the user."
                        if cancel.is_set()
                        else f"The server {self.name} has ended."
                    )
                    raise ToolError(ended) from None
            except CancelledError:
                raise ToolError(f"The server {self.name} has ended.") from None
            except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of it
                raise ToolError(_reason(error)) from None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the start
            self._failure = error
        finally:
            self._ready.set()
            with suppress(Exception):
                for task in asyncio.all_tasks(self._loop):
                    task.cancel()
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _live(self) -> None:
        """Connects, and stays until it is to end: the SDK is left in the task that entered it."""
        self._stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            self._client = await stack.enter_async_context(await _client(self._entry, stack))
            self._ready.set()
            await self._stop.wait()


class McpTool(PlainTool):
    """One tool of a server; see :class:`~qwenchat.tools.tool.Tool`."""

    def __init__(self, server: Server, definition: Definition) -> None:
        self._server = server
        self._definition = definition

    @property
    def definition(self) -> Definition:
        return self._definition

    @property
    def origin(self) -> str:
        return f"MCP {self._server.name}"

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        return self._server.call(self._definition.name, arguments, cancel)

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return rule_of(self._definition.name, arguments)

    def pin(self, cancel: threading.Event) -> str:
        """A digest of what the server says of the tool now."""
        found = self._server.listed(cancel).get(self._definition.name)
        if found is None:
            raise ToolError("The server no longer has this tool.")
        self._definition = found
        told = [found.name, found.title, found.description, found.parameters]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def close(self) -> None:
        self._server.close()


async def _client(entry: Mapping[str, Any], stack: AsyncExitStack) -> Any:
    """A client for a server, not entered yet."""
    try:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        raise ToolError("the package mcp is missing: pip install 'qwenchat[mcp]'") from None
    if "url" in entry:
        from qwenchat.tools import bounded_http  # httpx2 comes with the SDK

        client = bounded_http.client(entry.get("headers", {}), _LONGEST_MESSAGE)
        http = await stack.enter_async_context(client)
        return Client(
            streamable_http_client(entry["url"], http_client=http), read_timeout_seconds=CALL_SECONDS
        )
    if shutil.which(entry["command"], path=dict(entry.get("env", {})).get("PATH")) is None:
        raise ToolError(f"{entry['command']} is not there, or cannot be run")
    command, *arguments = guarded([entry["command"], *entry.get("args", [])], _LONGEST_MESSAGE)
    nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123, SIM115
    parameters = StdioServerParameters(
        command=command,
        args=arguments,
        env=dict(entry.get("env", {})),
        cwd=entry.get("cwd"),
        encoding_error_handler="replace",
    )
    return Client(stdio_client(parameters, errlog=nowhere), read_timeout_seconds=CALL_SECONDS)


def definition_of(tool: Any) -> Definition:
    """What a model is told of a tool.

    Raises:
        ToolError: it has a name that reads as more than one.
    """
    if not _NAME.fullmatch(tool.name):
        raise ToolError(f"it has a tool called {tool.name[:100]!r}, which is no name of a tool")
    title = shorten(tool.title or "", 100)
    return Definition(tool.name, _cut(tool.description or ""), tool.input_schema, title=title)


def _cut(description: str) -> str:
    return description if len(description) <= _LONGEST_TEXT else f"{description[:_LONGEST_TEXT]}…"


def _text_of(block: Any) -> str:
    """The text of a block of a result; of a picture or a sound what it is."""
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return str(text) if text is not None else f"[a file: {block.resource.uri}]"
    if block.type == "resource_link":
        return f"[a file: {block.uri}]"
    return f"[{block.type}: {getattr(block, 'mime_type', '')}]"


def _reason(error: BaseException) -> str:
    """What went wrong, of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ToolError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
