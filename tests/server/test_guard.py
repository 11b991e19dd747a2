"""Who is let in: by the host that is asked for, by the page that asks, by the key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwenchat.cli import app
from qwenchat.server.guard import Entry
from tests.server.fake import ServedScript
from tests.server.serving import Serving, chat, read_all, serving

CHAT = "/v1/chat/completions"
PATHS = (
    *("/v1/models", "/v1/models/scripted", "/metrics", "/tokenizer_info", "/api/tags", "/", "/nothing"),
    *(CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/api/chat", "/v1/../v1/models"),
)
PAGE = "https://editor.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(ServedScript("Hi.")) as running:
        yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[Serving]:
    entry = Entry(hosts=None, key="open-sesame", origins=(PAGE,))
    with serving(ServedScript("Hi."), entry) as running:
        yield running


# --- the host ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "x]"]
)
def test_a_page_whose_name_was_made_to_point_here_is_refused(server: Serving, host: str) -> None:
    for path in ("/v1/models", "/health", "/nothing"):
        answer = server.ask(path, Host=host)
        assert (answer.status, answer.json.get("error") != {}) == (403, True)
    assert server.ask(CHAT, chat(), Host=host).status == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8000", "localhost."]
)
def test_the_names_of_this_machine_are_let_in(server: Serving, host: str) -> None:
    assert server.ask("/v1/models", Host=host).status == 200


def test_a_request_that_names_no_host_is_refused(server: Serving) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b" 403 " in read_all(connection)


# --- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "file://"])
def test_a_page_from_elsewhere_can_make_the_model_do_nothing(server: Serving, origin: str) -> None:
    """Not even by a request that a browser sends without asking first, such as one of plain text."""
    answer = server.ask(CHAT, chat(), Origin=origin, Content_Type="text/plain")
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers
    preflight = server.ask(CHAT, method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST")
    assert preflight.status == 403


def test_a_page_of_the_server_s_own_may_ask(server: Serving) -> None:
    assert server.ask(CHAT, chat(), Origin=server.url).status == 200


def test_a_page_that_was_named_may_ask(locked: Serving) -> None:
    asking = {"Origin": PAGE, "Access_Control_Request_Headers": "authorization, content-type"}
    preflight = locked.ask(CHAT, method="OPTIONS", Access_Control_Request_Method="POST", **asking)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    answer = locked.ask(CHAT, chat(), Origin=PAGE, Authorization="Bearer open-sesame")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    assert locked.ask(CHAT, chat(), Origin=PAGE).status == 401  # the page alone is no key
    other = locked.ask(CHAT, chat(), Origin=f"{PAGE}.evil.example", Authorization="Bearer open-sesame")
    assert other.status == 403


# --- the key -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_every_path_but_health_needs_the_key(locked: Serving, path: str) -> None:
    for method in ("GET", "POST", "HEAD", "DELETE", "OPTIONS"):
        answer = locked.ask(path, b"{}" if method == "POST" else None, method=method)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.ask("/health").status == 200


@pytest.mark.parametrize(
    "given",
    [
        {"Authorization": "Bearer open-sesam"},
        {"Authorization": "Bearer open-sesame2"},
        {"Authorization": "Basic open-sesame"},
        {"Authorization": "open-sesame"},
        {"X_Api_Key": "caf\u00e9"},
        {"X_Api_Key": ""},
    ],
)
def test_another_key_is_none(locked: Serving, given: dict[str, str]) -> None:
    answer = locked.ask("/v1/messages", chat(max_tokens=5), **given)
    assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    "given",
    [
        {"Authorization": "Bearer open-sesame"},
        {"authorization": "bearer  open-sesame"},
        {"X_Api_Key": "open-sesame"},
    ],
)
def test_the_key_lets_in(locked: Serving, given: dict[str, str]) -> None:
    assert locked.ask(CHAT, chat(), **given).status == 200


def test_what_is_at_no_path_is_said_in_the_protocol_s_form(server: Serving) -> None:
    answer = server.ask("/v1/embeddings", {"input": "x"})
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
    assert isinstance(server.ask("/api/embed", {}).json["error"], str)
    wrong = server.ask(CHAT)
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


# --- the command line ----------------------------------------------------------------------------


def test_off_this_machine_a_key_is_needed(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert app.run(["serve", "--host", "0.0.0.0"]) == 2
    assert "needs a key" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "code"), [("", 2), ("two words", 2), ("b\0d", 2), ("schlüssel", 2)])
def test_a_file_without_a_key_is_refused(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path, content: str, code: int
) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    assert app.run(["serve", "--host", "0.0.0.0", "--key-file", str(file)]) == code
    assert content == "" or content not in capsys.readouterr().err  # it may be a key, mistyped
    assert app.run(["serve", "--key-file", str(home / "none")]) == 2


@pytest.mark.parametrize("origin", ["editor.example", "https://editor.example/x", "https://*.example", "*"])
def test_what_is_no_origin_is_refused(home: Path, origin: str) -> None:
    assert app.run(["serve", "--cors", origin]) == 2


def test_the_variable_of_the_key_is_no_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from qwenchat.settings.sources import unknown_variables

    assert unknown_variables({**os.environ, "QWENCHAT_SERVE_KEY": "x"}) == unknown_variables()
