"""Tools that need no file: the time, a page of a host that the user named, Python in the sandbox."""

from __future__ import annotations

import html.parser
import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from qwenchat.errors import QwenchatError
from qwenchat.tools.forms import Definition
from qwenchat.tools.rules import rule_of
from qwenchat.tools.tool import PlainTool, Risk, ToolError

Run = Callable[[str, threading.Event], str]
"""Runs code and gives the observation."""
_WEB_SECONDS = 20.0
_LARGEST_PAGE = 2 * 2**20


class Time(PlainTool):
    """Tells the time; see :class:`~qwenchat.tools.tool.Tool`."""

    origin = ""
    definition = Definition(
        "time",
        "Tells the date and the time.",
        {
            "type": "object",
            "properties": {
                "zone": {
                    "type": "string",
                    "description": "A time zone such as Europe/Paris; by default here.",
                }
            },
            "additionalProperties": False,
        },
    )

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        zone = arguments.get("zone")
        try:
            now = datetime.now(ZoneInfo(zone)) if zone else datetime.now().astimezone()
        except (KeyError, ValueError, OSError):
            raise ToolError(f"There is no time zone {zone!r}.") from None
        return now.strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z)")

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return self.definition.name


class WebFetch(PlainTool):
    """Fetches text from hosts that the user named; see :class:`~qwenchat.tools.tool.Tool`.

    Args:
        hosts: their names; of none other is anything fetched, wherever one sends it.
    """

    definition = Definition(
        "web_fetch",
        "Fetches a web page and gives its text.",
        {
            "type": "object",
            "properties": {"url": {"type": "string", "description": "An address that begins with https://."}},
            "required": ["url"],
            "additionalProperties": False,
        },
    )

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self.origin = ", ".join(sorted(self._hosts))

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        url = self._checked(arguments["url"])
        opener = urllib.request.build_opener(_Redirects(self._checked))
        request = urllib.request.Request(url, headers={"User-Agent": "qwenchat", "Accept": "text/*"})  # noqa: S310
        try:
            with opener.open(request, timeout=_WEB_SECONDS) as page:
                kind = page.headers.get_content_type()
                data = page.read(_LARGEST_PAGE + 1)
                charset = page.headers.get_content_charset() or "utf-8"
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ToolError(f"{url}: {error}") from None
        if not kind.startswith("text/") and kind not in ("application/json", "application/xml"):
            raise ToolError(f"{url} is {kind}, no text.")
        cut = "\n… the rest of the page is left out" if len(data) > _LARGEST_PAGE else ""
        try:
            text = data[:_LARGEST_PAGE].decode(charset, "replace")
        except LookupError:
            text = data[:_LARGEST_PAGE].decode("utf-8", "replace")
        return (_text_of(text) if kind == "text/html" else text) + cut

    def preview(self, arguments: Mapping[str, Any]) -> str:
        self._checked(arguments["url"])
        return ""

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return rule_of(self.definition.name, arguments, ("url",))

    def _checked(self, url: str) -> str:
        """The address, if it is of one of the hosts.

        Raises:
            ToolError: it is not.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            host = (parts.hostname or "").lower()
        except ValueError:
            raise ToolError(f"{url!r} is no address.") from None
        if parts.scheme not in ("https", "http") or host not in self._hosts:
            raise ToolError(f"Only pages of {self.origin} can be fetched, over http or https.")
        return url


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the first address could have been."""

    def __init__(self, check: Any) -> None:
        self._check = check

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            self._check(newurl)
        except ToolError as error:
            raise urllib.error.URLError(f"it leads elsewhere: {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Reader(html.parser.HTMLParser):
    """The text of a page, a line a block."""

    _SILENT = frozenset(("script", "style", "noscript", "template", "svg"))
    _INLINE = frozenset(("a", "b", "i", "em", "strong", "span", "code", "small", "sub", "sup", "u"))

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in self._SILENT
        if tag not in self._INLINE:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(self._silent - (tag in self._SILENT), 0)
        if tag not in self._INLINE:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(data)

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line)


def _text_of(page: str) -> str:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.text()


class Python(PlainTool):
    """Runs Python in the sandbox; see :class:`~qwenchat.tools.tool.Tool`.

    Args:
        run: runs code and gives the observation.
        unconfined: does so where nothing confines it, after a yes to each run; None: it is not run there.
    """

    def __init__(self, run: Run, unconfined: Run | None = None) -> None:
        from qwenchat.tools import interpreter

        parameters: Any = interpreter.PARAMETERS
        self.definition = Definition(
            interpreter.NAME, interpreter.DESCRIPTION, parameters, "code", interpreter.NAME_FOR_HUMAN
        )
        self.origin = "python"
        self._run, self._unconfined = run, unconfined

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        try:
            return self._run(arguments["code"], cancel)
        except QwenchatError as error:
            raise ToolError(str(error)) from None

    def risk(self) -> Risk | None:
        from qwenchat.sandbox import start

        if self._unconfined is None or not (reason := start.lacking()):
            return None
        return Risk(reason, Python(self._unconfined))

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return self.definition.name
