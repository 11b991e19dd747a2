"""Tool use in the card's form: which tool a reply calls, with what, and whether it should have."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwenchat.errors import UsageError
from qwenchat.evals.overlap import rouge_l
from qwenchat.evals.plugins import Plugins, call_in
from qwenchat.evals.task import Item, Record, Source
from tests.evals.fakes import Says

pytest.importorskip("json5")

GOLD = '我应该查天气。\nAction: weather\nAction Input: {"city": "Paris", "day": 1}\nObservation: 21'


def reply(action: str, given: str, after: str = "") -> str:
    return f"Thought: 我应该查天气。\nAction: {action}\nAction Input: {given}{after}"


# The reply, whether the tool is right, and whether the input is the same.
CALLS: tuple[tuple[str, bool, bool], ...] = (
    (reply("weather", '{"city": "Paris", "day": 1}'), True, True),
    (reply("weather", '{"day": 1, "city": "Paris"}'), True, True),
    (reply("Weather", '{"city": "Paris", "day": 1}'), True, True),
    (reply("WEATHER ", '{"city": "Paris", "day": 1}'), True, True),
    (reply("weather", "{'city': 'Paris', 'day': 1}"), True, True),
    (reply("weather", "{city: 'Paris', day: 1}"), True, True),
    (reply("weather", '{"city": "Paris", "day": 1,}'), True, True),
    (reply("weather", '{"city":"Paris","day":1}'), True, True),
    (reply("weather", ' {"city": "Paris",\n "day": 1}\n'), True, True),
    (reply("weather", '{"city": "Paris", "day": 1}', "\nObservation: 21\nThought: done"), True, True),
    (reply("weather", '{"city": "Paris", "day": 2}'), True, False),
    (reply("weather", '{"city": "Rome", "day": 1}'), True, False),
    (reply("weather", '{"city": "Paris"}'), True, False),
    (reply("weather", "Paris"), True, False),
    (reply("weather", ""), True, False),
    (reply("weather", '{"city": "Paris", "day": 1'), True, False),
    (reply("weather", '```json\n{"city": "Paris", "day": 1}\n```'), True, False),
    (reply("search", '{"city": "Paris", "day": 1}'), False, True),
    (reply("weather_api", '{"city": "Paris", "day": 1}'), False, True),
    (reply("weather (v2)", '{"city": "Paris", "day": 1}'), False, True),
    ("Final Answer: 21 °C", False, False),
    ("", False, False),
    # Quirk: without a line of its own before it, an action is none; its input counts all the same.
    ('Action: weather\nAction Input: {"city": "Paris", "day": 1}', False, True),
    # Quirk: without a space behind the colon it is none either.
    ('\nAction:weather\nAction Input: {"city": "Paris", "day": 1}', False, True),
    # Quirk: of several the first counts, and with an observation that was invented.
    (
        reply("weather", '{"city": "Paris", "day": 1}', "\nObservation: 3\nThought: x\nAction: search"),
        *(True, True),
    ),
    # Quirk: without an observation between two calls, their inputs are one, which is no JSON.
    (
        reply("weather", '{"city": "Paris", "day": 1}', "\nAction: search\nAction Input: {}"),
        *(True, False),
    ),
    # Quirk: a thought that speaks of an "Action:" is taken for it.
    ("Thought: the Action: must be\nAction: weather\nAction Input: {}", False, False),
    # Quirk: without an input the name has all but the last character of what follows.
    ("Thought: x\nAction: weather", True, False),
    (reply("weather", "1"), True, False),
    (reply("weather", "null"), True, False),
)


@pytest.mark.parametrize(("said", "tool", "same"), CALLS)
def test_a_question_that_a_tool_answers(said: str, tool: bool, same: bool) -> None:
    item = Item("0", "positive", {"prompt": "How warm is it?", "response": GOLD})
    scores = Plugins().run(item, Says(said)).scores
    assert (scores["selection"] == 1, scores["input"] == 1) == (tool, same)


def test_the_input_scores_by_what_it_shares_with_the_right_one() -> None:
    item = Item("0", "positive", {"prompt": "?", "response": GOLD})
    near = Plugins().run(item, Says(reply("weather", '{"city": "Paris", "day": 2}'))).scores["input"]
    far = Plugins().run(item, Says(reply("weather", '{"q": 1}'))).scores["input"]
    assert 0 < far < near < 1
    assert Plugins().run(item, Says(reply("weather", "none"))).scores["input"] == 0


def test_where_no_tool_is_to_be_called_a_call_is_a_false_positive() -> None:
    item = Item("0", "negative", {"prompt": "?", "response": "Final Answer: x"})
    assert Plugins().run(item, Says(reply("weather", "{}"))).scores == {"false-positive": 1.0}
    assert Plugins().run(item, Says("Final Answer: 2")).scores == {"false-positive": 0.0}


def test_rouge_l_is_the_f_of_the_longest_common_subsequence() -> None:
    assert rouge_l(["a", "b", "c", "d"], ["a", "b", "c", "d"]) == 1
    assert rouge_l(["a", "x", "b"], ["a", "b", "c", "d"]) == pytest.approx(
        2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)
    )
    assert rouge_l([], ["a"]) == rouge_l(["a"], []) == rouge_l(["a"], ["b"]) == 0


def test_both_files_of_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "exam_plugin_v1_react_positive.jsonl").write_text(
        '{"prompt": "a", "response": "\\nAction: x"}\n'
    )
    (tmp_path / "exam_plugin_v1_react_negative.jsonl").write_text('{"prompt": "b", "response": "c"}\n')
    items = Plugins().load(Source(tmp_path)).items
    assert sorted(item.group for item in items) == ["negative", "positive"]


def test_without_data_it_is_said_where_it_is() -> None:
    with pytest.raises(UsageError, match="one vendor alone has it"):
        Plugins().load(Source())


def test_the_figures_are_those_of_the_cards_table() -> None:
    records = [
        Record("a", "positive", {"selection": 1.0, "input": 0.5}),
        Record("b", "positive", {"selection": 0.0, "input": 1.0}),
        Record("c", "negative", {"false-positive": 1.0}),
    ]
    figures = {figure.key: figure.value for figure in Plugins().figures(records)}
    assert figures == {"tools/selection": 0.5, "tools/input": 0.75, "tools/false-positive": 1.0}


def test_what_is_no_json_is_no_input() -> None:
    assert call_in("\nAction: a\nAction Input: {b: 'c'}") == ("a", '{"b": "c"}')
    assert call_in("\nAction: a\nAction Input: [[[") == ("a", "")
