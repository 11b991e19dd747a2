"""Markdown as rows: what it looks like, that no word of it is lost, and that its cutting leaves no trace."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import ColorSystem

from qwenchat.terminal.render.highlight import Highlighter
from qwenchat.terminal.render.inline import parse_inline
from qwenchat.terminal.render.markdown import MarkdownStream
from qwenchat.terminal.rows import Row, paint, row_width, wrap
from qwenchat.terminal.sanitize import StreamGate, sanitize
from qwenchat.terminal.theme import current


def rows_of(text: str, width: int = 40) -> list[Row]:
    stream = MarkdownStream(width)
    return stream.feed(text) + stream.finish()


def shown(text: str, width: int = 40) -> list[str]:
    return ["".join(span.text for span in row) for row in rows_of(text, width)]


def painted_rows(rows: list[Row]) -> list[str]:
    return [paint(row, ColorSystem.STANDARD) for row in rows]


# --- what it looks like --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("one\ntwo\n\nthree", ["one", "two", "", "three"]),
        ("a **b** *c* ~~d~~ `e*f*`", ["a b c d e*f*"]),
        ("2 * 3 * 4, a_b_c, f(*args)", ["2 * 3 * 4, a_b_c, f(*args)"]),
        ("[text](http://a.b)", ["text (http://a.b)"]),
        ('[text](http://a.b/ü "title")', ['text (http://a.b/ü "title")']),
        ("<http://a.b> [http://a.b](http://a.b)", ["http://a.b http://a.b"]),
        ("![alt](http://a.b/c.png)", ["alt (http://a.b/c.png)"]),
        ("[ref]\n\n[ref]: http://a.b", ["[ref]", "", "[ref]: http://a.b"]),
        ("<div>\n<b>x</b> <!-- y -->", ["<div>", "<b>x</b> <!-- y -->"]),
        (r"\(a_1 * b * c\) and $$x *y* z$$ and \*", [r"\(a_1 * b * c\) and $$x *y* z$$ and *"]),
        (
            r"A formula \(with_many + words * that * reach_over\) end",
            [r"A formula \(with_many + words * that *", r"reach_over\) end"],
        ),
        ("\\[\nx * y\n\\]", ["\\[", "x * y", "\\]"]),
        (
            "So\n$$\na &= b_1 * c_2 * d \\\\\n- e \\{\n+ f\n  = g\n$$\nthus *h*",
            ["So", "", "$$", "a &= b_1 * c_2 * d \\\\", "- e \\{", "+ f", "  = g", "$$", "", "thus h"],
        ),
        ("so \\(a \\\\\n*b* \\_ c\\) *d*", ["so \\(a \\\\", "*b* \\_ c\\) d"]),
        ("\\[ a \\\\\n\nno *formula*", ["\\[ a \\\\", "", "no formula"]),
        ("- a\n  \\[ x_1 \\\\\n  - y \\]\n- c", ["• a", "  \\[ x_1 \\\\", "  - y \\]", "• c"]),
        (f"\\[ a\n{'x' * 300} *b* \\] c\n*d*", ["\\[ a", f"{'x' * 300} *b* \\] c", "", "d"]),
        ("> ```\n> a\n> ```\n> *b*", ["│ ╭─", "│ a", "│ ╰─", "│ b"]),
        ("> - ~~~\n>   a\n> ~~~\n>\n> *b*", ["│ • ╭─", "│   a", "│   ╰─", "│", "│ b"]),
        ("> ```\n> a\n```\nb", ["│ ╭─", "│ a", "│ ╰─", "", "╭─", "b", "╰─"]),
        ("# One #\ntext\n## Two\n", ["One", "", "text", "", "Two"]),
        ("One\n===\ntwo\n---\na\nb\n---", ["One", "", "two", "", "a", "b", "", "─" * 24]),
        ("- a\n- b\n\n- c\n  - d\n    - e", ["• a", "• b", "", "• c", "  ◦ d", "    ▪ e"]),
        ("1. a\n  - b\n2) c\n7. d", ["1. a", "   ◦ b", "2) c", "7. d"]),
        ("text\n2. no item\n- item", ["text", "2. no item", "• item"]),
        ("- a\nlazy\n\nout", ["• a", "  lazy", "", "out"]),
        ("-\n- b", ["•", "• b"]),
        ("- [ ] a\n- [x] b\n  - [X] c\n1. [ ] d", ["[ ] a", "[x] b", "    [X] c", "1. [ ] d"]),
        ("- [x]y\n- [](z)\n\n[x] no item", ["• [x]y", "• (z)", "", "[x] no item"]),
        ("> a\nlazy\n>\n> b\n\nc", ["│ a", "│ lazy", "│", "│ b", "", "c"]),
        ("> > a\n> - b", ["│ │ a", "│", "│ • b"]),
        ("```py\nx\n\n  y\n```\nz", ["╭─ py", "x", "", "  y", "╰─", "", "z"]),
        ("~~~\n```\n~~~~", ["╭─", "```", "╰─"]),
        ("- a\n  ```\n  b\n```\n- c", ["• a", "  ╭─", "  b", "  ╰─", "• c"]),
        ("    code\n\n    more\n\ntext", ["    code", "", "    more", "", "text"]),
        (
            "| a | b |\n|---|--:|\n| 1 | 22 |\n| x \\| y |",
            ["a     │  b", "──────┼───", "1     │ 22", "x | y │"],
        ),
        ("see\na|b\n-|-\n1|2|3\nend", ["see", "", "a │ b", "──┼──────", "1 │ 2 | 3", "", "end"]),
    ],
)
def test_blocks_look_as_they_should(source: str, expected: list[str]) -> None:
    assert shown(source) == expected


@pytest.mark.parametrize(
    ("source", "strong"),
    [
        ("**注意：**请看这里。还有**“引号”**后面。", ["注意：", "“引号”"]),
        ("1. **步骤一（可选）：**打开文件", ["步骤一（可选）："]),
        ("これは**「重要」**です。**강조(!)**는", ["「重要」", "강조(!)"]),
        ("见**`x`**的，**（一）** **二。**three", ["x", "（一）", "二。"]),
        ("2 ** 3，a ** b。", []),
        ('a**"b"**c', []),  # as CommonMark has it, where words stand apart
    ],
)
def test_emphasis_ends_beside_full_width_punctuation(source: str, strong: list[str]) -> None:
    spans = [span for row in rows_of(source, 80) for span in row]
    assert [span.text for span in spans if current().strong in span.style] == strong
    assert ("**" in shown(source, 80)[0]) == (not strong)


def test_lines_that_end_in_cr_lf_are_lines() -> None:
    source = "# a\r\n```py\r\nx = 1\r\n```\r\n| a | b |\r\n|---|---|\r\n| **c** | d |\r\n"
    source += "x" * 400 + "\r\nb"
    whole = shown(sanitize(source), 60)
    assert whole == shown(source.replace("\r\n", "\n"), 60)
    for size in (1, 2, 7):
        stream, gate, rows = MarkdownStream(60), StreamGate(), []
        for start in range(0, len(source), size):
            rows += stream.feed(gate.push(source[start : start + size]))
        rows += stream.feed(gate.finish()) + stream.finish()
        assert ["".join(span.text for span in row) for row in rows] == whole


def test_a_table_too_wide_wraps_within_its_columns_and_then_becomes_a_list() -> None:
    table = "| Name | What it does |\n|--|--|\n| alpha | writes many long words |"
    assert shown(table, 24) == [
        "Name  │ What it does",
        "──────┼─────────────────",
        "alpha │ writes many long",
        "      │ words",
    ]
    assert shown(table, 16) == [
        "────",
        "Name: alpha",
        "What it does:",
        "  writes many",
        "  long words",
    ]


def test_a_code_line_is_left_whole_for_copying_but_within_a_list() -> None:
    assert shown(f"```\n{'x ' * 90}y\n```", 40)[1] == "x " * 90 + "y"
    assert max(map(len, shown(f"- ```\n  {'x ' * 90}y\n  ```", 40))) == 40


def test_rows_are_never_wider_than_the_screen() -> None:
    text = "中文“标点”。 word 👩‍🚀 ⚠️ é " * 9 + "x" * 99
    for width in range(2, 60):
        for row in wrap(parse_inline(text), width):
            assert row_width(row) - len(re.search(" *$", "".join(s.text for s in row))[0]) <= width
        assert max(map(cell_len, shown(f"- {text}\n\n  > {text}", width))) <= max(width, 5)


def test_an_address_is_left_whole_for_opening_and_copying_but_in_a_table_s_cell() -> None:
    address = "https://example.com/" + "path/" * 12
    for text in (
        f"see {address} there",
        f"- see [it]({address}) there",
        f"> <{address}>",
        f"看{address}。然后",
    ):
        assert [row for row in shown(text, 40) if address in row], text
    assert max(map(len, shown(f"| a | b |\n|--|--|\n| {address} | b |", 40))) <= 40
    # A megabyte of something is no address for anybody, and must not be kept waiting for its end.
    assert max(map(len, shown(address + "x" * 5000, 40))) == 40


def test_chinese_punctuation_neither_begins_nor_ends_a_row_wrongly() -> None:
    for width in range(8, 30):
        for row in shown("他说：“你好，世界。”（真的）" * 5, width):
            assert row[0] not in "，。”）：", row
            assert row[-1] not in "“（", row


def test_entities_cannot_spell_what_the_gate_stops() -> None:
    text = "&#8238; &#27;[2J &#x9b; &#x200b; &#10; &#x2028; [a](http://x&#8238;y) `&#8238;` ![&#8238;](b)"
    result = "\n".join(shown(text, 200))
    assert sanitize(result) == result
    assert "\u202e" not in result


def test_paint_writes_colours_and_nothing_else() -> None:
    text = sanitize(
        "\x1b]8;;http://evil\x07[b](http://c) [red]d[/red] `e` # \x9b2J\n```py\ndef f(): '''\n```"
    )
    painted = "\n".join(painted_rows(rows_of(text)))
    assert not re.sub(r"\x1b\[[0-9;]*m", "", painted).count("\x1b")


# --- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "language", ["python", "js", "c", "html", "yaml", "bash", "console", "php", "", "none"]
)
def test_colours_never_cost_text(language: str) -> None:
    highlighter = Highlighter(language)
    for line in [
        "def f(): '''a",
        "",
        "  b''' /* c",
        "d */ e: [1]",
        "<p a='b'>&amp;<script>",
        "$ ls | x `",
        "?>",
    ]:
        assert "".join(span.text for span in highlighter.line(line)) == line


def test_a_comment_over_several_lines_keeps_its_colour() -> None:
    for language in ("c", "js", "java", "go", "rust", "css", "sql"):
        highlighter = Highlighter(language)
        first, second, third = (highlighter.line(line) for line in ("/* one", "two if", "three */ x"))
        assert first[-1].style == second[0].style == third[0].style == current().comment, language
        assert third[-1].style != current().comment


# --- a stream ------------------------------------------------------------------------------------

_MARKS = r"""word ** * _ ` `` ``` ~~~ ~~ [ ]( ) # > - 1. | |--|--| === --- *** 中文。 [x]
http://example.com/a_b/c?d=e&f 没有空格 😀 ⚠️ 👩‍🚀 é \ &amp; <b> $$ \[ \]"""
PIECES = st.sampled_from([*re.split(r"\s", _MARKS), "\n", "\n\n", "\n    ", "\t", " ", "  "])
MARKDOWN = st.lists(PIECES, max_size=60).map("".join)


