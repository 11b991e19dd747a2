"""The shared flags: which there are, what they hand on, and what a shell completes after them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer._adapters import build_adapter
from typer._coercion import resolve_type_descriptor
from typer.models import OptionInfo

from qwenchat.backends import devices
from qwenchat.cli.completion import offering
from qwenchat.cli.context import Flags
from qwenchat.cli.flags import with_flags
from qwenchat.cli.plain_values import NotPlain, plain
from qwenchat.settings.schema import KEYS, Settings, choices
from qwenchat.settings.sources import load_settings

seen: list[Flags] = []
app = typer.Typer(name="prog", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
@with_flags
def root(ctx: typer.Context, flags: Flags) -> None:
    """Keeps what the flags said."""
    ctx.obj = flags
    seen.append(flags)


@app.command()
@with_flags
def ask(ctx: typer.Context, flags: Flags) -> None:
    """Joins them with those before its name."""
    seen.append(flags.over(ctx.obj))


def flags_of(*arguments: str) -> Flags:
    app(list(arguments), prog_name="prog", standalone_mode=False)
    return seen[-1]


# --- what they hand on ---------------------------------------------------------------------------


def test_every_setting_has_a_flag_but_what_belongs_into_the_config() -> None:
    assert set(KEYS) - set(flags_of().settings) == {
        "checkpoint",
        "deny",
        "history",
        "prompts",
        "remotes",
        "tools_python",
    }


def test_flags_that_are_not_given_set_nothing() -> None:
    assert set(flags_of().settings.values()) == {None}
    assert load_settings(flags_of().settings).settings == Settings()


def test_flags_become_settings() -> None:
    flags = flags_of(
        *("--overflow", "error", "--no-save", "--plain", "--keys", "vi", "--theme", "mono"),
        *("--language", "zh", "--stop", "a", "--stop", "b", "-q", "--json", "-m", "demo"),
    )
    assert load_settings(flags.settings).settings == Settings(
        overflow="error",
        save=False,
        plain=True,
        keys="vi",
        theme="mono",
        language="zh",
        stop=("a", "b"),
        quiet=True,
        model="demo",
    )
    assert (flags.as_json, flags.stream_json, flags.debug) == (True, False, False)


def test_flags_before_a_commands_name_count_where_those_behind_it_say_nothing() -> None:
    flags = flags_of("--seed", "1", "--theme", "dark", "--debug", "ask", "--theme", "light")
    assert (flags.settings["seed"], flags.settings["theme"], flags.debug) == (1, "light", True)


# --- the help ------------------------------------------------------------------------------------


@pytest.fixture
def help_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    flags_of("ask", "--help")
    return capsys.readouterr().out.splitlines()


def test_every_value_has_a_name_in_capitals(help_lines: list[str]) -> None:
    named = [match[1] for line in help_lines if (match := re.search(r"--[a-z-]+ (?!/)(\S+)", line))]
    assert len(named) > 15
    assert all(re.fullmatch("[A-Z]+", name) for name in named)


def test_the_help_names_the_words_of_a_flag(help_lines: list[str]) -> None:
    text = " ".join(" ".join(help_lines).split())
    for key in KEYS:
        about = re.search(rf"--{key} [A-Z]+ (.*?) -", text)
        assert all(word in about[1] for word in choices(key) if about)


def test_the_language_flag_says_that_the_model_does_not_heed_it(help_lines: list[str]) -> None:
    assert "not of the model" in " ".join(" ".join(help_lines).split())


# --- what a shell completes ----------------------------------------------------------------------


@pytest.fixture
def complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What a shell gets at Tab after these words, the last of which is being typed."""

    def complete(*words: str) -> list[str]:
        monkeypatch.setenv("_PROG_COMPLETE", "complete_zsh")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["prog", *words]))
        with pytest.raises(SystemExit):
            app([], prog_name="prog")
        return re.findall(r'"(.*?)"', capsys.readouterr().out)

    return complete


