"""A model on a server, as a backend: the same events, stop rules, cancel and statistics as of a local one."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from itertools import chain
from time import perf_counter, time
from typing import Any

from qwenchat.backends.remote.answer import Answer, count_of, json_object, reason_of
from qwenchat.backends.remote.asking import body_of, shaped
from qwenchat.backends.remote.connection import Cancelled, Connection, Exchange, Head, Unreachable
from qwenchat.backends.remote.counting import Counter
from qwenchat.backends.remote.events import EventReader
from qwenchat.backends.remote.probe import Server, check_kind, refusal
from qwenchat.chat.backend import CallForm, Thinks
from qwenchat.chat.messages import Event, FinishReason, GenerationOptions, Message, ReplyEnd, Timings, Usage
from qwenchat.chat.parts import Role
from qwenchat.chat.window import too_long
from qwenchat.errors import RemoteError, UsageError
from qwenchat.settings.remotes import Remote

RETRIES = 2
"""Requests that may follow one that no answer began to."""
WAITS = (0.5, 1.5)
"""Seconds before each, where the server does not say."""
LONGEST_WAIT = 30.0
"""The longest that a server may have us wait."""
GRACE = 5.0
"""Seconds for the usage, once a reply has ended."""
_DOUBT = 1.25
"""How much too large an estimate may be."""


class RemoteModel:
    """A model on a server.

    Args:
        connection: to the server; closed with the model.
        server: what is known of it.
        counter: counts tokens.
        context: tokens of prompt and reply.

    Attributes:
        name, description, context, system, call_form, thinks: as in :class:`~qwenchat.chat.backend.Backend`.
    """

    system = ""
    call_form: CallForm = "openai"
    thinks: Thinks = "switch"
    constrains = False
    concurrent = True
    """Whether several replies can be asked for at once."""

    def __init__(self, connection: Connection, server: Server, counter: Counter, context: int) -> None:
        self.name, self.context = connection.remote.name, context
        self.description = ", ".join(dict.fromkeys((server.model, server.title, connection.remote.host)))
        self._connection, self._server, self._counter = connection, server, counter
        self._left_out: set[str] = set()  # fields that this server does not know
        self._more: dict[str, Any] = {}

    @property
    def estimates(self) -> bool:
        """As of :class:`~qwenchat.chat.backend.Backend`."""
        return not self._counter.is_exact

    @property
    def continues(self) -> bool:
        """As of :class:`~qwenchat.chat.backend.Backend`."""
        return self._server.continues

    def without_end(self) -> bool:
        """Lets replies be as long as they may, for a benchmark. Returns whether the server can."""
        if self._server.kind in ("vllm", "sglang", "llama-server"):
            self._more = {"ignore_eos": True}
        return bool(self._more)

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """As :meth:`qwenchat.chat.backend.Backend.stream`.

        Raises:
            RemoteError: besides, the server cannot be reached, refuses, or the reply broke off.
            UsageError: it cannot do what is asked.
        """
        if messages and messages[-1].role is Role.ASSISTANT and not (messages[-1].text or messages[-1].calls):
            messages = messages[:-1]  # only thoughts, which no server goes on with
        reply = _Reply(self._server, self._counter, messages, options)
        body = {**body_of(self._server, messages, options), **self._more}
        self._check_length(reply.messages)
        try:
            exchange, head = self._answered(body, cancel)
            with closing(exchange):
                yield from reply.events(exchange, head, self._connection.remote)
        except Cancelled:
            yield from reply.rest()
            yield reply.end("cancelled")

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.chat.backend.Backend.count_tokens`."""
        return self._counter.count(shaped(messages))

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """As :meth:`qwenchat.chat.backend.Backend.effective`: a server does not say what it takes itself."""
        return options

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _check_length(self, messages: Sequence[Mapping[str, Any]]) -> None:
        tokens = self._counter.count(messages)
        if tokens >= self.context * (_DOUBT if self.estimates else 1):
            raise too_long(tokens, self.context)

    def _answered(self, body: dict[str, Any], cancel: threading.Event | None) -> tuple[Exchange, Head]:
        """The exchange of a request that the server begins to answer, to be closed, and its beginning."""
        url = f"{self._connection.remote.url}/chat/completions"
        tries = 0
        while True:
            sent = {name: value for name, value in body.items() if name not in self._left_out}
            if "max_tokens" in self._left_out and "max_tokens" in body:
                sent["max_completion_tokens"] = body["max_tokens"]
            exchange = self._connection.ask("POST", url, sent, cancel=cancel)
            try:
                head = exchange.head()
                if head.status == 200:
                    return exchange, head
                data = exchange.rest()
                wait = _asked_to_wait(head) if tries < RETRIES else None
                if wait is None and not self._does_without(sent, head, data):
                    raise self._refusal(sent, head, data)
            except Unreachable:
                exchange.close()
                if tries >= RETRIES:
                    raise
                wait = WAITS[tries]
            except BaseException:
                exchange.close()
                raise
            exchange.close()
            if wait is not None:
                tries += 1
                _wait(wait, cancel)

    def _does_without(self, sent: Mapping[str, Any], head: Head, data: bytes) -> bool:
        """Whether a server refused a field of ours that nobody asked for: from now on it gets none."""
        named = _names(data) if head.status in (400, 422) else set()
        signs = {"stream_options": "stream_options", "max_tokens": "max_completion_tokens"}
        for name, sign in (*signs.items(), *((name, name) for name in self._more)):
            if name in sent and sign in named:
                self._left_out.add(name)
                return True
        return False

    def _refusal(self, sent: Mapping[str, Any], head: Head, data: bytes) -> Exception:
        error = refusal(self._connection.remote, head, data)
        asked = set(sent) - {"model", "messages", "stream", "stream_options"}
        named = sorted(asked & _names(data)) if head.status in (400, 422) else []
        if not named or type(error) is not RemoteError:
            return error
        return UsageError(
            "{server} does not take {name}: {reason}",
            server=self._server.title,
            name=named[0],
            reason=reason_of(_loaded(data)),
        )


