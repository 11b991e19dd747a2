"""Remotes: which names and URLs mean one, what their tables may hold, and where the key is."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwenchat.errors import ConfigError, UsageError
from qwenchat.settings.remotes import Remote, remote_of
from tests.settings.loads import load


def failure(text: str, file: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load(text, file)
    return str(error.value)


TABLES = {"lab": {"url": "https://lab.example/v1/", "model": "qwen"}}


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("lab", Remote("lab", "https://lab.example/v1", "qwen")),
        ("http://host:8000#a/b:c#d", Remote("http://host:8000#a/b:c#d", "http://host:8000/v1", "a/b:c#d")),
        ("HTTP://[::1]:80/", Remote("HTTP://[::1]:80/", "http://[::1]:80/v1")),
        ("https://host/openai/v1", Remote("https://host/openai/v1", "https://host/openai/v1")),
        ("demo", None),
        ("Qwen/Qwen-7B-Chat", None),
        ("ftp://host", None),
        ("", None),
    ],
)
def test_a_remote_is_a_name_or_a_url(name: str, remote: Remote | None) -> None:
    assert remote_of(name, TABLES) == remote


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://", "names no host"),
        ("http://host:port", "names no host"),
        ("http://[::1", "names no host"),
        ("http://host/ a", "names no host"),
        ("http://me:secret@host/v1", "holds a password"),
        ("https://host/v1?key=secret", "holds a query"),
    ],
)
def test_a_url_that_cannot_be_one_is_told_without_what_is_secret(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        remote_of(url, {})
    assert "me:secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://localhost:1", True),
        ("http://127.0.0.9:1", True),
        ("http://[::1]:1", True),
        ("http://lab.localhost", True),
        ("http://192.168.0.4", False),
        ("http://localhost.example.com", False),
    ],
)
def test_what_is_on_this_machine_is_known(url: str, is_here: bool) -> None:
    remote = remote_of(url, {})
    assert remote is not None
    assert remote.is_loopback is is_here


def test_a_table_holds_what_a_remote_has(file: Path) -> None:
    text = (
        '[remotes.lab]\nurl = "https://lab.example/v1"\nmodel = "m"\nkey_env = "LAB_KEY"\n'
        'ca_file = "ca.pem"\ncontext = 4096\nsilence = 60\n[remotes.near]\nurl = "http://near:1"\n'
    )
    remotes = load(text, file).settings.remotes
    assert remote_of("lab", remotes) == Remote(
        "lab", "https://lab.example/v1", "m", key_env="LAB_KEY", ca_file="ca.pem", context=4096, silence=60.0
    )
    assert remote_of("near", remotes) == Remote("near", "http://near:1/v1")
    assert load("", file, QWENCHAT_REMOTES='{"a": {"url": "http://b"}}').settings.remotes.keys() == {"a"}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[remotes.lab]\nmodel = 'm'", "remotes.lab.url"),
        ("[remotes.lab]\nurl = 'lab.example'", "remotes.lab.url"),
        ("[remotes.lab]\nurl = 'https://me:secret@lab.example/v1'", "remotes.lab.url"),
        ("[remotes.lab]\nurl = 'https://lab.example/v1?key=secret'", "remotes.lab.url"),
        ("[remotes.lab]\nurl = 'http://a'\nkye_file = 'x'", "remotes.lab.kye_file"),
        ("[remotes.lab]\nurl = 'http://a'\nsilence = 0", "remotes.lab.silence"),
        ("[remotes.lab]\nurl = 'http://a'\nmodel = ''", "remotes.lab.model"),
        ("[remotes.demo]\nurl = 'http://a'", "remotes.demo"),
        ("[remotes]\nlab = 'http://a'", "remotes.lab"),
    ],
)
def test_a_table_that_cannot_be_is_told_by_its_place(text: str, place: str, file: Path) -> None:
    assert failure(text, file).startswith(f"{file}: {place}: expected tables with url and perhaps model, ")


def test_a_setting_below_a_remote_is_not_missed_in_silence(file: Path) -> None:
    text = "[remotes.lab]\nurl = 'http://a'\nseed = 4"
    assert "seed is a setting; in the file it stands above [remotes]" in failure(text, file)


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    assert Remote("a", "https://b/v1", key_file=str(path)).key({}) == "sk-1"
    assert Remote("a", "https://b/v1", key_env="KEY").key({"KEY": "sk-2 "}) == "sk-2"
    assert Remote("a", "https://b/v1").key({"OPENAI_API_KEY": "sk-3"}) == ""


@pytest.mark.parametrize("text", ["", "\n", "two keys", "schlüssel", "a\nb", "a\x1b[31m"])
def test_a_key_that_is_none_is_told_and_not_shown(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        Remote("a", "https://b/v1", key_file=str(path)).key({})
    assert text.strip() == "" or text not in str(error.value)


def test_a_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Remote("a", "https://b/v1", key_file=str(tmp_path / "none")).key({})
    with pytest.raises(UsageError, match="KEY, which holds the key of a, is not set"):
        Remote("a", "https://b/v1", key_env="KEY").key({})


def test_a_key_does_not_go_through_a_network_in_the_clear() -> None:
    environ = {"KEY": "sk"}
    with pytest.raises(UsageError, match="would go to b unencrypted"):
        Remote("a", "http://b/v1", key_env="KEY").key(environ)
    assert Remote("a", "http://b/v1", key_env="KEY", allow_http=True).key(environ) == "sk"
    assert Remote("a", "http://127.0.0.1:1/v1", key_env="KEY").key(environ) == "sk"
