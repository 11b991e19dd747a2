"""HTTP to one server: requests that can be given up at any moment, whatever the server does.

Each request runs in a thread of its own, and what comes of it is taken from a queue: so a name that does not
resolve, a server that says nothing and one that dribbles are all waited for in one place, which also hears a
cancel. The connection is shut from there. Redirects are not followed, nothing is decompressed, no more is
read than what has a place.
"""

from __future__ import annotations

import os
import queue
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import httpx2

from qwenchat.errors import Phrase, RemoteError, UsageError
from qwenchat.files.opening import check_file, reason_of
from qwenchat.settings.remotes import Remote
from qwenchat.version import __version__

CONNECT_SECONDS = 10.0
MOST_BODY = 8 * 2**20
"""Of an answer that is read whole."""
_TICK = 0.05

Failure = TypeVar("Failure", bound=BaseException)
_CHUNKS = 64  # of at most 64 KiB, that wait to be taken


class Cancelled(Exception):
    """The user did not want to wait."""


class Unreachable(RemoteError):
    """No answer began: trying again does no harm."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer.

    Attributes:
        status: HTTP's.
        headers: by their names in small letters.
    """

    status: int
    headers: Mapping[str, str]


class Connection:
    """A server, and how it is asked.

    Args:
        remote: where it is.
        key: proves who asks; empty for nothing. It goes to this server's own host alone.

    Raises:
        UsageError: the certificates to trust cannot be read.
    """

    def __init__(self, remote: Remote, key: str = "") -> None:
        self.remote = remote
        self._key = key
        # A connection of each request is its own: so to shut it ends that one alone.
        self._client = httpx2.Client(
            headers={
                "User-Agent": f"qwenchat/{__version__}",
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
            verify=_trusted(remote),
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),  # silence is measured here
            limits=httpx2.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=not remote.is_loopback,  # no proxy leads to this machine itself
        )

    def ask(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        cancel: threading.Event | None = None,
        silence: float | None = None,
    ) -> Exchange:
        """Begins a request; the exchange is to be closed.

        Args:
            url: whole.
            body: sent as JSON; None for nothing.
            cancel: ends the waiting.
            silence: seconds in which the server may say nothing; by default the remote's.
        """
        silence = silence or self.remote.silence
        return Exchange(self._client, self.remote, self._key, (method, url, body), cancel, silence)

    def fetch(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        cancel: threading.Event | None = None,
        silence: float | None = None,
    ) -> tuple[Head, bytes]:
        """An answer as a whole; raises as :meth:`Exchange.head`."""
        exchange = self.ask(method, url, body, cancel=cancel, silence=silence)
        try:
            return exchange.head(), exchange.rest()
        finally:
            exchange.close()

    def close(self) -> None:
        """Ends it."""
        self._client.close()