class _Reply:
    """One reply as it comes.

    Args:
        server: whose it is.
        counter: counts where the server does not.
        messages, options: what was asked.
    """

    def __init__(
        self, server: Server, counter: Counter, messages: Sequence[Message], options: GenerationOptions
    ) -> None:
        taken = {call.id for message in messages for call in message.calls}
        goes_on = bool(messages) and messages[-1].role is Role.ASSISTANT
        self.messages = shaped(messages)
        self._counter, self._options = counter, options
        self._answer = Answer(options.stop, taken, goes_on=goes_on)
        self._said: list[str] = []
        self._started = perf_counter()
        self._first = self._last = 0.0

    def events(self, exchange: Exchange, head: Head, remote: Remote) -> Generator[Event, None, None]:
        """All events of an answer that began.

        Raises:
            RemoteError: it broke off, or is none; what came until then came as events.
            Cancelled: the user stopped it.
        """
        answer = self._answer
        try:
            for data in _chunks(exchange, head, remote):
                yield from self._timed(answer.take(data))
                if answer.stopped or (answer.finish is not None and answer.usage):
                    break
                if answer.finish is not None:
                    exchange.expect(GRACE)
            if answer.finish is None and not answer.pieces:
                raise RemoteError("{host} answers with nothing", host=remote.host)
        except RemoteError:
            if answer.finish is None:
                yield from self.rest()
                raise
        yield from self.rest(calls=not answer.stopped)
        yield self.end("stop" if answer.stopped else answer.finish or "stop")

    def rest(self, *, calls: bool = False) -> Generator[Event, None, None]:
        """The events that were held back; with the calls, of which half a one is none."""
        yield from self._timed(self._answer.finish_up())
        if calls:
            yield from self._timed(self._answer.calls())

    def end(self, reason: FinishReason) -> ReplyEnd:
        """The last event."""
        usage = self._answer.usage
        prompt, completion = count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")
        if prompt is not None:
            self._counter.learn(self.messages, prompt)
        details = usage.get("prompt_tokens_details")
        reused = count_of(details, "cached_tokens") if isinstance(details, Mapping) else None
        prompt_tokens = self._counter.count(self.messages) if prompt is None else prompt
        first = self._first or self._last
        return ReplyEnd(
            finish_reason=reason,
            usage=Usage(
                prompt_tokens,
                min(reused or 0, prompt_tokens),
                self._completion(reason) if completion is None else completion,
            ),
            timings=Timings(first, first, max(self._last - first, 0.0)),
            seed=self._options.seed,
            stop=self._answer.stopped,
            estimated=prompt is None or completion is None,
        )

    def _completion(self, reason: FinishReason) -> int:
        """Tokens of the reply where the server does not say: one a chunk, as servers send them."""
        limit = self._options.max_new_tokens
        if reason == "length" and limit is not None:
            return limit
        pieces = self._answer.pieces
        return pieces if pieces > 1 else self._counter.text("".join(self._said))

    def _timed(self, events: Iterable[Event]) -> Generator[Event, None, None]:
        for event in events:
            self._last = perf_counter() - self._started
            self._first = self._first or self._last
            self._said.append(event.text or getattr(event, "thought", ""))
            yield event


def _chunks(exchange: Exchange, head: Head, remote: Remote) -> Generator[bytes, None, None]:
    """What each event of an answer says, up to its end; one that is no stream is a single one.

    Raises:
        RemoteError: it is a page for people, an error, or broke off.
    """
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        data = exchange.rest()
        check_kind(remote, head, data)
        if not data.lstrip().startswith((b"data:", b":", b"event:")):
            yield data
            return
        pieces: Iterable[bytes] = (data,)
    else:
        pieces = exchange.chunks()
    reader = EventReader()
    for event in chain(chain.from_iterable(map(reader.push, pieces)), reader.finish()):
        if event.data.strip() == b"[DONE]":
            return
        if event.kind == "error":
            raise RemoteError("the server failed: {reason}", reason=reason_of(_loaded(event.data)))
        yield event.data
    raise RemoteError(
        "{host} ended the reply in the middle",
        in_chat="/continue goes on with the reply, /retry asks again",
        host=remote.host,
    )


def _loaded(data: bytes) -> object:
    """What an error holds: JSON, or text."""
    try:
        return json_object(data)
    except RemoteError:
        return data[:2000].decode("utf-8", "replace")


def _names(data: bytes) -> set[str]:
    """The words of an error that a field could be called."""
    return set(re.findall(r"[a-z][a-z0-9_]+", data[:10_000].decode("utf-8", "replace")))


def _asked_to_wait(head: Head) -> float | None:
    """Seconds after which a server wants to be asked again; None if it does not, or they are too many."""
    if head.status not in (429, 503):
        return None
    told, seconds = head.headers.get("retry-after", "").strip(), None
    with suppress(ValueError, TypeError, OverflowError):
        seconds = float(told) if told[:1].isdigit() else parsedate_to_datetime(told).timestamp() - time()
    return max(seconds, 0.0) if seconds is not None and seconds <= LONGEST_WAIT else None


def _wait(seconds: float, cancel: threading.Event | None) -> None:
    """Waits; raises Cancelled where the user does not want to."""
    if (cancel or threading.Event()).wait(seconds):
        raise Cancelled
