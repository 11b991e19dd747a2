"""A child that answers, one that dies, and one that is ended at work."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import llama_cpp_server
from benchmarks.child import Child
from qwenchat.errors import QwenchatError, UsageError

SERVING = f"""
import os, sys, time
sys.path.insert(0, {str(Path(llama_cpp_server.__file__).parent)!r})
from llama_cpp_server import serve

def answer(request):
    do = request.pop("do")
    if do == "echo":
        print("a library says something")
        return request
    if do == "look":
        return {{"seen": os.environ["SEEN"]}}
    if do == "refuse":
        return {{"error": "no", "hint": "ask for something else"}}
    if do == "fail":
        raise ValueError("out of order")
    if do == "work":
        open(request["begun"], "w").close()
        time.sleep(3600)
    print("first line", file=sys.stderr)
    print("last line", file=sys.stderr, flush=True)
    os._exit(3)

serve(answer)
"""


def child(code: str = SERVING, told: list[str] | None = None) -> Child:
    tell = (lambda line: None) if told is None else told.append
    return Child("peer", [sys.executable, "-S", "-c", code], environment={"SEEN": "this"}, tell=tell)


def test_it_answers_as_often_as_it_is_asked() -> None:
    with child() as peer:
        assert peer.ask("echo", number=1, text="你好") == {"number": 1, "text": "你好"}
        assert peer.ask("echo") == {}
        assert peer.ask("look") == {"seen": "this"}


def test_what_it_cannot_do_is_an_error_and_it_goes_on() -> None:
    with child() as peer:
        with pytest.raises(QwenchatError, match="peer: no; ask for something else"):
            peer.ask("refuse")
        with pytest.raises(QwenchatError, match="peer: ValueError: out of order"):
            peer.ask("fail")
        assert peer.ask("echo", number=1) == {"number": 1}


def test_of_a_dead_one_the_last_line_is_the_error_and_the_lines_before_it_are_told() -> None:
    told: list[str] = []
    with child(told=told) as peer:
        with pytest.raises(QwenchatError) as caught:
            peer.ask("die")
        assert str(caught.value) == "peer ended with status 3: last line"
        assert told == ["peer: first line"]
        with pytest.raises(QwenchatError, match="status 3"):  # and it stays dead
            peer.ask("echo")


def test_one_that_dies_at_once_is_told_the_same_way() -> None:
    with (
        child("raise SystemExit('cannot begin')") as peer,
        pytest.raises(QwenchatError, match="status 1: cannot begin"),
    ):
        peer.ask("echo")


def test_an_answer_that_is_none_is_an_error() -> None:
    with (
        child("input(); print('good morning', flush=True); input()") as peer,
        pytest.raises(QwenchatError, match="peer answered 'good morning' to echo"),
    ):
        peer.ask("echo")


def test_it_ends_in_the_middle_of_its_work_once_nobody_listens(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    peer = child()
    process = peer._process
    assert process.stdin is not None
    process.stdin.write(json.dumps({"do": "work", "begun": str(begun)}) + "\n")
    process.stdin.flush()
    while not begun.exists() and process.poll() is None:
        time.sleep(0.01)
    peer.close()
    assert process.returncode == 0  # of itself: it was not killed


def test_one_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing cannot be started: No such file"):
        Child("peer", [str(tmp_path / "nothing")], tell=print)
