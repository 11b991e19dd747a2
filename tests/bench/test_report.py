"""The JSON object and the picture, of figures that are known."""

from __future__ import annotations

import json

import pytest

from qwenchat.bench import report
from qwenchat.bench.protocol import SamplerTime
from tests.bench.figures import GIB, report_of, result


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
