"""Who is let in: by the name of the host that was asked for, by the page that asks, by the key.

A page in a browser can send requests to a server on the same machine; so the host's name must be one of
this machine's (a page's own name may be made to point here: DNS rebinding), and a page's origin one that was
named.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwenchat.server.exchange import refuse, start
from qwenchat.server.refusals import Refused

OPEN = "/health"
"""The one path that needs no key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What lets a request in.

    Attributes:
        hosts: names of this machine's that may be asked for, besides its loopback addresses; None for any.
        key: that a request must know; empty for none.
        origins: pages that may ask, as browsers name them: ``https://example.org``.
    """

    hosts: tuple[str, ...] | None = ()
    key: str = ""
    origins: Sequence[str] = ()


class Guard:
    """Lets requests in or not, as an ASGI application before another.

    Args:
        app: what they are let in to.
        entry: what lets them in.
    """

    def __init__(self, app: ASGIApp, entry: Entry) -> None:
        self._app, self._entry = app, entry
        self._key = sha256(entry.key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin", "")
        if origin in self._entry.origins:
            send = _allowing(origin, send)
        try:
            self._check_place(headers, origin)
            if scope["method"] == "OPTIONS" and origin:
                await _preflight(headers, send)
                return
            if self._entry.key and scope["path"] != OPEN:
                self._check_key(headers)
        except Refused as refused:
            await refuse(scope, send, refused)
        else:
            await self._app(scope, receive, send)

    def _check_place(self, headers: dict[bytes, str], origin: str) -> None:
        host = headers.get(b"host", "")
        if self._entry.hosts is not None and not _is_here(_name_of(host), self._entry.hosts):
            raise Refused(403, "the Host header names another machine", code="host_not_allowed")
        if origin and origin not in self._entry.origins and origin.partition("://")[2] != host:
            raise Refused(
                403,
                "pages of this origin may not ask; --cors names those that may",
                code="origin_not_allowed",
            )

    def _check_key(self, headers: dict[bytes, str]) -> None:
        scheme, _, bearer = headers.get(b"authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get(b"x-api-key", "")
        # The hashes are of one length, whatever is given: what is compared tells nothing by its time.
        if not hmac.compare_digest(sha256(given.encode("latin-1")).digest(), self._key):
            raise Refused(
                401, "a valid key is needed", code="invalid_api_key", headers={"www-authenticate": "Bearer"}
            )


def _name_of(host: str) -> str:
    """The name or the address in a Host header, without the port."""
    name, bracket, _ = host.partition("]")
    name = name.removeprefix("[") if bracket else host.rpartition(":")[0] or host
    return name.rstrip(".").lower()


def _is_here(name: str, hosts: Sequence[str]) -> bool:
    if name == "localhost" or name in hosts:
        return True
    return is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allowing(origin: str, send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending


async def _preflight(headers: dict[bytes, str], send: Send) -> None:
    """Answers a browser that asks whether a page may ask."""
    allowed = {
        "access-control-allow-methods": "GET, POST, OPTIONS",
        "access-control-allow-headers": headers.get(b"access-control-request-headers", "content-type"),
        "access-control-max-age": "600",
    }
    if b"access-control-request-private-network" in headers:  # of a page on the web, for this network
        allowed["access-control-allow-private-network"] = "true"
    await send(start(204, allowed))
    await send({"type": "http.response.body", "body": b"", "more_body": False})
