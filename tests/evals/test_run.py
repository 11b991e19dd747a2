"""Runs of an evaluation: what is kept, what goes on, what is refused, what they add up to."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import qwenchat
from qwenchat.chat.messages import Event, GenerationOptions, Message
from qwenchat.errors import ContextLengthError, QwenchatError, UsageError
from qwenchat.evals import run
from qwenchat.evals.evaluate import Request, Subject, evaluate
from qwenchat.evals.gsm8k import GSM8K
from qwenchat.evals.records import Records
from qwenchat.evals.task import Dataset, Item
from tests.fakes import Echo, Scripted

QUESTIONS = Dataset(
    tuple(Item(str(n), "", {"question": f"{n} plus {n}?", "answer": f"#### {2 * n}"}) for n in range(12)),
    "a test",
)


class Counts(Scripted):
    """Says the number of the question twice over if it is even, and else only once; may be stopped.

    Args:
        most: replies before Ctrl-C comes.
    """

    concurrent = True

    def __init__(self, most: int = 10**9, cancel: threading.Event | None = None) -> None:
        super().__init__("")
        self._most, self._cancel = most, cancel
        self.count = 0

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """The reply."""
        if self.count == self._most and self._cancel is not None:
            self._cancel.set()
        self.count += 1
        number = int(messages[-1].text.split()[0])
        yield from Scripted(f"It is {number * 2 if number % 2 == 0 else number}.").stream(
            messages, options, cancel
        )


def evaluated(
    folder: Path, backend: Any, cancel: threading.Event | None = None, **request: Any
) -> dict[str, Any]:
    """The report."""
    subject = Subject(backend, "a model", "0" * 64)
    return evaluate(GSM8K(), QUESTIONS, subject, Request(folder, **request), cancel or threading.Event())


def lines(folder: Path) -> list[dict[str, Any]]:
    """The record's."""
    (path,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_answer_is_kept_with_what_it_took(tmp_path: Path) -> None:
    report = evaluated(tmp_path, Counts())
    head, first, second, *_ = lines(tmp_path)
    assert head["task"] == "gsm8k"
    assert (first["prompt"], first["reply"], first["extracted"], first["right"]) == (
        *("0 plus 0?", "It is 0.", "0.", True),
    )
    assert second["right"] is False
    assert set(second) == {"id", "prompt", "reply", "extracted", "right", "seconds", "tokens"}
    (figure,) = report["figures"]
    assert (figure["value"], figure["count"]) == (6 / 12, 12)
    assert figure["low"] < 0.5 < figure["high"]


def test_what_was_stopped_goes_on_to_the_same_total(tmp_path: Path) -> None:
    whole = evaluated(tmp_path / "whole", Counts())
    cancel = threading.Event()
    cut = evaluated(tmp_path / "cut", Counts(5, cancel), cancel)
    assert (cut["done"], cut["wanted"]) == (5, 12)
    rest = Counts()
    report = evaluated(tmp_path / "cut", rest)
    assert rest.count == 7
    assert (report["done_before"], report["scores"]) == (5, whole["scores"])


@pytest.mark.parametrize("cut", range(1, 400, 37))
def test_half_a_line_is_dropped(tmp_path: Path, cut: int) -> None:
    whole = evaluated(tmp_path, Counts())
    (path,) = tmp_path.glob("*.jsonl")
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    assert evaluated(tmp_path, Counts())["scores"] == whole["scores"]
    assert sorted(line["id"] for line in lines(tmp_path)[1:]) == sorted(whole["scores"])


def test_a_head_that_was_cut_is_written_anew(tmp_path: Path) -> None:
    evaluated(tmp_path, Counts(), limit=1)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:30])
    assert evaluated(tmp_path, Counts())["done"] == 12


def test_a_larger_sample_has_the_smaller_one_in_it(tmp_path: Path) -> None:
    assert evaluated(tmp_path, Counts(), limit=4)["done"] == 4
    more = Counts()
    report = evaluated(tmp_path, more, limit=9)
    assert (report["done"], report["done_before"], more.count) == (9, 4, 5)
    other = run.sample(QUESTIONS, 4, seed=5)
    assert [item.id for item in other] != [item.id for item in run.sample(QUESTIONS, 4, seed=1234)]
    assert [int(item.id) for item in other] == sorted(int(item.id) for item in other)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"most_tokens": 9}, "max_new_tokens 512, now 9"),
        ({"think": False}, "think null, now false"),
    ],
)
def test_a_record_with_other_options_is_refused(tmp_path: Path, change: Mapping[str, Any], told: str) -> None:
    evaluated(tmp_path, Counts(), limit=2)
    with pytest.raises(UsageError, match=told):
        evaluated(tmp_path, Counts(), **change)
    assert evaluated(tmp_path, Counts(), fresh=True, **change)["done_before"] == 0