class Exchange:
    """One request and its answer; see :meth:`Connection.ask`."""

    def __init__(
        self,
        client: httpx2.Client,
        remote: Remote,
        key: str,
        request: tuple[str, str, object],
        cancel: threading.Event | None,
        silence: float,
    ) -> None:
        self._client, self._remote, self._key, self._request = client, remote, key, request
        self._cancel, self._silence = cancel, silence
        self._items: queue.Queue[Head | bytes | Exception | None] = queue.Queue(_CHUNKS)
        self._closed = threading.Event()
        self._connected = threading.Event()
        self._lock = threading.Lock()
        self._socket: Any = None
        # A daemon: a look-up of a name that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="remote", daemon=True)
        self._thread.start()

    def head(self) -> Head:
        """The beginning of the answer.

        Raises:
            RemoteError: there is none.
            Cancelled: the user did not want to wait.
        """
        item = self._take()
        if not isinstance(item, Head):  # nothing else comes first
            raise RemoteError("{host} gave no answer", host=self._remote.host)
        encoding = item.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise RemoteError(
                "{host} answers in {encoding}, which was not asked for",
                host=self._remote.host,
                encoding=encoding,
            )
        return item

    def chunks(self) -> Iterator[bytes]:
        """The rest of the answer as it comes; raises as :meth:`head`."""
        while (item := self._take()) is not None:
            assert isinstance(item, bytes)
            yield item

    def rest(self, most: int = MOST_BODY) -> bytes:
        """The rest of the answer, whole; a key that a server says back is left out.

        Raises:
            RemoteError: besides, it is longer.
        """
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > most:
                raise RemoteError(
                    "{host} answers with more than {limit} MiB", host=self._remote.host, limit=most >> 20
                )
        return bytes(data).replace(self._key.encode(), b"***") if self._key else bytes(data)

    def expect(self, seconds: float) -> None:
        """Waits no longer than so for what comes next, whatever the remote's silence."""
        self._silence = min(self._silence, seconds)

    def close(self) -> None:
        """Ends the request, if it is not over: the server sees that nobody listens."""
        self._closed.set()
        with self._lock:
            if self._socket is not None:
                _shut(self._socket)
        with suppress(queue.Empty):  # so that the thread need not wait for a place
            while True:
                self._items.get_nowait()

    # --- the thread that takes ---------------------------------------------------------------------

    def _take(self) -> Head | bytes | None:
        asked = monotonic()
        while True:
            if self._cancel is not None and self._cancel.is_set():
                raise Cancelled
            with suppress(queue.Empty):
                item = self._items.get(timeout=_TICK)
                if isinstance(item, Exception):
                    raise item
                return item
            waited = monotonic() - asked
            if not self._connected.is_set() and waited > min(CONNECT_SECONDS, self._silence):
                raise self._unreachable(Phrase("no connection after {seconds} s", seconds=f"{waited:.0f}"))
            if waited > self._silence:
                raise RemoteError(
                    "{host} has said nothing for {seconds} s", host=self._remote.host, seconds=f"{waited:.0f}"
                )

    # --- the thread that asks ----------------------------------------------------------------------

    def _run(self) -> None:
        method, url, body = self._request
        began = False
        try:
            with self._client.stream(
                method, url, **({} if body is None else {"json": body}), extensions={"trace": self._trace}
            ) as response:
                began = True
                headers = {name.lower(): value for name, value in response.headers.items()}
                self._put(Head(response.status_code, headers))
                for chunk in response.iter_raw():
                    self._put(chunk)
            self._put(None)
        except _Closed:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the other thread tells it
            with suppress(_Closed):
                self._put(self._lost(error) if began else self._no_answer(error))

    def _put(self, item: Head | bytes | Exception | None) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._items.put(item, timeout=_TICK)
                return
        raise _Closed

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keeps the socket, by httpcore's report of what it does."""
        found = getattr(info.get("return_value"), "get_extra_info", None)
        if not event.endswith(".complete") or found is None:
            return
        if "connect" in event:
            self._connected.set()
        with self._lock:
            self._socket = found("socket")
            if self._closed.is_set():
                _shut(self._socket)

    def _no_answer(self, error: Exception) -> RemoteError:
        if (distrust := _found(error, ssl.SSLCertVerificationError)) is not None:
            return RemoteError(
                "the certificate of {host} is not trusted: {reason}",
                "ca_file under [remotes.NAME], or SSL_CERT_FILE, names those to trust",
                host=self._remote.host,
                reason=distrust.verify_message,
            )
        if isinstance(error, httpx2.TimeoutException):
            return self._unreachable(
                Phrase("no connection after {seconds} s", seconds=f"{CONNECT_SECONDS:.0f}")
            )
        if isinstance(error, httpx2.ConnectError | httpx2.ReadError | httpx2.WriteError):
            return self._unreachable(_reason(error))
        if isinstance(error, httpx2.RemoteProtocolError) and "disconnected" in str(error).lower():
            return self._unreachable(Phrase("it closed the connection"))
        return RemoteError(
            "{host} does not answer in HTTP: {reason}", host=self._remote.host, reason=_reason(error)
        )

    def _unreachable(self, reason: str) -> Unreachable:
        return Unreachable(
            "{host} cannot be reached: {reason}",
            "is the server running there?",
            host=self._remote.host,
            reason=reason,
        )

    def _lost(self, error: Exception) -> RemoteError:
        return RemoteError(
            "the connection to {host} broke off: {reason}",
            in_chat="/continue goes on with the reply, /retry asks again",
            host=self._remote.host,
            reason=_reason(error),
        )


class _Closed(Exception):
    """Nobody listens any more."""


def _shut(connection: Any) -> None:
    import socket

    # Of the plain socket below TLS: a thread that waits in either hears of it.
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _reason(error: BaseException) -> str:
    """In the system's words, where it was the system."""
    cause = _found(error, OSError)
    return reason_of(cause) if cause is not None and cause.strerror else str(error) or type(error).__name__


def _found(error: BaseException | None, kind: type[Failure]) -> Failure | None:
    """The first of a kind among an error and what it came of."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _trusted(remote: Remote) -> ssl.SSLContext:
    """The certificates to trust: those of the remote, else of ``SSL_CERT_FILE``, else the system's."""
    if remote.url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's takes a while
    path = Path(remote.ca_file or os.environ.get("SSL_CERT_FILE", "")).expanduser()
    try:
        if not remote.ca_file:
            system: ssl.SSLContext = httpx2.create_ssl_context()
            return system
        check_file(path)
        return ssl.create_default_context(cafile=str(path))
    except (OSError, ValueError) as error:  # which an SSLError is
        raise UsageError(
            "the certificates {path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from None
