"""The harness's command line, as it is started by ours."""

from __future__ import annotations

import pytest

from qwenchat.evals import harness


def test_without_the_harness_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qwenchat.evals.data.find_spec", lambda name: None)
    assert harness.main(["--tasks", "arc_easy"]) == 1
    assert "not installed: lm_eval; pip install 'qwenchat[eval]'" in capsys.readouterr().err


def test_the_model_is_ours_where_none_is_named() -> None:
    assert harness.with_model(["--tasks=x"], "qwenchat") == ["--tasks=x", "--model", "qwenchat"]
    assert harness.with_model(["-t", "x", "-M", "hf"], "qwenchat") == ["-t", "x", "-M", "hf"]
    assert harness.with_model(["ls", "tasks"], "qwenchat") == ["ls", "tasks"]