def test_a_record_of_other_data_is_refused_and_both_hashes_told(tmp_path: Path) -> None:
    key = {"data": "a" * 64}
    Records(tmp_path / "r.jsonl", key).close()
    with pytest.raises(UsageError, match="data aaaaaaaaaaaa…, now bbbbbbbbbbbb…"):
        Records(tmp_path / "r.jsonl", {"data": "b" * 64})


def test_a_damaged_line_in_the_middle_is_an_error_and_counts_for_nothing(tmp_path: Path) -> None:
    evaluated(tmp_path, Counts())
    (path,) = tmp_path.glob("*.jsonl")
    broken = path.read_bytes().split(b"\n")
    broken[3] = broken[3][:20]
    path.write_bytes(b"\n".join(broken))
    with pytest.raises(QwenchatError, match="line 4: it is damaged"):
        evaluated(tmp_path, Counts())


def test_some_other_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a-model.gsm8k.jsonl"
    path.write_text("my notes\nof years\n")
    with pytest.raises(UsageError, match="no record of an evaluation"):
        evaluated(tmp_path, Counts())
    assert path.read_text() == "my notes\nof years\n"


def test_two_at_once_do_not_write_one_record(tmp_path: Path) -> None:
    with (
        closing(Records(tmp_path / "r.jsonl", {})),
        pytest.raises(UsageError, match="another qwenchat is writing"),
    ):
        Records(tmp_path / "r.jsonl", {})


def test_several_at_once_add_up_to_the_same(tmp_path: Path) -> None:
    alone = evaluated(tmp_path / "alone", Counts())
    together = evaluated(tmp_path / "together", Counts(), concurrency=4)
    assert together["scores"] == alone["scores"]
    cancel = threading.Event()
    cut = evaluated(tmp_path / "cut", Counts(5, cancel), cancel, concurrency=3)
    assert cut["done"] < 12
    assert evaluated(tmp_path / "cut", Counts(), concurrency=3)["scores"] == alone["scores"]


def test_a_model_that_answers_one_at_a_time_is_not_asked_several() -> None:
    with pytest.raises(UsageError, match="one question at a time"):
        run.share(Echo(), 2)
    run.share(Echo(), 1)
    run.share(Counts(), 2)


def test_our_own_engine_is_shared_by_as_many_as_are_asked_at_once(tiny_chat: Path, tmp_path: Path) -> None:
    model = qwenchat.load(tiny_chat, device="cpu", dtype="float32")
    alone = evaluated(tmp_path / "alone", model, most_tokens=6)
    run.share(model, 3)
    together = evaluated(tmp_path / "together", model, most_tokens=6, concurrency=3)
    assert together["scores"] == alone["scores"]
    assert sorted(line["reply"] for line in lines(tmp_path / "together")[1:]) == sorted(
        line["reply"] for line in lines(tmp_path / "alone")[1:]
    )
    model.close()


def test_a_prompt_that_does_not_fit_counts_as_wrong_and_is_told(tmp_path: Path) -> None:
    long = ContextLengthError("the prompt has {length} tokens", length=9000)

    class Full(Counts):
        def stream(self, *args: Any, **kwargs: Any) -> Generator[Event, None, None]:
            if self.count == 3:
                self.count += 1
                raise long
            return super().stream(*args, **kwargs)

    report = evaluated(tmp_path, Full())
    assert (report["done"], report["without_reply"], report["scores"]["3"]) == (12, 1, {"right": 0.0})
    assert lines(tmp_path)[4]["problem"] == "the prompt has 9000 tokens"


def test_replies_are_greedy_without_a_penalty(tmp_path: Path) -> None:
    model = Scripted("It is 1.")
    evaluated(tmp_path, model, limit=1)
    (options,) = model.asked
    assert (options.temperature, options.repetition_penalty, options.max_new_tokens) == (0.0, 1.0, 512)
