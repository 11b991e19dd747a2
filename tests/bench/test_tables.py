"""The tables of a benchmark, of figures that are known, in both languages and at the widths of terminals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from qwenchat.bench.protocol import KernelTime, Protocol, SamplerTime
from qwenchat.bench.report import Report
from qwenchat.bench.tables import tables
from qwenchat.errors import Phrase
from qwenchat.i18n import language
from qwenchat.terminal.columns import lay_out
from qwenchat.terminal.rows import row_width, text_of
from tests.bench.figures import report_of, result

KERNELS = [KernelTime("qkv", 32, 21e-6, 51_000_000), KernelTime("sample", 1, 3e-5, None)]


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    language.use("en")


def printed(figures: Report, width: int | None = None) -> str:
    rows = [row for table in tables(figures) for row in lay_out(table, width)]
    assert width is None or max(map(row_width, rows)) <= width
    return "\n".join(map(text_of, rows))


def below(text: str, heading: str) -> str:
    """The table that stands below a heading."""
    return text.partition(f"\n{heading}\n")[2].partition("\n\n")[0]


def row(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if word in line)


def test_a_token_has_its_time_at_each_context_beside_the_ceiling() -> None:
    text = printed(report_of(result(token_seconds={2048: 0.004, 32768: 0.0125})))
    assert row(below(text, "a token at a context of 2,048"), "int8").split()[1:] == [
        "4.0", "ms", "250.0", "tokens/s", "74%", "of", "the", "ceiling",
    ]  # fmt: skip
    assert "12.5 ms" in row(below(text, "a token at a context of 32,768"), "int8")


def test_the_card_stands_above_what_was_measured() -> None:
    text = printed(report_of(result()))
    speeds = below(text, "2,048 new tokens from a context of one")
    card = {"BF16": "40.93 tokens/s", "Int8": "37.47 tokens/s", "Int4": "50.09 tokens/s"}
    assert [line.split(")")[1].strip() for line in speeds.splitlines()[:3]] == list(card.values())
    assert [line.split()[0] for line in speeds.splitlines()] == [*card, "qwen-7b-chat-int8"]
    ours = row(speeds, "qwen-7b-chat-int8")
    assert all(figure in ours for figure in ("300.00 tokens/s", "84% of the ceiling", "2,507.1 GB/s"))
    assert "32.54 tokens/s" in row(below(text, "8,192 new tokens from a context of one"), "Int8")
    encode = below(text, "peak memory, a prompt of 2,048 tokens")
    assert "11.20 GiB" in row(encode, "Int8")
    assert "9.60 GiB  10.00 GiB reserved" in row(encode, "qwen-7b-chat-int8")
    generate = below(text, "peak memory, 8,192 new tokens")
    assert "16.62 GiB" in row(generate, "Int8")
    assert "12.60 GiB  13.00 GiB reserved" in row(generate, "qwen-7b-chat-int8")


def test_the_card_is_left_out_beside_what_it_says_nothing_of() -> None:
    assert "A100" not in printed(report_of(result(published=None)))
    assert "A100" not in printed(report_of(result(protocol=Protocol((128,), 512, 500, 50))))


def test_a_figure_of_the_card_is_only_shown_where_the_same_was_measured() -> None:
    text = printed(report_of(result(protocol=Protocol((2048,), 512, 500, 50))))
    assert "37.47" in text
    assert not any(figure in text for figure in ("32.54", "11.20", "16.62"))


def test_what_was_not_measured_has_no_table() -> None:
    lacks = result(encode_memory=None, generate_memory=None, next_turn=None, first_token=None)
    text = printed(report_of(lacks))
    assert "tokens/s" in text
    assert not any(words in text for words in ("peak memory", "next turn", "first token"))


def test_the_wait_for_a_first_token_stands_beside_its_ceiling() -> None:
    text = printed(report_of(result(start=(21.5, 3.25))))
    waiting = below(text, "first token after a prompt of 2,048 tokens").split(maxsplit=1)[1]
    assert waiting == "80.0 ms  25,600 tokens/s  350.00 TFLOP/s  50% of the ceiling"
    assert below(text, "next turn: 200 new tokens after 2,000").split() == ["qwen-7b-chat-int8", "20.0", "ms"]
    start = below(text, "from the start of a process to its first token")
    assert "3.25 s  21.50 s the first time" in start


def test_a_cache_that_did_not_serve_is_said() -> None:
    assert "0 reused" in printed(report_of(result(reused=0)))


def test_the_same_model_in_two_dtypes_is_told_apart() -> None:
    text = printed(report_of(result("demo"), result("demo", dtype="float32")))
    assert "demo, float16" in text
    assert "demo, float32" in text


def test_kernels_have_their_share_of_the_ceiling() -> None:
    text = printed(report_of(result(kernel_times=KERNELS, kernels_at=1024)))
    assert row(text, "qkv").split() == ["qkv", "32", "21.00", "672.0", "2,429", "81%"]
    assert row(text, "sample").split()[-2:] == ["-", "-"]


def test_a_hostile_name_is_harmless() -> None:
    assert "\x1b" not in printed(report_of(result("a\x1b[2Jb")))


@pytest.mark.parametrize("spoken", ["en", "zh"])
@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_figure_is_broken_however_narrow_the_terminal_is(spoken: language.Language, width: int) -> None:
    language.use(spoken)
    figures = report_of(
        result(kernel_times=KERNELS, kernels_at=1024, start=(21.5, 3.25)),
        result("qwen-7b-chat-int4", reused=0),
        result("qwen-7b-chat-int4", dtype="float32", sampler=SamplerTime(151936, 4e-5, 2e-5)),
    )
    wide, narrow = printed(figures), printed(figures, width)
    assert words_with_digits(narrow) <= words_with_digits(wide)
    of_kernels = {"32", "21.00", "30.00", "2,429"}  # columns that are left out
    assert words_with_digits(wide) - words_with_digits(narrow) <= {*of_kernels, "350.00", "560.00"}


def words_with_digits(text: str) -> set[str]:
    return {word for word in re.findall(r"[\w.,%-]+", text) if re.search(r"\d", word)}


def test_in_chinese_nothing_is_english_but_names_and_units() -> None:
    language.use("zh")
    cores = Phrase.of_number(2, "{processor}, 1 core", "{processor}, {count} cores", processor="AMD EPYC")
    figures = report_of(
        result("demo", kernel_times=KERNELS, kernels_at=1024, sampler=SamplerTime(151936, 4e-5, 2e-5)),
        result("demo", dtype="float32", reused=0, start=(21.5, 3.25)),
    )
    text = printed(replace(figures, machine={"device": cores}))
    names = {"AMD", "EPYC", "demo", "qkv", "sample", "float16", "float32", "BF16", "Int8", "Int4", "A100"}
    units = {"token", "logit", "GB", "GiB", "TFLOP", "s"}
    assert set(re.findall("[A-Za-z][A-Za-z0-9]*", text)) <= names | units
