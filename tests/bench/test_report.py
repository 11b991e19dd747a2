"""The tables and the JSON line, of figures that are known."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from qwenchat.bench import report
from qwenchat.bench.ceilings import Ceilings
from qwenchat.bench.protocol import CARD, Decode, KernelTime, Memory, Protocol, Result, SamplerTime
from qwenchat.bench.report import Report

GIB = 2**30


def result(name: str = "qwen-7b-chat-int8", protocol: Protocol = CARD, **fields: object) -> Result:
    values: dict[str, object] = {
        "name": name,
        "format": "Int8",
        "published": "7b",
        "device": "cuda",
        "dtype": "float16",
        "kernels": "Triton, CUDA graph",
        "protocol": protocol,
        "weights": 7_820_000_000,
        "per_position": 524_288,
        "decodes": [Decode(tuple((i + 1) / 300 for i in range(n))) for n in protocol.tokens],
        "encode_memory": Memory(int(9.6 * GIB), 10 * GIB),
        "generate_memory": Memory(int(12.6 * GIB), 13 * GIB),
        "first_token": 0.08,
        "next_turn": 0.02,
        "reused": protocol.old,
        "prefill_operations": 28 * 10**12,
    }
    return Result(**{**values, **fields})  # type: ignore[arg-type]


def report_of(*results: Result) -> Report:
    machine = {"device": "NVIDIA H100 80GB HBM3", "torch": "torch 2.13.0"}
    ceilings = {"float16": Ceilings(3.0e12, 2.9e12, 7e14), "float32": Ceilings(3.0e12, 2.9e12, 5e13)}
    return Report(machine, "qwenchat bench", ceilings, results)


def printed(figures: Report) -> str:
    out = io.StringIO()
    report.print_tables(figures, Console(file=out, markup=False, highlight=False, width=80))
    return out.getvalue()


def row(text: str, *words: str) -> str:
    return next(line for line in text.splitlines() if all(word in line for word in words))


def test_the_card_stands_above_what_was_measured() -> None:
    text = printed(report_of(result()))
    card, ours = row(text, "Int8 (card"), row(text, "qwen-7b-chat-int8", "(10.00)")
    assert all(figure in card for figure in ("37.47", "32.54", "11.20", "16.62"))
    assert all(figure in row(text, "BF16") for figure in ("40.93", "36.14", "16.99", "22.53"))
    assert all(figure in row(text, "Int4") for figure in ("50.09", "38.61", "8.21", "13.63"))
    assert all(figure in ours for figure in ("300.00", "84%", "100%", "9.60", "12.60"))
    assert text.index("37.47") < text.index("300.00")


def test_the_card_is_left_out_beside_what_it_says_nothing_of() -> None:
    assert "37.47" not in printed(report_of(result(published=None)))
    assert "37.47" not in printed(report_of(result(protocol=Protocol((128,), 512, 500, 50))))


def test_a_figure_of_the_card_is_only_shown_where_the_same_was_measured() -> None:
    text = printed(report_of(result(protocol=Protocol((2048,), 512, 500, 50))))
    assert "37.47" in text
    assert not any(figure in text for figure in ("32.54", "11.20", "16.62"))


def test_off_a_terminal_the_tables_are_plain_and_wide() -> None:
    text = printed(report_of(result(), result("qwen-7b-chat-int4"), result("qwen-7b-chat-fp16")))
    assert "\x1b" not in text
    assert 100 <= max(map(len, text.splitlines())) <= 120
    assert text.count("qwen-7b-chat-int4") == 3  # no name is folded


def test_the_wait_for_a_first_token_stands_beside_its_ceiling() -> None:
    text = printed(report_of(result(start=(21.5, 3.25))))
    waiting = row(text, "qwen-7b-chat-int8", "80.0")
    assert all(
        figure in waiting for figure in ("25,600", "350.00", "50%", "200 on 2,000", "20.0", "3.25 (21.50)")
    )


def test_a_cache_that_did_not_serve_is_said() -> None:
    assert "(0 reused)" in printed(report_of(result(reused=0)))


def test_the_same_model_in_two_dtypes_is_told_apart() -> None:
    text = printed(report_of(result("demo"), result("demo", dtype="float32")))
    assert "demo, float16" in text
    assert "demo, float32" in text


def test_kernels_have_their_share_of_the_ceiling() -> None:
    times = [KernelTime("qkv", 32, 21e-6, 51_000_000), KernelTime("sample", 1, 3e-5, None)]
    text = printed(report_of(result(kernel_times=times, kernels_at=1024)))
    assert all(figure in row(text, "qkv") for figure in ("32", "21.00", "672.0", "2,429", "81%"))
    assert row(text, "sample").count("–") == 2


def test_a_hostile_name_is_harmless() -> None:
    assert "\x1b" not in printed(report_of(result("a\x1b[2Jb")))


def test_the_json_has_every_figure() -> None:
    sampler = SamplerTime(151936, 4e-5, 2e-5)
    found = json.loads(json.dumps(report.figures(report_of(result(sampler=sampler)))))
    first = found["results"][0]
    assert [r["new_tokens"] for r in first["replies"]] == [2048, 8192]
    assert first["replies"][0]["tokens_per_second"] == 300
    assert first["replies"][0]["share"] == pytest.approx(300 / 359, abs=0.001)
    assert first["encode_memory"]["allocated"] == int(9.6 * GIB)
    assert first["next_turn"] == {"old": 2000, "new": 200, "reused": 2000, "seconds": 0.02}
    assert first["sampler"]["flat"] == 4e-5
    assert found["machine"]["device"] == "NVIDIA H100 80GB HBM3"
    assert found["model_card"][1]["speeds"]["2048"] == 37.47


def test_a_picture_has_a_line_for_each_result() -> None:
    lines, _, below = report.lines(report_of(result(), result("qwen-7b-chat-int4")))
    assert [line.name for line in lines] == ["qwen-7b-chat-int8", "qwen-7b-chat-int4"]
    assert below == "NVIDIA H100 80GB HBM3"
    assert all(speed == pytest.approx(300) for _, speed in lines[0].measured)
    assert lines[0].ceiling[0] == (1, pytest.approx(3.0e12 / (7.82e9 + 524288)))
