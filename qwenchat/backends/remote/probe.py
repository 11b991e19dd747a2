"""What a server is and can: asked of it, never assumed.

Each of the servers that are known tells who it is in ``/v1/models``; its context and its tokenizer stand at
paths of its own. Whatever does not answer is done without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from qwenchat.backends.remote.answer import count_of, json_object, reason_of
from qwenchat.backends.remote.connection import Connection, Head
from qwenchat.errors import (
    ContextLengthError,
    ModelNotFoundError,
    Names,
    Phrase,
    QwenchatError,
    RemoteError,
    shorten,
)
from qwenchat.settings.remotes import Remote

PROBE_SECONDS = 5.0
"""The longest that a server is waited for with a question that can be done without."""
OLLAMA_CONTEXT = 4096
"""ollama's own where nobody has set another: longer prompts it cuts without a word."""

_KINDS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama-server",
    "me": "llama-cpp-python",
    "library": "ollama",
    "qwenchat": "qwenchat",
}
"""Servers by what they call the owner of a model."""
_TITLES = {"vllm": "vLLM", "sglang": "SGLang", "qwenchat": "qwenchat serve"}
_GO_ON = ("vllm", "sglang", "llama-server", "ollama", "qwenchat")
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "llama-server": {"repetition_penalty": "repeat_penalty"},
    "llama-cpp-python": {"repetition_penalty": "repeat_penalty"},
    "ollama": {"top_k": "", "min_p": "", "repetition_penalty": ""},  # which it would leave out in silence
}

Ask = Callable[[str, str, object], dict[str, Any] | None]
"""From method, path and body to the object that a server answers with; None if it has none."""


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of a server.

    Attributes:
        kind: which of the known ones it is; empty for another.
        title: its name for people.
        model: the model's name there.
        context: tokens of prompt and reply; None if it does not say.
        continues: whether it goes on with a reply that broke off.
        fields: options that it calls otherwise; empty names are of those that it has not.
    """

    kind: str
    title: str
    model: str
    context: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def continues(self) -> bool:
        return self.kind in _GO_ON

    @property
    def counts_all_as_minus_one(self) -> bool:
        """Whether a top_k of all is -1 to it."""
        return self.kind in ("vllm", "sglang")


def probe(connection: Connection, cancel: threading.Event | None = None) -> Server:
    """Asks a server what it is.

    Raises:
        RemoteError: it cannot be reached, refuses, or speaks another protocol.
        ModelNotFoundError: it has no such model, or several where none is named.
    """
    remote = connection.remote
    head, data = connection.fetch("GET", f"{remote.url}/models", cancel=cancel, silence=4 * PROBE_SECONDS)
    if head.status in (404, 405, 501) and remote.model:  # not every gateway has it
        return Server("", remote.host, remote.model)
    if head.status != 200:
        raise refusal(remote, head, data)
    check_kind(remote, head, data)
    told = json_object(data).get("data")
    models = [model for model in told if isinstance(model, Mapping)] if isinstance(told, list) else []
    model = _chosen(remote, models)
    kind = _KINDS.get(str(model.get("owned_by", "")).lower(), "")
    name = str(model.get("id") or remote.model)
    ask = asker(connection, cancel)
    if not kind and isinstance(ask("GET", f"{root(remote)}/api/version", None), dict):
        kind = "ollama"  # of a model of somebody's
    server = Server(kind, _TITLES.get(kind, kind or remote.host), name, fields=_FIELDS.get(kind, {}))
    return replace(server, context=_context(server, model, root(remote), ask))


def asker(
    connection: Connection, cancel: threading.Event | None = None, *, seconds: float = PROBE_SECONDS
) -> Ask:
    """A function that asks what can be done without, and waits no longer than so many seconds."""

    def ask(method: str, url: str, body: object) -> dict[str, Any] | None:
        try:
            head, data = connection.fetch(method, url, body, cancel=cancel, silence=seconds)
            return json_object(data) if head.status == 200 else None
        except QwenchatError:
            return None

    return ask


def root(remote: Remote) -> str:
    """Where a server has what is not OpenAI's."""
    return remote.url.removesuffix("/v1")


