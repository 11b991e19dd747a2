"""What a request is answered with that cannot be done: a status code, and an error in its protocol's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError, QwenchatError, UsageError


class Refused(Exception):
    """A request that is not done.

    Attributes:
        status: of HTTP.
        message: what is wrong, for whoever wrote the client.
        param: the field that is wrong; empty if it is none.
        code: a word that programs look at; empty for none.
        headers: that go with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str = "",
        code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})


def unsupported(name: str, why: str = "is not supported here") -> Refused:
    """The refusal of a field that would change the reply, and does not here."""
    return Refused(400, f"{name} {why}", param=name, code="unsupported_parameter")


def of_error(error: QwenchatError) -> Refused:
    """The refusal that an error of the model's is told as."""
    if isinstance(error, ContextLengthError):
        return Refused(400, str(error.message), code="context_length_exceeded")
    if isinstance(error, UsageError):
        return Refused(400, str(error.message))
    if isinstance(error, BusyError):
        return Refused(503, str(error.message), code="overloaded", headers={"retry-after": "2"})
    if isinstance(error, InsufficientMemoryError):
        return Refused(503, str(error.message), code="out_of_memory", headers={"retry-after": "5"})
    return Refused(500, str(error.message))


_OPENAI_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_ANTHROPIC_KINDS = _OPENAI_KINDS | {413: "request_too_large", 503: "overloaded_error"}


def _kind(status: int, kinds: Mapping[int, str], other: str) -> str:
    return kinds.get(status, other if status >= 500 else "invalid_request_error")


def openai_error(refused: Refused) -> dict[str, Any]:
    """In OpenAI's form."""
    return {
        "error": {
            "message": refused.message,
            "type": _kind(refused.status, _OPENAI_KINDS, "server_error"),
            "param": refused.param or None,
            "code": refused.code or None,
        }
    }


def anthropic_error(refused: Refused) -> dict[str, Any]:
    """In Anthropic's form."""
    kind = _kind(refused.status, _ANTHROPIC_KINDS, "api_error")
    return {"type": "error", "error": {"type": kind, "message": refused.message}}


def ollama_error(refused: Refused) -> dict[str, Any]:
    """In ollama's form."""
    return {"error": refused.message}


def error_of(path: str, refused: Refused) -> dict[str, Any]:
    """In the form of the protocol that a path belongs to."""
    if path.startswith("/api/"):
        return ollama_error(refused)
    return anthropic_error(refused) if path.startswith("/v1/messages") else openai_error(refused)
