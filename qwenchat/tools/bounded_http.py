"""An HTTP client for strangers: what it is sent has lines, and none without an end.

Events and JSON both are read a line at a time, into memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx2

_PATIENCE, _STREAM_PATIENCE = 30.0, 300.0  # seconds; a stream of events may be silent for longer


def client(headers: Mapping[str, str], longest: int) -> httpx2.AsyncClient:
    """A client; to be entered.

    Args:
        headers: of every request.
        longest: bytes that a line of a response may have.
    """
    timeout = httpx2.Timeout(_PATIENCE, read=_STREAM_PATIENCE)
    return httpx2.AsyncClient(headers=dict(headers), timeout=timeout, transport=_Bounded(longest))


class _Bounded(httpx2.AsyncHTTPTransport):  # type: ignore[misc]  # the package is not typed
    def __init__(self, longest: int) -> None:
        super().__init__()
        self._longest = longest

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"  # a few bytes may be unpacked to any number
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Lines(response.stream, self._longest)
        return response


class _Lines(httpx2.AsyncByteStream):  # type: ignore[misc]
    def __init__(self, stream: httpx2.AsyncByteStream, longest: int) -> None:
        self._stream, self._longest = stream, longest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        line = 0
        async for data in self._stream:
            end = data.rfind(b"\n") + 1
            line = len(data) - end if end else line + len(data)
            if line > self._longest:
                raise httpx2.ReadError(f"a line of more than {self._longest >> 20} MiB")
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