def check_kind(remote: Remote, head: Head, data: bytes) -> None:
    """Raises RemoteError where an answer is a page for people."""
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") or data.lstrip()[:1] == b"<":
        raise RemoteError(
            "{host} answers with a web page", "does the URL end as the protocol's, in /v1?", host=remote.host
        )


def refusal(remote: Remote, head: Head, data: bytes) -> QwenchatError:
    """The error for an answer that is none, in the server's words."""
    status = f"HTTP {head.status}"
    if 300 <= head.status < 400:
        place = urlsplit(head.headers.get("location", ""))
        return RemoteError(
            "{host} sends elsewhere: {place}; nothing was sent there",
            "give the URL of that place, if it is meant",
            host=remote.host,
            place=shorten(
                f"{place.scheme}://{place.netloc}{place.path}" if place.netloc else place.path, 200
            ),
        )
    if head.status in (401, 403):
        return RemoteError(
            "{host} wants another key ({status})",
            "key_file or key_env under [remotes.NAME] says where it is",
            host=remote.host,
            status=status,
        )
    try:
        said: object = json_object(data)
    except RemoteError:
        check = data.lstrip()[:1] == b"<"
        said = Phrase("a web page") if check else data[:2000].decode("utf-8", "replace")
    reason = reason_of(said)
    if head.status in (400, 413, 422) and _is_too_long(said):
        return ContextLengthError(
            "{host}: the messages do not fit: {reason}",
            "shorten them",
            host=remote.host,
            reason=reason,
        )
    return RemoteError("{host} refuses ({status}): {reason}", host=remote.host, status=status, reason=reason)


def _is_too_long(said: object) -> bool:
    text = str(said).lower()
    return any(
        word in text
        for word in (
            "context_length_exceeded",
            "exceed_context_size",
            "maximum context length",
            "maximum model length",
            "context length",
            "context window",
            "context size",
        )
    )


def _chosen(remote: Remote, models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The model that is meant, of those of a server."""
    found = {str(model["id"]): model for model in models if isinstance(model.get("id"), str)}
    wanted = remote.model
    if wanted in found or f"{wanted}:latest" in found:
        return found.get(wanted) or found[f"{wanted}:latest"]
    names = Names(shorten(name, 80) for name in [*found][:20])
    if wanted and found:
        raise ModelNotFoundError(
            "{host} has no model {model}", "it has {names}", host=remote.host, model=wanted, names=names
        )
    if wanted:
        return {"id": wanted}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ModelNotFoundError("{host} has no model", host=remote.host)
    raise ModelNotFoundError(
        "{host} has several models",
        "name one behind the URL, as in {url}#MODEL: {names}",
        host=remote.host,
        url=remote.url,
        names=names,
    )


def _context(server: Server, model: Mapping[str, Any], base: str, ask: Ask) -> int | None:
    """Tokens of the context, from where this server tells it."""
    told = count_of(model, "max_model_len")
    if told is None and server.kind in ("llama-server", ""):
        settings = (ask("GET", f"{base}/props", None) or {}).get("default_generation_settings")
        told = count_of(settings, "n_ctx") if isinstance(settings, Mapping) else None
    if told is None and server.kind == "ollama":
        told = _ollama_context(server.model, base, ask)
    return told if told and told >= 16 else None


def _ollama_context(model: str, base: str, ask: Ask) -> int:
    """What ollama runs a model with, or will: not what the model was trained on, which it tells as well."""
    running = (ask("GET", f"{base}/api/ps", None) or {}).get("models")
    for each in running if isinstance(running, list) else ():
        is_it = isinstance(each, Mapping) and model in (each.get("name"), each.get("model"))
        if is_it and (told := count_of(each, "context_length")) is not None:
            return told
    shown = ask("POST", f"{base}/api/show", {"model": model}) or {}
    for line in str(shown.get("parameters") or "").splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "num_ctx" and value.strip().isdecimal():
            return int(value)
    given = shown.get("model_info")
    info: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    lengths = [
        length
        for name in info
        if str(name).endswith(".context_length") and (length := count_of(info, name)) is not None
    ]
    return min([OLLAMA_CONTEXT, *lengths])
