"""A small Hub on the loopback, for the real client: a listing with hashes, files with Range, misbehaviour.

It answers as https://huggingface.co does, as far as huggingface_hub 0.36 looks:
``/api/models/NAME/revision/REV``, and ``/NAME/resolve/COMMIT/FILE``, large files by way of a redirect. Under
``/api/v1`` it is a small ModelScope, as far as modelscope_hub 0.5 looks.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = (".safetensors", ".tiktoken", ".gguf")


@dataclass
class Repository:
    """What is published under a name, and how it is given out.

    Attributes:
        files: content by name.
        commit: its revision.
        gated: only with this token.
        listed: what the listing says of a file instead, by its name.
        sent: what is sent instead of a file, by its name.
        etags: what a file's ETag is instead, by its name.
        announced: what the headers say is a file's size instead, by its name.
        xet: whether large files are offered by way of Xet too.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: str | None = None
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)
    xet: bool = False


@dataclass
class HubServer:
    """The server.

    Attributes:
        repositories: by name.
        status: answers everything with this error.
        headers: that go with it, and with large files.
        drop_after: how many bytes of a file are sent before the connection is closed, asked for each transfer
            with the file's name; None for all.
        pause: seconds to wait before each piece of a file.
        ignores_range: sends a file from its begin, whatever part was asked for.
        endless: what path the answer to never ends, if any.
        drips: what path is answered a byte at a time, without end, if any; in its head, or behind it if
            ``drips_body``.
        files_at: the address of another server that gives out the large files.
        with_token: paths that were asked for with a token.
        requests: method and path of everything that was asked for.
        sent: bytes of files that were sent.
        closed: when the server is.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: Callable[[str], int | None] = lambda name: None
    pause: float = 0.0
    ignores_range: bool = False
    endless: str = ""
    drips: str = ""
    drips_body: bool = False
    files_at: str = ""
    with_token: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    closed: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    """Runs a server as long as the context lasts."""

    class Handler(_Handler):
        hub = server

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closed.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def git_name(content: bytes) -> str:
    """What git calls a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else small answers wait for 40 ms

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if "Authorization" in self.headers:
            self.hub.with_token.append(path)
        if self.hub.status is not None:
            return self._error(self.hub.status, **self.hub.headers)
        if self.hub.endless and self.hub.endless in path and self.command == "GET":
            return self._go_on_and_on()
        if self.hub.drips and self.hub.drips in path:
            return self._drip()
        for name, repository in self.hub.repositories.items():
            for begin, answer in (
                (f"/api/models/{name}", self._list),
                (f"/api/v1/models/{name}/repo", self._modelscope),
                (f"/{name}/resolve/", self._resolve),
                (f"/lfs/{name}/", self._lfs),
            ):
                if path.startswith(begin):
                    return answer(name, repository, path.removeprefix(begin))
                if path.lower().startswith(begin.lower()):  # as the Hub does where only capitals differ
                    return self._error(307, Location=begin + path[len(begin) :])
        return self._error(404, X_Error_Code="RepoNotFound") if path != "/" else self._body(b"", {})

    def _list(self, name: str, repository: Repository, rest: str) -> None:
        revision = rest.removeprefix("/revision/")
        if revision not in ("", "main", repository.commit):
            return self._error(404, X_Error_Code="RevisionNotFound")
        siblings = []
        for file, content in repository.files.items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_name(content)}
            if file.endswith(LARGE):
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(entry | repository.listed.get(file, {}))
        body = json.dumps({"id": name, "sha": repository.commit, "siblings": siblings}).encode()
        return self._body(body, {"Content-Type": "application/json"})

    def _modelscope(self, name: str, repository: Repository, rest: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if query.get("Revision", ["master"])[0] != "master":
            return self._error(404)
        if rest == "/files":
            entries = [
                {"Path": file, "Name": file, "Type": "blob", "Size": len(content), "Sha256": sha256(content)}
                | repository.listed.get(file, {})
                for file, content in repository.files.items()
            ]
            body = json.dumps({"Code": 200, "Success": True, "Data": {"Files": entries}}).encode()
            return self._body(body, {"Content-Type": "application/json"})
        return self._file(repository, query["FilePath"][0])

    def _resolve(self, name: str, repository: Repository, rest: str) -> None:
        _, _, file = rest.partition("/")
        if repository.gated and self.headers.get("Authorization") != f"Bearer {repository.gated}":
            return self._error(401, X_Error_Code="GatedRepo")
        if file not in repository.files:
            return self._error(404, X_Error_Code="EntryNotFound")
        content = repository.files[file]
        large = file.endswith(LARGE)
        etag = repository.etags.get(file, sha256(content) if large else git_name(content))
        size = str(repository.announced.get(file, len(content)))
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"'}
        if large:
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": size, "Content-Length": "0"}
            if repository.xet:
                headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{self.hub.url}/xet/token"}
            self.send_response(302)
            for key, value in (
                headers | {"Location": f"{self.hub.files_at or self.hub.url}/lfs/{name}/{file}"}
            ).items():
                self.send_header(key, value)
            return self.end_headers()
        return self._file(repository, file, headers)

    def _lfs(self, name: str, repository: Repository, file: str) -> None:
        self._file(repository, file, self.hub.headers)

    def _file(self, repository: Repository, file: str, headers: dict[str, str] | None = None) -> None:
        if file not in repository.files:
            return self._error(404)
        content = repository.sent.get(file, repository.files[file])
        asked = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        begin = 0 if not asked or self.hub.ignores_range else int(asked)
        if begin > len(content):
            return self._error(416)
        self.send_response(206 if begin else 200)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        announced = repository.announced.get(file, len(content))
        self.send_header("Content-Length", str(announced - begin))
        self.end_headers()
        if self.command == "HEAD":
            return None
        self._send(content[begin:], self.hub.drop_after(file))
        if announced != len(content):
            self.close_connection = True
        return None

    def _send(self, content: bytes, limit: int | None) -> None:
        pieces = content if limit is None else content[:limit]
        step = 16384 if not self.hub.pause else 4096
        for start in range(0, len(pieces), step):
            if self.hub.pause:
                time.sleep(self.hub.pause)
            try:
                self.wfile.write(pieces[start : start + step])
            except OSError:  # the client is gone
                self.close_connection = True
                return
            self.hub.sent += len(pieces[start : start + step])
        if limit is not None and limit < len(content):
            self.wfile.flush()
            self.close_connection = True

    def _go_on_and_on(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):  # the client has had enough
            while self.hub.sent < 100 * 2**20:
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                self.hub.sent += 0x10000

    def _drip(self) -> None:
        self.close_connection = True
        with suppress(OSError):  # the client has had enough
            if self.hub.drips_body:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not self.hub.closed.wait(0.02):
                self.wfile.write(b" " if self.hub.drips_body else b"H")

    def _body(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()
