"""Files in messages: which are meant, which are read, and where each begins and ends for the model."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenchat.errors import ContextLengthError, QwenchatError, UsageError
from qwenchat.terminal.input.attachments import (
    MAX_BYTES,
    complete_path,
    find_mentions,
    mention_prefix,
    missing_mentions,
    read_file,
    to_path,
)
from qwenchat.terminal.input.draft import Draft


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a home beside it."""
    home, here = tmp_path / "user", tmp_path / "here"
    for path in (
        home / "x.txt",
        here / "README.md",
        here / "a.txt",
        here / "my notes.txt",
        here / "src" / "main.py",
        here / "src" / "two words" / "b.txt",
        here / "报告（终稿）.txt",
        here / "v1",
        here / "v1.2",
        here / "property",
        here / ".hidden",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {path.name}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    return here


# --- reading -------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_name_as_given(folder: Path) -> None:
    file = read_file("src/../a.txt")
    assert (file.name, file.text) == ("src/../a.txt", "this is a.txt\n")
    assert read_file("~/x.txt").text == "this is x.txt\n"
    assert read_file('"my notes.txt"') == read_file("my\\ notes.txt") == read_file("my notes.txt")
    assert read_file(str(folder / "a.txt")).text == "this is a.txt\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (codecs.BOM_UTF8 + "é\r\nb\rc".encode(), "é\nb\nc"),
        ("你好\n".encode("utf-16"), "你好\n"),
        (codecs.BOM_UTF16_BE + "你好".encode("utf-16-be"), "你好"),
        (b"", ""),
        (b"x" * MAX_BYTES, "x" * MAX_BYTES),
    ],
)
def test_text_is_read_with_and_without_a_byte_order_mark(folder: Path, data: bytes, text: str) -> None:
    (folder / "f").write_bytes(data)
    assert read_file("f").text == text


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"\x7fELF\0\0", UsageError, "f is binary; only text"),
        ("你好".encode("gb18030"), UsageError, "f is not UTF-8 text; convert it"),
        (codecs.BOM_UTF16_LE + b"\0\xd8", UsageError, "f is not UTF-8 text"),
        (b"x" * (MAX_BYTES + 1), ContextLengthError, "f is larger than 1024 KiB; send a part"),
    ],
)
def test_what_is_no_text_or_too_long_is_refused(
    folder: Path, data: bytes, kind: type[QwenchatError], words: str
) -> None:
    (folder / "f").write_bytes(data)
    with pytest.raises(kind, match=words):
        read_file("f")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.txt", "there is no file missing.txt"),
        ("src", "src is a folder; name a file in it"),
        ("a.txt/b", "a.txt/b cannot be read: Not a directory"),
        ("x" * 300, "cannot be read: File name too long"),
        ("a\0b", "cannot be read: embedded null"),
        ("~nobody-of-that-name/x", "there is no file ~nobody"),
        ("/dev/zero", "/dev/zero is not a regular file"),
        ("pipe", "pipe is not a regular file"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="the words are POSIX's")
def test_what_is_no_file_is_refused_at_once(folder: Path, path: str, words: str) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match=words):
        read_file(path)


@pytest.mark.parametrize("name", ["nu\0ll", "half \ud800", "x" * 300])
def test_a_name_that_no_file_can_have_is_in_no_message(name: str) -> None:
    with pytest.raises(UsageError, match="is not attached"):
        Draft().detach(name)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_put_in_a_files_place_at_the_last_moment_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe")
    honest = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: honest(path.with_name("a.txt"), **how))
    with pytest.raises(UsageError, match="not a regular file"):
        read_file("pipe")


# --- mentions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("@README.md", ["README.md"]),
        ("see @a.txt, please", ["a.txt"]),
        ("(@a.txt)? @a.txt... [@src/main.py]!", ["a.txt", "src/main.py"]),
        ("看@a.txt。还有@README.md，谢谢", ["a.txt", "README.md"]),
        ("看@a.txt然后", ["a.txt"]),
        ("@a.txt's first line", ["a.txt"]),
        ("@报告（终稿）.txt。", ["报告（终稿）.txt"]),
        ("@a.txt,@README.md", ["a.txt", "README.md"]),
        ("@~/x.txt @./a.txt", ["~/x.txt", "./a.txt"]),
        ('@"my notes.txt", and @my\\ notes.txt.', ["my notes.txt"]),
        ("@src/two\\ words/b.txt", ["src/two words/b.txt"]),
        ("@v1.2. @v1.2.3", ["v1.2"]),
        ("@property\n@src @src/", ["property"]),
        ("me@a.txt me_@a.txt @@a.txt @ a.txt @", []),
        ('@"a.txt', []),
    ],
)
def test_a_mention_is_the_longest_path_that_a_file_has(folder: Path, text: str, found: list[str]) -> None:
    assert find_mentions(text) == found


