"""``/v1/completions``: OpenAI's legacy protocol, which goes on with a text, and can say how likely it was."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from qwenchat.chat.messages import (
    Event,
    GenerationOptions,
    ReplyEnd,
    TextDelta,
    Timings,
    TokenChosen,
    Usage,
)
from qwenchat.server import sse
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.jobs import Echo, Job, Piece, new_id, now
from qwenchat.server.likelihoods import MOST_TOP, Legacy, Waiting
from qwenchat.server.openai_chat import usage_of
from qwenchat.server.options import IGNORED, read_options
from qwenchat.server.refusals import Refused, openai_error
from qwenchat.server.service import Served, Service

_TOKENS = 16  # where a request has no limit, as OpenAI has it
_MOST_PROMPTS = 128

Prompt = str | list[int]


def read(fields: Fields, service: Service) -> Job:
    """What a request asks for.

    Raises:
        Refused: it cannot be done.
    """
    name = service.check_name(fields.text("model", ""))
    prompts = _prompts(fields.raw("prompt"))
    limit = fields.whole("max_tokens")
    options = read_options(fields, service, limits=())
    top = fields.whole("logprobs", 0, MOST_TOP)
    echo, stream = fields.flag("echo"), fields.flag("stream")
    usage = fields.inner("stream_options")
    if fields.whole("best_of") not in (None, 1):
        fields.refuse("best_of")
    fields.refuse("suffix")
    include_usage = usage is not None and usage.flag("include_usage")
    fields.done(*IGNORED, "add_special_tokens")
    service.check_length(sum(len(prompt) for prompt in prompts if isinstance(prompt, str)))
    if limit == 0 and not echo:
        raise Refused(400, "max_tokens is 0, expected 1 or more where nothing is echoed", param="max_tokens")
    options = replace(options, likelihoods=top, max_new_tokens=_TOKENS if limit is None else limit or None)

    def run(cancel: threading.Event) -> Generator[Piece, None, None]:
        for prompt in prompts:
            ids = service.model.text_ids(prompt) if isinstance(prompt, str) else prompt
            if echo:
                yield _echo(service.model, prompt, ids, top)
            if limit == 0:
                yield ReplyEnd("length", Usage(len(ids), 0, 0), Timings(0.0, 0.0, 0.0))
            else:
                yield from _completed(service.model, ids, options, cancel)
            if cancel.is_set():
                return

    return Job(run, CompletionWriter(name, top, include_usage=include_usage), stream)


def _completed(
    model: Served, ids: Sequence[int], options: GenerationOptions, cancel: threading.Event
) -> Generator[Event, None, None]:
    yield from model.complete(ids, options, cancel)


def _echo(model: Served, prompt: Prompt, ids: Sequence[int], top: int | None) -> Echo:
    text = prompt if isinstance(prompt, str) else model.tokenizer.decode(ids)
    if top is None or not ids:
        return Echo(text)
    return Echo(text, model.tokenizer.decode_token(ids[0]), tuple(model.score(ids, top)))


def _prompts(value: Any) -> list[Prompt]:
    """The prompts: one, or several, each a text or token ids.

    Raises:
        Refused: they are not.
    """
    several = value if isinstance(value, list) and not _is_ids(value) else [value]
    if not several:
        raise Refused(400, "prompt is empty", param="prompt", code="invalid_value")
    if len(several) > _MOST_PROMPTS:
        raise Refused(
            400, f"prompt has {len(several)} prompts, expected {_MOST_PROMPTS} at most", param="prompt"
        )
    for prompt in several:
        if not isinstance(prompt, str) and not _is_ids(prompt):
            raise wrong("prompt", value, "text, token ids, or a list of either")
    return several


def _is_ids(value: Any) -> bool:
    return bool(value) and isinstance(value, list) and all(type(i) is int for i in value)


class CompletionWriter:
    """Writes texts as the legacy completions do.

    Args:
        model: the name that the client knows it by.
        top: how many of the likeliest tokens are told; None to tell nothing.
        include_usage: whether a stream ends with the usage.
    """

    media_type, ping = sse.MEDIA_TYPE, sse.PING

    def __init__(self, model: str, top: int | None, *, include_usage: bool = False) -> None:
        self._head = {"id": new_id("cmpl-"), "object": "text_completion", "created": now(), "model": model}
        self._top, self._include_usage = top, include_usage
        self._usage = Usage(0, 0, 0)
        self._choices: list[dict[str, Any]] = []
        self._begin()

    def _begin(self) -> None:
        self._text = ""
        self._waiting, self._legacy = Waiting(), Legacy(self._top or 0)
        self._told: dict[str, list[Any]] = {}

    def begin(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return []

    def push(self, event: Piece) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        if isinstance(event, Echo):
            if event.first:
                self._legacy.add_first(event.first)
            for token in event.scored:
                self._legacy.add(token)
            return [self._chunk(event.text)]
        if isinstance(event, TokenChosen):
            self._waiting.add(event)
        elif isinstance(event, TextDelta):
            self._take(self._waiting.take())
            return [self._chunk(event.text)]
        elif isinstance(event, ReplyEnd):
            self._take([] if event.stop else self._waiting.take())
            return [self._end(event)]
        return []

    def finish(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        if not self._include_usage:
            return [sse.DONE]
        return [sse.frame(self._head | {"choices": [], "usage": usage_of(self._usage)}), sse.DONE]

    def fail(self, refused: Refused) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return [sse.frame(openai_error(refused))]

    def whole(self) -> dict[str, Any]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return self._head | {"choices": self._choices, "usage": usage_of(self._usage)}

    def _take(self, tokens: Sequence[TokenChosen]) -> None:
        for token in tokens:
            self._legacy.add(token)

    def _chunk(self, text: str, reason: str | None = None) -> bytes:
        self._text += text
        lists = self._legacy.take()
        for name, values in lists.items():
            self._told.setdefault(name, []).extend(values)
        choice = {
            "index": len(self._choices),
            "text": text,
            "logprobs": lists if self._top is not None else None,
            "finish_reason": reason,
        }
        return sse.frame(self._head | {"choices": [choice]})

    def _end(self, end: ReplyEnd) -> bytes:
        reason = "length" if end.finish_reason == "length" else "stop"
        frame = self._chunk("", reason)
        self._choices.append(
            {
                "index": len(self._choices),
                "text": self._text,
                "logprobs": self._told if self._top is not None else None,
                "finish_reason": reason,
            }
        )
        before, now_used = self._usage, end.usage
        self._usage = Usage(
            before.prompt_tokens + now_used.prompt_tokens,
            before.reused_tokens + now_used.reused_tokens,
            before.completion_tokens + now_used.completion_tokens,
        )
        self._begin()
        return frame
