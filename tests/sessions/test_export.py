"""Exports: the conversation as a document that says what was said, and does nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.nodes import ReplyStatus
from qwenchat.sessions import format as session_file
from qwenchat.sessions.export import FORMATS, to_html, to_json, to_markdown, to_text
from qwenchat.sessions.format import Head, SessionRecord
from tests.chats import replied, said, user

NOW = "2025-01-02T03:04:05+00:00"


def record(
    question: str, reply: str, status: ReplyStatus = "complete", title: str = "A title", system: str = ""
) -> SessionRecord:
    conversation = Conversation(system)
    conversation.ask(user("left aside"), NOW)
    conversation.ask(user(question), NOW)
    conversation.reply(*replied(reply, status), NOW)
    return SessionRecord(Head("0123456789ab", title, "qwen", NOW, NOW, 1), {}, conversation)


def test_markdown_is_the_path_with_a_heading_a_turn() -> None:
    assert to_markdown(record("你好?", "Hi!\n\n- a\n", system="be brief")) == (
        "# A title\n\n*qwen · 2025-01-02 03:04 UTC*\n\n## System\n\nbe brief\n\n"
        "## User\n\n你好?\n\n## Assistant\n\nHi!\n\n- a\n\n"
    )


def test_text_is_the_path_with_who_said_it() -> None:
    assert to_text(record("a", "b", "interrupted")) == (
        "A title\n\nqwen · 2025-01-02 03:04 UTC\n\nUser:\na\n\nAssistant (interrupted):\nb\n"
    )


def test_json_is_the_session_file_with_every_branch() -> None:
    original = record("a", "b \ud800")
    text = to_json(original)
    assert session_file.decode(text.encode()) == original
    assert said(json.loads(text)["nodes"][0]) == "left aside"


@pytest.mark.parametrize(
    ("reply", "closed"),
    [
        ("```python\nprint()", "```python\nprint()\n```"),
        ("~~~~\n```\n~~~\n", "~~~~\n```\n~~~\n~~~~"),
        ("```\na\n```", "```\na\n```"),
        ("````\n```\n````", "````\n```\n````"),
        ("    ```\nindented code", "    ```\nindented code"),
        ("```a`b``` inline", "```a`b``` inline"),
        ("1. a\n   ```sh\n   ls", "1. a\n   ```sh\n   ls\n   ```"),
    ],
)
def test_a_code_fence_that_was_cut_off_is_closed_and_others_are_kept(reply: str, closed: str) -> None:
    assert to_markdown(record("a", reply)).endswith(f"## Assistant\n\n{closed}\n")


class Reader(HTMLParser):
    """The tags of a page and the text in each kind of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if data.strip():
            self.inside.append((self.tags[-1], data))


HOSTILE = "<script>alert(1)</script> & \"quotes\" 'n' </p></code> <img src=x onerror=alert(1)> {braces}"


SAFE = {"charset", "http-equiv", "content", "class", "lang", "name"}


def test_html_says_hostile_text_and_does_nothing() -> None:
    plain = Reader(to_html(record("a", "b")))
    page = Reader(to_html(record(HOSTILE, HOSTILE, title=HOSTILE, system=HOSTILE)))
    assert set(page.tags) == set(plain.tags)
    assert {name for name, _ in page.attributes} <= SAFE
    assert [text for tag, text in page.inside if tag == "p"][1:] == [HOSTILE] * 3


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:x",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "//a.b",
        "x",
    ],
)
def test_html_links_lead_to_web_pages_alone(address: str) -> None:
    page = Reader(to_html(record("a", f"[x]({address}) ![y]({address}) <{address}> [z]: {address}")))
    assert not {"a", "img"} & set(page.tags)


def test_html_has_a_reply_as_markdown_and_a_question_as_it_was_typed() -> None:
    reply = "# H\n**注意：**请看\n[x](https://a.b?c&d)\n\n|a|b|\n|-|-|\n|1|~~2~~|\n\n![p](http://a.b/c.png)\n\n\\(a_1*b*\\)"
    text = to_html(record("1 *b* #\n  c", reply))
    page = Reader(text)
    assert {"h1", "strong", "table", "s", "a", "br"} <= set(page.tags) and "em" not in page.tags
    assert "img" not in page.tags
    assert [value for name, value in page.attributes if name == "href"] == [
        "https://a.b?c&d",
        "http://a.b/c.png",
    ]
    assert ("p", "1 *b* #\n  c") in page.inside
    assert "\\(a_1*b*\\)" in text
    assert '<html lang="zh-CN">' in text and 'name="viewport"' in text and "color-scheme: light dark" in text


def test_html_colours_code_and_keeps_every_letter_of_it() -> None:
    code = "\ndef f(a): return a < 1  # <b>\n\n"
    page = Reader(to_html(record(f"```python\n{code}\n```", f"```python\n{code}\n```\n\n```none\n<x>")))
    assert "span" in page.tags and page.tags.count("pre") == 3
    assert "".join(page.text).count(code) == 2
    assert {value for name, value in page.attributes if name == "class"} >= {"language-python", "k"}


def test_html_colours_the_last_line_of_code_too() -> None:
    page = Reader(to_html(record("a", "```diff\n-a\n+b\n```\n\n```console\n$ ls\n```")))
    assert "-a\n+b" in "".join(page.text) and "$ ls" in "".join(page.text)
    assert {"gd", "gi", "gp"} <= {value for name, value in page.attributes if name == "class"}


@pytest.mark.parametrize("code", ["a" * 50_000, "\n" * 20_000 + "a"])
def test_html_has_code_without_colours_where_they_would_take_minutes(code: str) -> None:
    assert f'<code class="language-make">{code}</code>' in to_html(record("a", f"```make\n{code}\n```"))


def test_html_keeps_code_within_lists_as_code() -> None:
    page = to_html(record("a", "1. Do:\r\n\r\n    ```none\r\n    ls\r\n      -l\r\n    ```\r\n2. Done."))
    assert '<pre><code class="language-none">ls\n  -l</code></pre>' in page


def test_html_keeps_code_as_code() -> None:
    page = to_html(record("a", 'see:\n\n```n++ "onclick="x\nif (a < b)\n  c();\n```\n\ndone'))
    assert '<pre><code class="language-n++">if (a &lt; b)\n  c();</code></pre>' in page
    assert "<p>see:</p>" in page and "<p>done</p>" in page
    assert "onclick" not in page


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_stored_as_utf8(name: str) -> None:
    text = FORMATS[name](record("lone \ud800 surrogate", "😀 ok\r\n```\rx", title="\udfff"))
    assert "😀" in text
    text.encode("utf-8")


def test_a_session_without_a_turn_can_be_exported() -> None:
    empty = SessionRecord(Head("0123456789ab", "", "", NOW, NOW, 0), {}, Conversation())
    for export in FORMATS.values():
        assert "0123456789ab" in export(empty)