def test_every_mention_that_is_found_can_be_read(folder: Path) -> None:
    text = '@~/x.txt @"my notes.txt" @src/two\\ words/b.txt'
    assert [read_file(path).text for path in find_mentions(text)] == [
        "this is x.txt\n",
        "this is my notes.txt\n",
        "this is b.txt\n",
    ]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("@./missing.txt", ["./missing.txt"]),
        ("(@REAMDE.md) or 看@缺.txt。", ["REAMDE.md", "缺.txt"]),
        ('@"no such.txt" @no\\ such.py @~/nothing, @/no/where. @../x', None),
        ("read @src/ and @lib/, or @src.", ["src/", "lib/", "src"]),
        ("@a.txt is there", []),
        ("@property @app.route('/') @mock.patch('x.y') @pytest.fixture @Override @alice", []),
        ("me@example.com npm i @types/node @vue/cli", []),
        ("import x from '@/components/X.vue' `@./x.py` \"@./y.py\"", []),
        ('NSString *s = @"hello"; @"%@"', []),
    ],
)
def test_a_path_that_no_file_has_is_told_and_other_words_are_not(
    folder: Path, text: str, missing: list[str] | None
) -> None:
    (folder / "property").unlink()
    expected = ["no such.txt", "no such.py", "~/nothing", "/no/where", "../x"] if missing is None else missing
    assert missing_mentions(text) == expected


@given(st.text('@a.tx/~"\\ (`。看\n', max_size=40))
def test_no_text_confuses_the_search_for_mentions(text: str) -> None:
    assert not set(find_mentions(text)) & set(missing_mentions(text))


# --- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "completions"),
    [
        ("", ["README.md", "a.txt", "my\\ notes.txt", "property", "src/", "v1", "v1.2", "报告（终稿）.txt"]),
        ("s", ["src/"]),
        ("src/", ["src/main.py", "src/two\\ words/"]),
        ("src/two\\ w", ["src/two\\ words/"]),
        ("src/two\\ words/", ["src/two\\ words/b.txt"]),
        ('"m', ['"my notes.txt"']),
        ('"src/tw', ['"src/two words/']),
        ('"src/two words/', ['"src/two words/b.txt"']),
        ('"a.txt"', []),
        ("my n", ["my notes.txt"]),
        (".h", [".hidden"]),
        ("./a", ["./a.txt"]),
        ("~", ["~/"]),
        ("~/", ["~/x.txt"]),
        ("nowhere/", []),
        ("a.txt/", []),
        ("a\0/b", []),
    ],
)
def test_paths_are_completed_as_they_were_begun(folder: Path, prefix: str, completions: list[str]) -> None:
    assert list(complete_path(prefix)) == completions
    assert all(completion.startswith(prefix) for completion in completions)


def test_a_completed_path_is_found_as_a_mention(folder: Path) -> None:
    for prefix in ("", '"', "src/two\\ words/", '"src/two words/'):
        for path in complete_path(prefix):
            if not path.endswith("/"):
                assert [to_path(found) for found in find_mentions(f"see @{path}.")] == [to_path(path)]


@pytest.mark.skipif(os.name != "posix", reason="such names cannot be elsewhere")
def test_names_that_would_harm_the_line_and_what_is_no_file_are_not_offered(folder: Path) -> None:
    for name in ("b\nc", "b\033[2J", b"b\xff".decode("utf-8", "surrogateescape"), 'b"c'):
        (folder / name).write_text("")
    (folder / "bloop").symlink_to("bloop")
    os.mkfifo(folder / "bpipe")
    (folder / "bfile").symlink_to("a.txt")
    assert list(complete_path("b")) == ["bfile"]


@pytest.mark.parametrize(
    ("before", "prefix"),
    [
        ("see @", ""),
        ("see @src/ma", "src/ma"),
        ("看@a", "a"),
        ('@"my no', '"my no'),
        ("@my\\ no", "my\\ no"),
        ("@a.txt and", None),
        ('@"my notes.txt" and', None),
        ("me@example.com", None),
        ("", None),
    ],
)
def test_the_mention_at_the_cursor_is_known(before: str, prefix: str | None) -> None:
    assert mention_prefix(before) == prefix