def write_config(home: Path, text: str) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("--overflow", ""), ["drop", "error"]),
        (("--theme", ""), ["terminal", "dark", "light", "mono"]),
        (("--keys", "v"), ["vi"]),
        (("ask", "--language", ""), ["auto", "en", "zh"]),
        (("--dtype", "b"), ["bfloat16"]),
        (("--device", "a"), ["auto"]),
        (("--model", "d"), ["demo"]),
        (("ask", "-m", "Qwen/Qwen-7B-Chat-"), []),  # they are not on this machine
        (("--model", "./"), []),
    ],
)
def test_the_values_of_a_flag_are_offered(
    words: tuple[str, ...], offered: list[str], complete: Callable[..., list[str]]
) -> None:
    assert complete(*words) == offered


@pytest.mark.parametrize(("kind", "offered"), [("cuda", ["cpu", "cuda"]), ("cpu", ["cpu"])])
def test_a_gpu_is_offered_where_there_is_one(
    kind: str, offered: list[str], complete: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "predict_device", lambda device, dtype: (kind, 4))
    assert complete("--device", "c") == offered


def test_the_prompts_of_the_config_file_are_offered(home: Path, complete: Callable[..., list[str]]) -> None:
    write_config(home, '[prompts]\nteacher = "x"\ntester = "x"\npoet = "x"\n')
    assert complete("--system", "") == ["@teacher", "@tester", "@poet"]
    assert complete("ask", "--system", "@te") == ["@teacher", "@tester"]
    assert complete("--system", "You are") == []


@pytest.mark.parametrize("text", ["seed = ", "seed = -1", 'system = "@nobody"'])
def test_a_broken_config_file_offers_nothing_and_says_nothing(
    text: str, home: Path, complete: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(home, text)
    assert complete("--system", "") == []
    assert capsys.readouterr().err == ""


def test_a_key_press_survives_whatever_breaks() -> None:
    def broken() -> Any:
        raise RuntimeError

    assert offering(broken)() == []


@pytest.mark.parametrize("word", ["--model", "--system", "--theme"])
def test_completing_a_value_loads_no_torch(word: str) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qwenchat"],
        env=os.environ
        | {"_QWENCHAT_COMPLETE": "complete_bash", "COMP_WORDS": f"qwenchat {word} ", "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout or word == "--system"  # there is no config file
    loaded = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert "qwenchat.cli.flags" in loaded
    assert not {"torch", "transformers", "numpy", "tiktoken", "rich"} & loaded


def test_the_flags_themselves_need_no_settings() -> None:
    code = "import sys, qwenchat.cli.flags; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "typer" in loaded
    assert not {"pydantic", "qwenchat.settings.schema", "qwenchat.settings.sources", "qwenchat.models"} & set(
        loaded
    )


@given(
    text=st.text() | st.from_regex(r"[+-]?[0-9_]{1,25}(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    kind=st.sampled_from([str, int, float]),
)
@hypothesis_settings(deadline=None, max_examples=300)
def test_a_plain_value_is_read_as_typer_reads_it(text: str, kind: type) -> None:
    descriptor = resolve_type_descriptor(kind, OptionInfo())
    try:
        value = plain(text, descriptor, several=False)
    except NotPlain:
        return
    typers = build_adapter(kind, OptionInfo()).validate_python(text)
    assert (value, type(value)) == (typers, type(typers))


def test_what_is_no_plain_value_is_left_to_typer() -> None:
    for text, kind in (("x", int), ("1.5", int), ("\udcff", str), ("x", Path), ("٣", int)):
        with pytest.raises(NotPlain):
            plain(text, resolve_type_descriptor(kind, OptionInfo()), several=False)
    with pytest.raises(NotPlain):
        plain("0", resolve_type_descriptor(int, OptionInfo(min=1)), several=False)
    stop = resolve_type_descriptor(list[str], OptionInfo())
    assert plain(("a", "b"), stop, several=True) == ["a", "b"]
    assert (plain(None, stop, several=True), plain(None, stop, several=False)) == ((), None)
