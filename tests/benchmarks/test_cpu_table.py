"""The table of all that the CPU engine is held to: its rows, what it says of the machine, and its parts."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import cpu_table
from benchmarks.cpu_table import Row
from benchmarks.llama_cpp import Request
from benchmarks.own_server import Own
from benchmarks.pairs import Figure
from benchmarks.processes import busy, watched
from qwenchat.cli.output import print_tables
from qwenchat.errors import QwenchatError


def told(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> str:
    out = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        print_tables(*cpu_table.tables(rows, Request(threads=2, pairs=3)))
    return out.getvalue()


def test_a_row_says_what_it_is_held_to_and_how_busy_the_machine_was(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Row(Figure("decode", (30.0, 20.0, 10.0), (10.0, 10.0, 10.0)), "llama.cpp", 0.01, 1.4, 1.7)
    alone = Row(Figure("the end, s", (0.02, 0.04), (1.0, 1.0)), "", 0.02, 0.1, 0.03)
    text = told([speed, alone], monkeypatch)
    assert "at rest" in text
    assert "NOT" not in text
    line = next(line for line in text.splitlines() if line.startswith("decode"))
    assert line.split() == ["decode", "20.00", "10.00", "2.00", "1.00", "to", "3.00", "1.4", "1.7", "0.01"]
    line = next(line for line in text.splitlines() if line.startswith("the end"))
    assert line.split()[-7:] == ["0.03", "0.02", "to", "0.04", "0.1", "0.03", "0.02"]
    noisy = Row(speed.figure, "llama.cpp", 1.7, 1.4, 1.7)
    assert "NOT AT REST: in 1 of 2 rows" in told([noisy, alone], monkeypatch)
    found = cpu_table.as_json([noisy, alone], Request(threads=2))
    assert found["at_rest"] is False
    assert [row["ratio"] for row in found["rows"]] == [2.0, None]


def test_a_process_is_watched_from_its_start_to_its_end() -> None:
    program = "import sys; a = bytearray(60_000_000); print('one', flush=True); print('two', flush=True)"
    life = watched([sys.executable, "-c", program], os.environ)
    assert life.output.split() == [b"one", b"two"]
    assert life.first_byte > 0
    assert life.ending > 0
    assert life.peak > 60_000_000
    with pytest.raises(QwenchatError, match="ended with 3"):
        watched([sys.executable, "-c", "print(1); raise SystemExit(3)"], os.environ)


def test_busy_processes_end_with_what_they_are_for() -> None:
    import psutil

    before = set(psutil.Process().children())
    with busy(2):
        others = set(psutil.Process().children()) - before
        assert len(others) == 2
    assert not any(process.is_running() for process in others)


def test_an_edit_says_the_script_whatever_is_guessed(golden_folder: Callable[[str], Path]) -> None:
    own = Own()
    settings = {"dtype": "float32", "context": 200, "threads": 1}
    assert "description" in own.answer({"do": "load", "model": str(golden_folder("gptq_int8")), **settings})
    for mode in ("off", "on", "auto"):
        asked = {"do": "edit", "prompt": 60, "changes": 4, "seed": 1, "prompt_lookup": mode}
        assert len(own.answer(asked)["arrivals"]) == 60
