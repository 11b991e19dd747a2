"""Limits of a hub's answers: bytes, values of JSON, and time.

Owns the limits that keep a server, or whoever stands between, from filling the memory or the disk, or from
being waited for without end: the clients of the hubs limit only how long nothing comes at all, and a byte
every two seconds is something.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from qwenchat.files import json_values

if TYPE_CHECKING:
    import requests

    from qwenchat.errors import DownloadError

T = TypeVar("T")

LISTING_SECONDS = 60.0
"""For all that a listing takes: names that are looked up, redirections, the answer to its end."""
HEADER_SECONDS = 30.0
"""Until the head of an answer is there."""
_LONGEST = 32 * 2**20  # bytes of an answer that is no file
_MOST_VALUES = 2**20
_file: contextvars.ContextVar[int] = contextvars.ContextVar("_file", default=0)


def size_of(told: Any) -> int:
    """A file's size as a hub tells it.

    Raises:
        TypeError, ValueError, OverflowError: no file can have it.
    """
    size = int(told)
    if not 0 <= size < 2**63:
        raise ValueError(size)
    return size


@contextmanager
def of_file(size: int) -> Iterator[None]:
    """While this lasts, an answer may be a file of that size."""
    token = _file.set(max(size, _LONGEST))
    try:
        yield
    finally:
        _file.reset(token)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread that is abandoned when the time is over.

    Raises:
        requests.ReadTimeout: it is.
    """
    import requests

    outcome: list[tuple[T | None, BaseException | None]] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append((context.run(work), None))
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise requests.ReadTimeout("timed out")
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only where work gives it


def guard(session: requests.Session, strange: Callable[[], DownloadError]) -> None:
    """Limits every answer that a session gets.

    Args:
        strange: makes the error for an answer beyond the limits.
    """
    for adapter in session.adapters.values():
        adapter.send = partial(_send_in_time, adapter.send)  # type: ignore[method-assign]
    session.hooks["response"].append(partial(_limit, strange))


def _send_in_time(send: Callable[..., requests.Response], *given: Any, **options: Any) -> requests.Response:
    return within(HEADER_SECONDS, partial(send, *given, **options))


def _limit(strange: Callable[[], DownloadError], response: requests.Response, **_: object) -> None:
    """Stops a response that does not end where it should; what it announces is not believed."""
    raw = response.raw
    size = values = 0

    def counted(piece: bytes) -> bytes:
        nonlocal size, values
        size += len(piece)
        file = _file.get()
        values += 0 if file else json_values.count(piece)
        if size > (file or _LONGEST) or values > _MOST_VALUES:
            response.close()
            raise strange()
        return piece

    # What the clients read by, and what the rest of urllib3's ways of reading stand on; 1.26 has no read1.
    for name in ("read", "read1"):
        if read := getattr(raw, name, None):
            setattr(raw, name, partial(_then, counted, read))
    read_chunked = raw.read_chunked
    raw.read_chunked = lambda *given, **options: map(counted, read_chunked(*given, **options))


def _then(check: Callable[[bytes], bytes], read: Callable[..., bytes], *given: Any, **options: Any) -> bytes:
    return check(read(*given, **options))
