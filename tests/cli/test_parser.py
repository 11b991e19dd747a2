"""What is said where a command line makes no sense, and the help, in both languages and any width."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from rich.cells import cell_len

from qwenchat.cli import app
from qwenchat.i18n import language

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def run(*words: str) -> tuple[int, str, str]:
        code = app.run(words)
        return code, *capsys.readouterr()

    yield run
    language.use("en")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("sessions rm x", "qwenchat sessions delete"),
        ("pull demo", "qwenchat models pull"),
        ("downlaod demo", "qwenchat models pull"),
        ("sessions remov x", "qwenchat sessions delete"),
        ("pls say it", "qwenchat ask 'pls say it'"),
        ("serach x", "--help"),
        ("sessions serach x", "qwenchat sessions search"),
        ("list", "qwenchat sessions list or qwenchat models list"),
        ("why is it so", "qwenchat ask 'why is it so'"),
        ("ask --temprature 1", "--temperature"),
    ],
)
def test_a_word_that_is_none_names_what_was_meant(run: Run, line: str, meant: str) -> None:
    code, out, err = run(*line.split())
    assert (code, out) == (2, "")
    assert meant in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--seed x", "--seed x: expected a whole number from 0"),
        ("serve --port 99999", "--port 99999: expected a whole number from 0 to 65535"),
        ("sessions list -n 0", "--limit 0: expected a whole number, 1 or more"),
        ("sessions delete --older-than=-1", "--older-than -1: expected a number, 0 or more"),
        ("sessions list --limit", "qwenchat sessions list --help"),
        ("sessions show", "qwenchat sessions show NAME"),
        ("models show a b", "qwenchat models show --help"),
        ("doctor x", "qwenchat doctor --help"),
        ("ask --json=3", "--json takes no value"),
    ],
)
def test_what_is_wrong_is_told_with_what_may_be(run: Run, line: str, said: str) -> None:
    code, _, err = run(*line.split())
    assert code == 2
    assert said in err


def test_a_wrong_line_is_told_in_the_language_that_it_asks_for(run: Run) -> None:
    assert run("--language", "zh", "--seed", "x")[2].startswith("qwenchat: --seed x：应为")
    assert "缺少 NAME" in run("--language=zh", "sessions", "show")[2]


@pytest.mark.parametrize("width", ["40", "200"])
@pytest.mark.parametrize("spoken", ["en", "zh"])
@pytest.mark.parametrize("command", ["", "bench", "sessions delete", "models pull"])
def test_the_help_fits_the_terminal_and_breaks_between_words(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: str, spoken: str, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    whole = run("--language", spoken, *command.split(), "--help")[1].split()
    monkeypatch.setenv("COLUMNS", width)
    code, out, _ = run("--language", spoken, *command.split(), "--help")
    assert code == 0
    assert max(map(cell_len, out.splitlines())) <= min(int(width), 80)
    if spoken == "en":
        assert sorted(out.split()) == sorted(whole)
    else:
        assert "用法：qwenchat" in out
        assert "Usage" not in out


@pytest.mark.parametrize("spoken", ["en", "zh"])
@pytest.mark.parametrize("command", ["sessions", "models", "sessions delete", "models pull"])
def test_no_word_of_a_usage_is_broken(
    run: Run, monkeypatch: pytest.MonkeyPatch, spoken: str, command: str
) -> None:
    def usage(columns: str) -> list[str]:
        monkeypatch.setenv("COLUMNS", columns)
        return run("--language", spoken, *command.split(), "--help")[1].partition("\n\n")[0].split()

    assert usage("40") == usage("28") == usage("200")
