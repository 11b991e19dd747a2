"""Where settings come from: who wins, and one clear line for whatever is wrong."""

from __future__ import annotations

import os
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from qwenchat.errors import ConfigError, UsageError
from qwenchat.settings import sources
from qwenchat.settings.schema import KEYS, Settings
from qwenchat.settings.sources import load_settings, toml_value
from tests.settings.loads import load


def failure(text: str | bytes, file: Path, flags: dict[str, Any] | None = None, /, **environ: str) -> str:
    """The one line that loading these settings fails with."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_settings(flags or {}, environ, file)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == UsageError.exit_code == 2
    return line


# --- which value wins ----------------------------------------------------------------------------


def test_with_nothing_given_the_defaults_hold(file: Path) -> None:
    resolved = load_settings({}, {}, file)
    assert resolved.settings == Settings()
    assert set(resolved.origins.values()) == {"default"}
    assert list(resolved.origins) == list(KEYS)


@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        ("default", "file"),
        ("default", "environment"),
        ("default", "flag"),
        ("file", "environment"),
        ("file", "flag"),
        ("environment", "flag"),
    ],
)
def test_the_stronger_origin_wins(weak: str, strong: str, file: Path) -> None:
    here = {weak, strong}
    resolved = load(
        "top_k = 1" if "file" in here else "",
        file,
        {"top_k": 3 if "flag" in here else None},
        **({"QWENCHAT_TOP_K": "2"} if "environment" in here else {}),
    )
    value, origin = {
        "file": (1, str(file)),
        "environment": (2, "QWENCHAT_TOP_K"),
        "flag": (3, "--top-k"),
    }[strong]
    assert (resolved.settings.top_k, resolved.origins["top_k"]) == (value, origin)


def test_origins_may_differ_from_key_to_key(file: Path) -> None:
    resolved = load(
        "temperature = 0\nseed = 4",
        file,
        {"quiet": False, "model": "demo"},
        QWENCHAT_STOP="END",
        QWENCHAT_SEED="5",
    )
    origins = dict(resolved.origins)
    assert {key: origin for key, origin in origins.items() if origin != "default"} == {
        "temperature": str(file),
        "seed": "QWENCHAT_SEED",
        "stop": "QWENCHAT_STOP",
        "quiet": "--no-quiet",
        "model": "--model",
    }
    assert resolved.settings == Settings(temperature=0, seed=5, stop=("END",), quiet=False, model="demo")


def test_an_empty_variable_sets_nothing(file: Path) -> None:
    resolved = load("top_k = 1", file, QWENCHAT_TOP_K="", QWENCHAT_SYSTEM="")
    assert resolved.settings == Settings(top_k=1)


def test_variables_of_no_setting_are_left_alone(file: Path) -> None:
    assert load("", file, QWENCHAT_COLOUR="red", TOP_K="3").settings == Settings()


def test_a_zero_or_a_false_flag_is_a_given_flag(file: Path) -> None:
    resolved = load("temperature = 1\nstats = true", file, {"temperature": 0, "stats": False})
    assert resolved.settings.temperature == 0
    assert resolved.settings.stats is False


def test_a_flag_that_is_no_setting_is_a_mistake_of_the_program(file: Path) -> None:
    with pytest.raises(TypeError, match="no setting is called 'colour'"):
        load_settings({"colour": None}, {}, file)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().seed = 1  # type: ignore[misc]


# --- text from the environment -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("context", "4096", 4096),
        ("temperature", "0", 0.0),
        ("temperature", "1e-1", 0.1),
        ("seed", str(2**63 - 1), 2**63 - 1),
        ("model", "7", "7"),
        ("device", "cuda:1", "cuda:1"),
        ("dtype", "bfloat16", "bfloat16"),
        ("system", "你好\n", "你好\n"),
        ("stop", "END", ("END",)),
        ("stop", '["a", "b c"]', ("a", "b c")),
        ("stop", "[END]", ("[END]",)),
        ("stop", "[" * 100_000, ("[" * 100_000,)),
        ("theme", "mono", "mono"),
        ("prompts", ' {"老师": "慢慢讲。"}', {"老师": "慢慢讲。"}),
        ("save", "off", False),
        *(("quiet", word, True) for word in ("1", "true", "YES", "On", " yes ")),
        *(("quiet", word, False) for word in ("0", "false", "No", "OFF")),
    ],
)
def test_a_variable_is_read_in_the_type_of_its_key(key: str, text: str, value: object, file: Path) -> None:
    resolved = load("", file, **{f"QWENCHAT_{key.upper()}": text})
    assert getattr(resolved.settings, key) == value
    assert type(getattr(resolved.settings, key)) is type(value)


# --- values that cannot be -----------------------------------------------------------------------

BAD = [
    ("model", "", '"auto", "demo", a known name, a folder, a URL#MODEL or the name of a remote'),
    ("checkpoint", "", "a known name or a folder"),
    ("device", "gpu", '"auto", "cpu", "cuda" or "cuda:N"'),
    ("device", "cuda:x", '"auto", "cpu", "cuda" or "cuda:N"'),
    ("dtype", "int8", '"auto", "float32", "bfloat16" or "float16"'),
    ("context", 15, "a whole number, 16 or more"),
    ("context", 10**30, "a whole number, 16 or more"),
    ("overflow", "Drop", '"drop" or "error"'),
    ("theme", "red", '"terminal", "dark", "light" or "mono"'),
    ("keys", "nano", '"emacs" or "vi"'),
    ("language", "de", '"auto", "en" or "zh"'),
    ("temperature", -0.1, "a number from 0 to 2"),
    ("temperature", 99, "a number from 0 to 2"),
    ("top_k", -1, "a whole number from 0 to 2147483647"),
    ("top_k", 1.5, "a whole number from 0 to 2147483647"),
    ("top_p", 0, "a number above 0, up to 1"),
    ("top_p", 3, "a number above 0, up to 1"),
    ("min_p", 1.1, "a number from 0 to 1"),
    ("min_p", -1, "a number from 0 to 1"),
    ("repetition_penalty", 0, "a number above 0, up to 2"),
    ("repetition_penalty", 2.1, "a number above 0, up to 2"),
    ("seed", -1, "a whole number from 0 to 9223372036854775807"),
    ("seed", 2**63, "a whole number from 0 to 9223372036854775807"),
    ("max_new_tokens", 0, "a whole number, 1 or more"),
]


@pytest.mark.parametrize(("key", "value", "expected"), BAD)
def test_a_value_out_of_range_is_told_by_file_variable_and_flag(
    key: str, value: Any, expected: str, file: Path
) -> None:
    flag, variable = "--" + key.replace("_", "-"), "QWENCHAT_" + key.upper()
    assert failure(f"{key} = {toml_value(value)}", file) == (
        f"{file}: {key} = {toml_value(value)}: expected {expected}"
    )
    assert failure("", file, {key: value}) == f"{flag} {value}: expected {expected}"
    if value != "":  # an empty variable sets nothing
        assert failure("", file, **{variable: str(value)}) == f"{variable}={value}: expected {expected}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", '"hot"'),
        ("temperature", '"0.5"'),
        ("temperature", "true"),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("repetition_penalty", "inf"),
        ("top_k", "true"),
        ("top_k", "2.0"),
        ("seed", "[1]"),
        ("seed", "0x" + "f" * 5000),
        ("quiet", "1"),
        ("quiet", '"yes"'),
        ("save", "0"),
        ("prompts", "[]"),
        ("prompts", '"You explain."'),
        ("system", "1"),
        ("system", "2024-01-01"),
        ("model", "{ name = 1 }"),
        ("stop", "1"),
        ("stop", '[""]'),
        ("stop", '""'),
        ("stop", '["a", 1]'),
        ("stop", '[["a"]]'),
    ],
)
def test_a_value_of_the_wrong_type_in_the_file_is_told(key: str, value: str, file: Path) -> None:
    line = failure(f"{key} = {value}", file)
    assert line.startswith(f"{file}: {key} = ")
    assert ": expected " in line


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("temperature", "hot"),
        ("temperature", "nan"),
        ("temperature", "-inf"),
        ("top_k", "2.5"),
        ("top_k", "9" * 5000),
        ("seed", " "),
        ("quiet", "maybe"),
        ("stats", "2"),
        ("stop", "[1, 2]"),
        ("stop", '["", "a"]'),
        ("prompts", "{" * 100_000),
        ("prompts", '["a"]'),
    ],
)
def test_a_variable_that_cannot_be_read_is_told(key: str, text: str, file: Path) -> None:
    line = failure("", file, **{f"QWENCHAT_{key.upper()}": text})
    assert line.startswith(f"QWENCHAT_{key.upper()}=")
    assert ": expected " in line
    assert len(line) < 250


@pytest.mark.parametrize("key", ["model", "checkpoint", "device", "dtype", "theme", "system", "stop"])
def test_text_that_is_not_utf8_is_refused_by_name(key: str, file: Path) -> None:
    # What os.environ and sys.argv make of the byte FF.
    assert failure("", file, **{f"QWENCHAT_{key.upper()}": "\udcff"}).startswith(f"QWENCHAT_{key.upper()}=")
    assert failure("", file, {key: "\udcff"}).startswith(f"--{key} ")


def test_a_long_value_is_cut_in_the_error(file: Path) -> None:
    line = failure("", file, {"device": "x\n" * 1000})
    assert len(line) < 150
    assert "…" in line


def test_a_bad_value_is_told_even_where_a_flag_hides_it(file: Path) -> None:
    assert failure("top_p = 3", file, {"top_p": 0.5}).startswith(f"{file}: top_p = 3: ")


# --- named system prompts ------------------------------------------------------------------------

PROMPTS = '[prompts]\nteacher = "Step by step."\npoet = "In verses."\n'
EXPECTED = 'expected texts that are not empty, under names of at most 64 letters, digits, "-" and "_"'


def test_prompts_are_a_table_at_the_end_of_the_file(file: Path) -> None:
    resolved = load(f"seed = 1\n{PROMPTS}", file)
    assert resolved.settings.prompts == {"teacher": "Step by step.", "poet": "In verses."}
    assert (resolved.settings.seed, resolved.origins["prompts"]) == (1, str(file))


def test_prompts_of_the_environment_take_the_place_of_the_files(file: Path) -> None:
    resolved = load(PROMPTS, file, QWENCHAT_PROMPTS='{"guide": "Show the way."}')
    assert resolved.settings.prompts == {"guide": "Show the way."}


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ('[prompts]\nteacher = ""', "prompts.teacher"),
        ("[prompts]\ngood = 'x'\nteacher = 4", "prompts.teacher"),
        ("[prompts.teacher]\ntext = 'x'", "prompts.teacher"),
        ("[prompts]\n'my teacher' = 'x'", 'prompts."my teacher"'),
        ("[prompts]\n'' = 'x'", 'prompts.""'),
        ("[prompts]\n'a\u202eb' = 'x'", 'prompts."a\u202eb"'),
        (f"[prompts]\n{'a' * 65} = 'x'", f"prompts.{'a' * 59}…"),
    ],
)
def test_a_prompt_that_cannot_be_is_told_by_its_name(text: str, entry: str, file: Path) -> None:
    assert failure(text, file) == f"{file}: {entry}: {EXPECTED}"


@pytest.mark.parametrize("line", ["seed = 4", 'model = "demo"'])
def test_a_setting_below_the_prompts_is_not_missed_in_silence(line: str, file: Path) -> None:
    key = line.split()[0]
    assert failure(f"{PROMPTS}{line}", file) == (
        f"{file}: prompts.{key}: {EXPECTED}; {key} is a setting; in the file it stands above [prompts]"
    )


def test_prompts_of_the_environment_that_cannot_be_are_told(file: Path) -> None:
    assert (
        failure("", file, QWENCHAT_PROMPTS='{"a b": "x"}') == f'QWENCHAT_PROMPTS: prompts."a b": {EXPECTED}'
    )
    assert failure("", file, QWENCHAT_PROMPTS="You explain.") == (
        f'QWENCHAT_PROMPTS=You explain.: {EXPECTED}; write a JSON object: {{"teacher": "..."}}'
    )


def test_the_named_prompt_may_come_from_elsewhere_than_its_name(file: Path) -> None:
    assert load(PROMPTS, file, {"system": "@poet"}).settings.system == "@poet"
    assert load(PROMPTS, file, QWENCHAT_SYSTEM="@poet").settings.system == "@poet"
    assert load('system = "@guide"', file, QWENCHAT_PROMPTS='{"guide": "x"}').settings.system == "@guide"


def test_a_name_of_no_prompt_is_told_by_file_variable_and_flag(file: Path) -> None:
    reason = "unknown prompt teachr; did you mean @teacher? the prompts are @teacher, @poet"
    assert failure(f'system = "@teachr"\n{PROMPTS}', file) == f'{file}: system = "@teachr": {reason}'
    assert failure(PROMPTS, file, QWENCHAT_SYSTEM="@teachr") == f"QWENCHAT_SYSTEM=@teachr: {reason}"
    assert failure(PROMPTS, file, {"system": "@teachr"}) == f"--system @teachr: {reason}"


def test_a_name_of_no_prompt_is_told_even_where_a_flag_hides_it(file: Path) -> None:
    assert failure('system = "@teachr"', file, {"system": ""}).startswith(f'{file}: system = "@teachr": ')


# --- variables of no setting ---------------------------------------------------------------------


def test_a_variable_of_no_setting_is_told_with_the_nearest_one() -> None:
    environ = {"QWENCHAT_TEMPRATURE": "1", "QWENCHAT_XYZ": "", "QWENCHAT_HOM": "/", "QWENCHAT_seed": "1"}
    assert sources.unknown_variables(environ) == [
        "QWENCHAT_HOM is not a setting and is ignored; did you mean QWENCHAT_HOME?",
        "QWENCHAT_TEMPRATURE is not a setting and is ignored; did you mean QWENCHAT_TEMPERATURE?",
        "QWENCHAT_XYZ is not a setting and is ignored; see qwenchat config show",
        "QWENCHAT_seed is not a setting and is ignored; did you mean QWENCHAT_SEED?",
    ]


def test_variables_that_do_something_are_not_told() -> None:
    settings = {f"QWENCHAT_{key.upper()}": "x" for key in KEYS}
    others = {"QWENCHAT_HOME": "/", "QWENCHAT_CONFIG": "/x", "_QWENCHAT_COMPLETE": "bash", "HOME": "/"}
    assert sources.unknown_variables({**settings, **others}) == []


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("temprature = 1", "unknown key temprature; did you mean temperature?"),
        ("top-p = 1", "unknown key top-p; did you mean top_p?"),
        ("TOP_K = 1", "unknown key TOP_K; did you mean top_k?"),
        ("seed = 1\nmaxnewtokens = 1", "unknown key maxnewtokens; did you mean max_new_tokens?"),
        (
            "[generation]\nseed = 1",
            "unknown key generation; settings stand at the top level, not in [tables]",
        ),
        ('"a\\nb" = 1', "unknown key a b; the keys are model, checkpoint, "),
        ("xyz = 1", "unknown key xyz; the keys are model, checkpoint, "),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(text: str, line: str, file: Path) -> None:
    assert failure(text, file).startswith(f"{file}: {line}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("seed = ", ":1"),
        ("seed = 1\n\ntop_k = = 2\n", ":3"),
        ('seed = 1\nsystem = """never closed\n', ":3"),
        ("seed = 1\nseed = 2\n", ":2"),
        ("seed = " + "[" * 100_000, ""),
        ("seed = " + "9" * 5000, ""),
    ],
)
def test_a_syntax_error_is_told_with_its_line(text: str, place: str, file: Path) -> None:
    line = failure(text, file)
    assert line.startswith(f"{file}{place}: not valid TOML: ")
    assert "(at " not in line


