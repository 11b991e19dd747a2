"""Two engines in turns: who is asked what, and what comes of known times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import pairs
from benchmarks.pairs import Comparison, Figure, Task
from qwenchat.errors import QwenchatError
from qwenchat.terminal.columns import lay_out
from qwenchat.terminal.rows import text_of

DECODE, PREFILL = Task(64, 128), Task(512)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SETTLE_SECONDS", 0)


class FakeSide:
    """An engine whose first token takes two seconds, and each later one the next of ``seconds``."""

    def __init__(self, name: str, asked: list[tuple[str, dict[str, Any]]], *seconds: float) -> None:
        self.name = name
        self._asked = asked
        self._seconds = iter(seconds)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        assert do == "generate"
        self._asked.append((self.name, request))
        step = next(self._seconds, 1.0)
        return {"arrivals": [2.0 + i * step for i in range(request["tokens"])]}


def silent(line: str) -> None:
    pass


def test_the_first_token_does_not_count_in_a_decode() -> None:
    assert Task(64, 4).speed([9.0, 10.0, 11.0, 12.0, 13.0]) == 1
    assert Task(64, 4).positions == 69


def test_a_prefill_lasts_until_the_first_token() -> None:
    assert PREFILL.speed([2.0]) == 256


def test_a_ratio_is_that_of_a_pair_and_not_of_the_medians() -> None:
    figure = Figure("decode", (10.0, 40.0, 30.0), (20.0, 20.0, 10.0))
    assert figure.medians == (30, 20)
    assert figure.ratios == (0.5, 2, 3)
    assert figure.ratio == 2


def test_every_run_of_ours_has_one_of_theirs_right_behind_it() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    told: list[str] = []
    ours = FakeSide("ours", asked, 0.5, 0, 0.25, 0)
    theirs = FakeSide("theirs", asked, 1.0, 0, 1.0, 0)
    figures = pairs.compare(ours, theirs, [DECODE, PREFILL], pairs=2, tell=told.append)
    assert [name for name, _ in asked] == ["ours", "theirs"] * 4
    assert [(r["prompt"], r["tokens"]) for _, r in asked[::2]] == [(64, 129), (512, 1)] * 2
    assert [f.title for f in figures] == ["decode 128 after 64, tokens/s", "prefill 512, tokens/s"]
    assert [(f.ours, f.theirs) for f in figures] == [((2, 4), (1, 1)), ((256, 256), (256, 256))]
    assert told[0] == "pair 1 of 2: decode 128 after 64, ours"


def test_both_get_the_same_prompt_and_no_prompt_comes_twice() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    ours, theirs = FakeSide("ours", asked), FakeSide("theirs", asked)
    for side in (ours, theirs):
        pairs.warm(side, [DECODE, PREFILL])
    warming = len(asked)
    pairs.compare(ours, theirs, [DECODE, PREFILL], pairs=3, tell=silent)
    seeds = [(name, request["seed"]) for name, request in asked]
    assert len(set(seeds)) == len(seeds)
    assert [s for n, s in seeds[warming:] if n == "ours"] == [s for n, s in seeds[warming:] if n == "theirs"]


def test_warming_up_touches_each_length_once() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    pairs.warm(FakeSide("ours", asked), [DECODE, Task(64, 16), PREFILL])
    assert [request["prompt"] for _, request in asked] == [64, 512]


def test_a_reply_that_is_too_short_is_no_figure() -> None:
    class Short(FakeSide):
        def ask(self, do: str, **request: Any) -> dict[str, Any]:
            return {"arrivals": super().ask(do, **request)["arrivals"][:3]}

    ours, theirs = Short("ours", []), FakeSide("theirs", [])
    with pytest.raises(QwenchatError, match="ours made 3 tokens of 129 after a prompt of 64"):
        pairs.compare(ours, theirs, [DECODE], pairs=1, tell=silent)


def comparison(*figures: Figure) -> Comparison:
    sides = {"qwenchat": "0.1.0, Int8", "llama.cpp": "0.3.36\x1b[2J"}
    waits = [Figure("start to loaded, s", (3.0,), (1.5,))]
    return Comparison("AMD EPYC", "demo", 2, 3, 0.25, sides, figures, waits)


@pytest.mark.parametrize("width", [None, 100, 80])
def test_the_table_has_medians_ratios_and_their_spread(width: int | None) -> None:
    figure = Figure("decode 128 after 64, tokens/s", (10.0, 40.0, 30.0), (20.0, 20.0, 10.0), DECODE)
    lines = printed(comparison(figure), width)
    assert lines[0] == "AMD EPYC; demo, greedy, 2 threads each, medians of 3 pairs"
    assert lines[1] == "other processes kept 0.25 cores busy meanwhile"
    (row,) = (line for line in lines if "decode" in line)
    assert row.split()[-6:] == ["30.00", "20.00", "2.00", "0.50", "to", "3.00"]
    (wait,) = (line for line in lines if "loaded" in line)
    assert wait.split()[-3:] == ["3.00", "1.50", "2.00"]
    assert not any("\x1b" in line for line in lines)


def test_in_a_narrow_terminal_the_figures_stand_below_the_task() -> None:
    figure = Figure("decode 128 after 64, tokens/s", (1000.0, 4000.0), (2000.0, 1000.0), DECODE)
    lines = printed(comparison(figure), 40)
    assert all(len(line) <= 40 for line in lines)
    words = " ".join(lines).split()
    assert words[words.index("decode") :][5:8] == ["2,500.00", "1,500.00", "2.25"]


def printed(c: Comparison, width: int | None) -> list[str]:
    return [text_of(row) for table in pairs.tables(c) for row in lay_out(table, width)]


def test_the_json_has_every_run() -> None:
    figure = Figure("decode 128 after 64, tokens/s", (10.0, 40.0, 30.0), (20.0, 20.0, 10.0), DECODE)
    found = json.loads(json.dumps(pairs.as_json(comparison(figure))))
    decode, wait = found["figures"]
    assert decode["runs"] == {"ours": [10, 40, 30], "theirs": [20, 20, 10]}
    assert (decode["prompt"], decode["tokens"], decode["ratio"]) == (64, 128, 2)
    assert (wait["prompt"], wait["ours"], wait["theirs"]) == (None, 3, 1.5)
    assert (found["threads"], found["other_cores"]) == (2, 0.25)
    assert found["engines"]["qwenchat"] == "0.1.0, Int8"
