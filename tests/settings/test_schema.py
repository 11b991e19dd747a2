"""The settings themselves: a value from a text, the words about it, and named system prompts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qwenchat.errors import ConfigError
from qwenchat.settings.prompts import named_prompt, system_prompt
from qwenchat.settings.reading import read_setting
from qwenchat.settings.schema import KEYS, Settings, allowed, choices, default_of
from tests.places import ROOT

# --- a value from a text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", " 1 ", 1.0),
        ("seed", "7", 7),
        ("plain", "on", True),
        ("system", "Be brief.", "Be brief."),
        ("stop", "END", ("END",)),
        ("stop", '["a", "b"]', ("a", "b")),
        ("stop", "default", ()),
        ("stop", "", ()),
        ("prompts", '{"a": "b"}', {"a": "b"}),
        ("prompts", "", {}),
        ("device", "auto", "auto"),
    ],
)
def test_a_text_is_read_in_the_type_of_its_key(key: str, text: str, value: object) -> None:
    assert read_setting(key, text) == value
    assert type(read_setting(key, text)) is type(value)


@pytest.mark.parametrize("text", ["", " ", "default", "auto", "Auto"])
def test_an_option_without_a_default_can_be_left_to_the_checkpoint(text: str) -> None:
    unset = [key for key in KEYS if default_of(key) is None]
    assert "temperature" in unset
    assert [read_setting(key, text) for key in unset] == [None] * len(unset)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("temperature", "hot", "a number from 0 to 2"),
        ("temperature", "99", "a number from 0 to 2"),
        ("temperature", "-1", "a number from 0 to 2"),
        ("temperature", "nan", "a number from 0 to 2"),
        ("top_k", "2.5", "a whole number from 0 to 2147483647"),
        ("seed", "9" * 5000, "a whole number from 0 to 9223372036854775807"),
        ("plain", "maybe", "true or false"),
        ("stop", '[""]', "a text or a list of texts, none of them empty"),
        ("theme", "red", '"terminal", "dark", "light" or "mono"'),
        ("keys", "", '"emacs" or "vi"'),
    ],
)
def test_a_text_that_is_no_value_is_told_by_its_key(key: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_setting(key, text)
    assert str(caught.value) == f"{key}: expected {expected}"
    assert expected == allowed(key)


def test_an_error_can_name_the_value_in_other_words() -> None:
    with pytest.raises(ConfigError, match=r"^/set top-p 3: expected a number above 0, up to 1$"):
        read_setting("top_p", "3", "/set top-p 3")


def test_a_text_for_no_setting_is_told_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        read_setting("temprature", "1")
    assert str(caught.value) == "unknown setting temprature; did you mean temperature?"
    with pytest.raises(ConfigError, match=r"^unknown setting xyz$"):
        read_setting("xyz", "1")


def test_what_is_read_is_nobody_elses() -> None:
    read_setting("prompts", "")["mine"] = "x"  # type: ignore[index]
    assert read_setting("prompts", "") == {} == Settings().prompts


@given(key=st.sampled_from(list(KEYS)), text=st.text())
@hypothesis_settings(deadline=None)
def test_any_text_is_taken_or_told(key: str, text: str) -> None:
    try:
        value = read_setting(key, text)
    except ConfigError as error:
        assert str(error).startswith(f"{key}: expected ")
    else:
        if value is not None:
            assert getattr(Settings(**{key: value}), key) == value


def test_a_key_of_few_words_names_them_all() -> None:
    assert choices("overflow") == ("drop", "error")
    for key in KEYS:
        assert all(f'"{word}"' in allowed(key) for word in choices(key))
    assert choices("model") == choices("temperature") == choices("stop") == choices("quiet") == ()


# --- named system prompts ------------------------------------------------------------------------

SETTINGS = Settings(prompts={"teacher": "Step by step.", "老师-2": "@慢慢讲。"}, system="@teacher")


def test_a_name_stands_for_its_prompt() -> None:
    assert system_prompt(SETTINGS) == "Step by step."
    assert system_prompt(Settings(system="")) == ""
    assert system_prompt(Settings()) is None  # the model's own
    assert named_prompt(SETTINGS, "@老师-2") == "@慢慢讲。"  # which is not looked up again


def test_two_ats_stand_for_one() -> None:
    assert named_prompt(SETTINGS, "@@teacher") == "@teacher"
    assert named_prompt(SETTINGS, "@@@ you") == "@@ you"


@pytest.mark.parametrize(
    "text", ["", "@", "@you: help", "@teacher\n", "@ teacher", "Ask @teacher", "@" + "a" * 65]
)
def test_what_cannot_be_a_name_is_text(text: str) -> None:
    assert named_prompt(SETTINGS, text) == text


@pytest.mark.parametrize(
    ("settings", "name", "hint"),
    [
        (SETTINGS, "teachr", "did you mean @teacher? the prompts are @teacher, @老师-2"),
        (SETTINGS, "xyz", "the prompts are @teacher, @老师-2; for a text that begins with @, write @@"),
        (Settings(), "x", "the config file has no [prompts]; for a text that begins with @, write @@"),
    ],
)
def test_a_name_of_no_prompt_is_told_with_those_there_are(settings: Settings, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named_prompt(settings, f"@{name}")
    assert str(caught.value) == f"unknown prompt {name}; {hint}"


def test_a_thousand_prompts_still_fit_a_line() -> None:
    many = Settings(prompts={f"prompt-{n}": "x" for n in range(1000)})
    with pytest.raises(ConfigError) as caught:
        named_prompt(many, "@xyz")
    assert len(str(caught.value)) < 350


# --- what it costs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["qwenchat.settings.schema", "qwenchat.settings.sources", "qwenchat.paths"]
)
def test_importing_the_settings_loads_nothing_heavy(module: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"torch", "transformers", "numpy", "rich", "typer", "prompt_toolkit", "platformdirs", "tomllib"}
    loaded = set(run.stdout.split())
    assert not {*heavy, "pydantic"} & loaded
