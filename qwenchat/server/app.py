"""The server's application: its paths, who is let in, and that nothing gets past it but an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwenchat.server import (
    anthropic,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    plain,
    tokens,
)
from qwenchat.server.exchange import Exchange, Read, refuse, unexpected
from qwenchat.server.fields import Fields
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

    def replies(path: str, read: Read) -> Route:
        return Route(path, Exchange(service, read), methods=["POST"])

    def answers(path: str, answer: Callable[[Fields, Service], Any]) -> Route:
        return Route(path, tokens.Answers(service, answer), methods=["POST"])

    routes = [
        replies("/v1/chat/completions", openai_chat.read),
        replies("/v1/completions", openai_completions.read),
        replies("/v1/responses", openai_responses.read),
        replies("/v1/messages", anthropic.read),
        replies("/api/chat", ollama.read),
        answers("/v1/messages/count_tokens", anthropic.count_tokens),
        answers("/tokenize", tokens.tokenize),
        answers("/detokenize", tokens.detokenize),
        Route("/tokenizer_info", tokens.TokenizerInfo(service), methods=["GET"]),
        answers("/api/show", ollama.show),
        Route("/api/version", ollama.Answer(ollama.version), methods=["GET"]),
        Route("/api/tags", ollama.Answer(lambda: ollama.tags(service)), methods=["GET"]),
        Route("/api/ps", ollama.Answer(lambda: ollama.tags(service)), methods=["GET"]),
        Route("/", plain.Health(), methods=["GET"]),
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
        except asyncio.CancelledError:
            if status == 499:
                await refuse(scope, sending, Refused(503, "the server is ending", code="shutting_down"))
        except Exception as error:
            if status != 499:  # it is too late for another answer: uvicorn closes the connection
                raise
            await refuse(scope, sending, unexpected(error))
        finally:
            if self._log is not None:
                self._log(f"{scope['method']} {scope['path']} {status} {monotonic() - started:.3f} s")
