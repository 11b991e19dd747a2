"""What is asked of a server besides replies: its models, its health, its metrics, tokens of a text."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from qwenchat.server.exchange import send_json, start
from qwenchat.server.jobs import now
from qwenchat.server.service import Service
from qwenchat.version import __version__


class Models:
    """``/v1/models``, and one of them by its name."""

    def __init__(self, service: Service) -> None:
        self._service, self._created = service, now()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lists the names of the model, or tells of one."""
        wanted = scope.get("path_params", {}).get("name")
        if wanted is not None:
            await send_json(send, 200, self._entry(self._service.check_name(wanted)))
        else:
            entries = [self._entry(name) for name in self._service.names]
            await send_json(send, 200, {"object": "list", "data": entries})

    def _entry(self, name: str) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "qwenchat",
            "max_model_len": self._service.model.context,
        }


class Health:
    """``/health``: that it serves. It alone can be asked without a key."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Says so."""
        await send_json(send, 200, {"status": "ok", "version": __version__})


class MetricsPage:
    """``/metrics``: what was counted, for Prometheus."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tells it."""
        service = self._service
        state = getattr(getattr(service.model, "engine", None), "state", None)
        text = service.metrics.text(
            running=service.gate.running,
            waiting=service.gate.waiting,
            model=service.name,
            caches=getattr(state, "caches", 0),
            cached=getattr(state, "cached_tokens", 0),
        ).encode()
        head = {"content-type": "text/plain; version=0.0.4; charset=utf-8", "content-length": str(len(text))}
        await send(start(200, head))
        await send({"type": "http.response.body", "body": text, "more_body": False})
