"""Perplexity and KL divergence, against figures that can be counted, and models on a text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from qwenchat.cli import app
from qwenchat.errors import UsageError
from qwenchat.evals.divergence import Comparison, losses, perplexity, scored, windows
from qwenchat.evals.perplexity import measure
from tests.fakes import Echo


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_a_text_is_cut_into_whole_windows() -> None:
    assert [len(piece) for piece in windows(range(1300), 512)] == [512, 512]
    assert windows(range(100), 512) == [list(range(100))]
    assert windows(range(3), 512) == []


def test_the_second_half_of_a_window_is_scored() -> None:
    predicted, wanted = scored(torch.zeros(10, 7), [3] * 5 + [0, 1, 2, 3, 4])
    assert wanted.tolist() == [1, 2, 3, 4]
    assert predicted.shape == (4, 7)
    assert scored(torch.zeros(10, 7), list(range(10)), first=0)[1].tolist() == list(range(1, 10))


def test_perplexity_is_the_number_of_words_that_one_hesitates_between() -> None:
    found = perplexity(losses(logs([0.25] * 4, [0.25] * 4), torch.tensor([0, 3])))
    assert (found.value, found.error) == (pytest.approx(4.0), pytest.approx(0.0, abs=1e-3))
    uneven = perplexity(losses(logs([0.5, 0.5], [0.125, 0.875]), torch.tensor([0, 0])))
    assert uneven.value == pytest.approx(4.0)  # the geometric mean of 2 and 8
    assert uneven.error == pytest.approx(4.0 * math.log(2))


def test_the_divergence_is_that_of_kullback_and_leibler() -> None:
    comparison = Comparison()
    reference, predicted = logs([0.5, 0.5], [0.9, 0.1]), logs([0.25, 0.75], [0.9, 0.1])
    comparison.add(predicted, reference, torch.tensor([0, 0]))
    found = comparison.result()
    one = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert found.mean.value == pytest.approx(one / 2)
    assert (found.maximum, found.minimum) == (pytest.approx(one), pytest.approx(0.0, abs=1e-7))
    assert found.percentiles[0.5] == pytest.approx(one / 2)
    assert found.percentiles[0.9] == pytest.approx(0.9 * one)
    assert found.ratio.value == pytest.approx(math.sqrt(2))
    assert found.mean_change.value == pytest.approx(-0.125)
    assert found.rms_change.value == pytest.approx(0.25 / math.sqrt(2))
    assert found.same_top.value == 0.5


def test_padding_of_a_vocabulary_is_left_out() -> None:
    comparison = Comparison()
    comparison.add(logs([0.5, 0.5, 1e-30]), logs([0.5, 0.5]), torch.tensor([0]))
    assert comparison.result().mean.value == pytest.approx(0.0, abs=1e-6)


def test_a_model_is_measured_and_another_format_beside_it(
    tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One two three four five six seven eight nine ten. " * 12)
    arguments = ["eval", "perplexity", "-m", str(tiny_chat), "--formats", str(tiny_chat), "--data", str(text)]
    arguments += ["--window", "32", "--limit", "2", "--device", "cpu"]
    assert app.run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["models"]
    assert first["tokens"] == second["tokens"] == 2 * 15
    assert first["perplexity"] == second["perplexity"]
    assert abs(second["divergence"]["mean"][0]) < 1e-4
    assert second["divergence"]["same_top"][0] > 0.99
    assert app.run(arguments) == 0
    said = capsys.readouterr()
    assert "mean KL divergence" in said.out
    assert "30 tokens of" in said.out


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(UsageError, match="gives no logits"):
        measure(["echo"], lambda name: Echo(), window=512)


def test_a_text_of_nothing_is_too_short(tiny_chat: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("a")
    options = ["-m", str(tiny_chat), "--data", str(tmp_path / "empty.txt"), "--device", "cpu"]
    assert app.run(["eval", "perplexity", *options]) == 2
    assert app.run(["eval", "gsm8k", "--formats", "demo"]) == 2
