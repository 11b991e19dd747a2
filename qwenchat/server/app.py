"""The server's application: its paths, who is let in, and that nothing gets past it but an answer."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwenchat.server import openai_chat, plain
from qwenchat.server.exchange import Exchange, refuse, unexpected
from qwenchat.server.guard import Entry, Guard
from qwenchat.server.refusals import Refused
from qwenchat.server.service import Service

Log = Callable[[str], None]


def build(service: Service, entry: Entry, log: Log | None = None) -> ASGIApp:
    """The whole application.

    Args:
        service: what serves.
        entry: who is let in.
        log: told of each request in a line; None for nothing.
    """
    routes = [
        Route("/v1/chat/completions", Exchange(service, openai_chat.read), methods=["POST"]),
        Route("/v1/models", plain.Models(service), methods=["GET"]),
        Route("/v1/models/{name:path}", plain.Models(service), methods=["GET"]),
        Route("/health", plain.Health(), methods=["GET"]),
        Route("/metrics", plain.MetricsPage(service), methods=["GET"]),
    ]
    return _Outermost(Guard(_Paths(routes), entry), log)


class _Paths:
    """Finds the endpoint of a path; no other answer than in the form of its protocol."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        matches = [route.matches(scope)[0] for route in self._routes]
        if Match.FULL in matches:
            return await self._router(scope, receive, send)
        if Match.PARTIAL in matches:
            allowed = self._routes[matches.index(Match.PARTIAL)].methods or ()
            known = ", ".join(sorted(allowed))
            raise Refused(
                405, f"this path takes {known}", code="method_not_allowed", headers={"allow": known}
            )
        raise Refused(404, "there is nothing at this path", code="not_found")


class _Outermost:
    """Turns every failure into an answer, and writes the log."""

    def __init__(self, app: ASGIApp, log: Log | None) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, started = 499, monotonic()  # that of who went before the answer

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Refused as refused:
            await refuse(scope, sending, refused)
        except Exception as error:
            if status != 499:  # it is too late for another answer: uvicorn closes the connection
                raise
            await refuse(scope, sending, unexpected(error))
        finally:
            if self._log is not None:
                self._log(f"{scope['method']} {scope['path']} {status} {monotonic() - started:.3f} s")