def test_a_file_that_is_not_utf8_is_told_with_its_line(file: Path) -> None:
    assert failure(b'seed = 1\nsystem = "caf\xe9"\n', file) == f"{file}:2: not UTF-8 (byte 22)"


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfseed = 1\r\ntop_k = 2\r\n")
    assert load_settings({}, {}, file).settings == Settings(seed=1, top_k=2)


def test_a_single_stop_text_and_a_list_are_both_fine(file: Path) -> None:
    assert load('stop = "END"', file).settings.stop == ("END",)
    assert load('stop = ["a", "b"]', file).settings.stop == ("a", "b")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {}, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} ")
    if sys.platform != "win32":  # where opening a folder is a lack of permission
        assert "is a folder; a config file was expected" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_an_unreadable_file_is_told(file: Path) -> None:
    file.symlink_to(file)  # unreadable even for root, who reads past file modes
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: "):
        load_settings({}, {}, file)


def test_a_file_in_place_of_the_folder_is_told(file: Path) -> None:
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings({}, {}, file / "config.toml")


def test_a_huge_file_is_not_read_to_its_end(file: Path) -> None:
    assert failure(b"#" * (2 << 20), file) == f"{file} is larger than 256 KiB; a config file was expected"


@pytest.mark.parametrize(
    "text",
    [".".join(["a"] * 100_000) + " = 1", "x = 1\n[" + " . ".join(['"a.b"'] * 100) + "]"],
    ids=["key", "table"],
)
def test_a_key_of_more_parts_than_the_parser_can_stand_is_told(file: Path, text: str) -> None:
    line = text.count("\n") + 1
    assert failure(text, file) == f"{file}:{line}: not valid TOML: nested too deeply"


