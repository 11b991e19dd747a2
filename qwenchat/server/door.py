"""The local door: the served model for this user's own programs, through a Unix socket.

It speaks a protocol of its own, lines of JSON that lose nothing of a chat; ``backends/door`` asks through it.
Only this user comes in, and only who has the same version and wants the very model. A thread for each
connection; who closes one, or says so, cancels what runs for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any

from qwenchat.backends.door import places
from qwenchat.backends.door.wire import Broken, Lines, packed, packed_error, unpacked
from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import GenerationOptions
from qwenchat.version import __version__

_MOST = 256
"""Connections at a time."""
_PATIENCE = 10.0
"""Seconds in which a connection must say what it wants."""
_PLAIN = (
    *("name", "description", "context", "system", "call_form", "thinks"),
    *("constrains", "estimates", "continues"),
)


class Door:
    """A door to a model, which several may ask at a time; a context that opens and closes it.

    Args:
        model: replies.
        wanted: what must be wanted by who comes in; see ``backends/door/wanted.py``.
        is_current: whether what is wanted is still this model: its files may have changed.
        address: where it is served otherwise, for people.
        on_stop: called when somebody asks for the server's end.
        grace: seconds that replies may still take to end when the door closes.

    Attributes:
        path: of the socket, while it is open.
    """

    def __init__(
        self,
        model: Backend,
        wanted: Mapping[str, Any],
        *,
        is_current: Callable[[], bool] = lambda: True,
        address: str = "",
        on_stop: Callable[[], None] = lambda: None,
        grace: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._model, self._wanted, self._is_current = model, dict(wanted), is_current
        self._address, self._on_stop, self._grace = address, on_stop, grace
        self._started = self._used = monotonic()
        self._lock = threading.Lock()
        self._inside: set[socket.socket] = set()
        self._replies = 0
        self._quiet = threading.Condition()  # notified when there are no replies any more
        self._closed = False

    def __enter__(self) -> Door:
        """Opens it.

        Raises:
            QwenchatError, OSError: it cannot be opened.
        """
        self._listening, self.path = places.listening(str(os.getpid()))
        threading.Thread(target=self._serve, name="door", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes it; what is being replied may come to its end, up to a limit."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        try:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._replies, self._grace())
        finally:
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
        with self._lock:
            inside = list(self._inside)
        for connection in inside:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def unused_seconds(self) -> float:
        """Since when nobody has been inside; 0 while somebody is."""
        return 0.0 if self._inside else monotonic() - self._used

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                if self._closed:
                    return
                threading.Event().wait(0.1)  # no more descriptors, for now
                continue
            with self._lock:
                full = len(self._inside) >= _MOST
                if not full:
                    self._inside.add(connection)
            if full or not places.is_own_peer(connection):
                self._leave(connection)
                continue
            threading.Thread(target=self._visit, args=(connection,), name="visitor", daemon=True).start()

    def _visit(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_PATIENCE)
            lines = Lines(connection)
            asked = lines.receive()
            if asked is not None:
                connection.settimeout(None)
                self._answer(asked, lines)
        except (OSError, Broken):
            pass  # who asks so gets no answer
        finally:
            self._leave(connection)

    def _leave(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # so that who listens to it wakes up
        connection.close()
        with self._lock:
            self._inside.discard(connection)
            self._used = monotonic()

    def _answer(self, asked: Mapping[str, Any], lines: Lines) -> None:
        do = asked.get("do")
        if do == "about":
            lines.send(self._about())
        elif do == "stop":
            lines.send(self._about())
            self._on_stop()
        elif asked.get("version") != __version__ or asked.get("wanted") != self._wanted:
            lines.send({"refused": "another model or version"})
        elif do == "meet":
            if self._is_current():
                lines.send({"model": {name: getattr(self._model, name) for name in _PLAIN}})
                lines.receive()  # it stays until it leaves
            else:
                lines.send({"refused": "the model's files have changed"})
        else:
            self._work(do, asked, lines)

    def _work(self, do: object, asked: Mapping[str, Any], lines: Lines) -> None:
        """Asks the model what somebody wants of it, and tells it or the error."""
        try:
            if do == "stream":
                self._stream(asked, lines)
            elif do == "count":
                lines.send({"count": self._model.count_tokens(unpacked(asked["messages"]))})
            elif do == "effective":
                lines.send({"options": packed(self._model.effective(unpacked(asked["options"])))})
        except (OSError, Broken):
            raise
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            lines.send({"error": packed_error(error)})

    def _stream(self, asked: Mapping[str, Any], lines: Lines) -> None:
        messages, options = unpacked(asked["messages"]), unpacked(asked["options"])
        if not isinstance(options, GenerationOptions):
            raise Broken("no options")
        cancel = threading.Event()

        def listen() -> None:
            """Cancels when somebody says so or goes."""
            with contextlib.suppress(OSError, Broken, ValueError):
                lines.receive()
            cancel.set()

        threading.Thread(target=listen, name="listener", daemon=True).start()
        with self._replying(), contextlib.closing(self._model.stream(messages, options, cancel)) as events:
            for event in events:
                lines.send({"event": packed(event)})

    @contextlib.contextmanager
    def _replying(self) -> Iterator[None]:
        """Counts a reply that is being made."""
        with self._quiet:
            self._replies += 1
        try:
            yield
        finally:
            with self._quiet:
                self._replies -= 1
                self._quiet.notify_all()

    def _about(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "model": self._model.name,
            "description": self._model.description,
            "address": self._address,
            "seconds": monotonic() - self._started,
        }