@settings(max_examples=150, deadline=None)
@given(MARKDOWN, st.integers(1, 90), st.integers(1, 40), st.randoms())
def test_rows_do_not_depend_on_how_the_text_was_cut(text: str, width: int, times: int, random) -> None:
    text *= times  # so that the limits for what is long are met
    stream = MarkdownStream(width)
    rows, position = [], 0
    while position < len(text):
        end = position + random.choice((1, 3, 50, 400))
        rows += stream.feed(text[position:end])
        stream.tail()  # leaves no trace either
        position = end
    assert painted_rows(rows + stream.finish()) == painted_rows(rows_of(text, width))


@settings(max_examples=100, deadline=None)
@given(MARKDOWN, st.integers(30, 90))
def test_every_word_is_shown_once_and_in_order(text: str, width: int) -> None:
    # No tables, whose cells are side by side, and no fences, whose info is no text.
    text = text.replace("|", "").replace("``", "`").replace("~", "")
    numbers = iter(range(10_000))
    source = re.sub("word|中文|é", lambda _: f" w{next(numbers)} ", text)
    assert re.findall(r"w\d+", " ".join(shown(source, width))) == re.findall(r"w\d+", source)


def test_what_is_kept_and_shown_as_tail_does_not_grow() -> None:
    for begin, token in (("", "word "), ("- ", "word **b** "), ("```py\n", "x = 1\n"), ("", "x"), ("", "中")):
        stream = MarkdownStream(80)
        stream.feed(begin)
        tallest = 0
        for _ in range(3000):
            stream.feed(token)
            tallest = max(tallest, len(stream.tail())) if _ % 50 == 0 else tallest
        assert tallest <= (50 if token in "x中" else 4)