def test_a_text_with_many_dots_is_no_such_key(file: Path) -> None:
    file.write_text(f'system = "{"1. " * 100}{"..." * 100}"\n')
    assert load_settings({}, {}, file).settings.system == "1. " * 100 + "..." * 100


@pytest.mark.skipif(os.name != "posix", reason="the system has no pipes among its files")
def test_a_pipe_in_the_files_place_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file; a config file was expected"):
        load_settings({}, {}, file)


def test_the_null_device_says_that_there_is_no_config(file: Path) -> None:
    assert load_settings({}, {}, os.devnull).settings == load_settings({}, {}, file).settings


def test_a_missing_file_is_fine_unless_it_was_asked_for(tmp_path: Path) -> None:
    home = {"QWENCHAT_HOME": str(tmp_path)}
    assert load_settings({}, home).settings == Settings()
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {**home, "QWENCHAT_CONFIG": str(missing)})
    assert str(caught.value) == f"there is no file {missing}; QWENCHAT_CONFIG names it"


def test_the_environment_can_name_another_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("seed = 1")
    other = tmp_path / "other.toml"
    other.write_text("seed = 2")
    home = {"QWENCHAT_HOME": str(tmp_path)}
    assert load_settings({}, home).settings.seed == 1
    resolved = load_settings({}, {**home, "QWENCHAT_CONFIG": str(other)})
    assert (resolved.settings.seed, resolved.origins["seed"]) == (2, str(other))
