"""The settings: who wins, where a value comes from, and one clear line for whatever is wrong."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qwenchat import config
from qwenchat.config import ResolvedSettings, Settings, describe, example_toml, load_settings, toml_value
from qwenchat.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def load(text: str, file: Path, flags: dict[str, Any] | None = None, /, **environ: str) -> ResolvedSettings:
    file.write_text(text, encoding="utf-8")
    return load_settings(flags or {}, environ, file)


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
    assert list(resolved.origins) == list(Settings.model_fields)


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
    with pytest.raises(ValidationError):
        Settings().seed = 1


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
    ("model", "", '"auto", "demo", a known name or a folder'),
    ("checkpoint", "", "a known name or a folder"),
    ("device", "gpu", '"auto", "cpu", "cuda" or "cuda:N"'),
    ("device", "cuda:x", '"auto", "cpu", "cuda" or "cuda:N"'),
    ("dtype", "int8", '"auto", "float32", "bfloat16" or "float16"'),
    ("context", 15, "a whole number, 16 or more"),
    ("context", 10**30, "a whole number, 16 or more"),
    ("temperature", -0.1, "a number, 0 or more"),
    ("top_k", -1, "a whole number, 0 or more"),
    ("top_k", 1.5, "a whole number, 0 or more"),
    ("top_p", 0, "a number above 0, up to 1"),
    ("top_p", 3, "a number above 0, up to 1"),
    ("min_p", 1.1, "a number from 0 to 1"),
    ("min_p", -1, "a number from 0 to 1"),
    ("repetition_penalty", 0, "a number above 0"),
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
    ],
)
def test_a_variable_that_cannot_be_read_is_told(key: str, text: str, file: Path) -> None:
    line = failure("", file, **{f"QWENCHAT_{key.upper()}": text})
    assert line.startswith(f"QWENCHAT_{key.upper()}=")
    assert ": expected " in line
    assert len(line) < 200


@pytest.mark.parametrize("key", ["model", "checkpoint", "device", "dtype", "system", "stop"])
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
    assert str(caught.value).startswith(f"{tmp_path}: ")
    if sys.platform != "win32":  # where opening a folder is a lack of permission
        assert "a folder, where a config file was expected" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_an_unreadable_file_is_told(file: Path) -> None:
    file.symlink_to(file)  # unreadable even for root, who reads past file modes
    with pytest.raises(ConfigError, match=r"config\.toml: cannot read it: "):
        load_settings({}, {}, file)


def test_a_file_in_place_of_the_folder_is_told(file: Path) -> None:
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot read it"):
        load_settings({}, {}, file / "config.toml")


def test_a_huge_file_is_not_read_to_its_end(file: Path) -> None:
    assert failure(b"#" * (2 << 20), file) == f"{file}: larger than 1 MiB, so not a config file"


def test_a_missing_file_is_fine_unless_it_was_asked_for(tmp_path: Path) -> None:
    home = {"QWENCHAT_HOME": str(tmp_path)}
    assert load_settings({}, home).settings == Settings()
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {**home, "QWENCHAT_CONFIG": str(missing)})
    assert str(caught.value) == f"{missing}: no such file; QWENCHAT_CONFIG names it"


def test_the_environment_can_name_another_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("seed = 1")
    other = tmp_path / "other.toml"
    other.write_text("seed = 2")
    home = {"QWENCHAT_HOME": str(tmp_path)}
    assert load_settings({}, home).settings.seed == 1
    resolved = load_settings({}, {**home, "QWENCHAT_CONFIG": str(other)})
    assert (resolved.settings.seed, resolved.origins["seed"]) == (2, str(other))


# --- folders -------------------------------------------------------------------------------------


def test_one_variable_moves_all_folders_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWENCHAT_CONFIG", raising=False)
    for home in (tmp_path / "a", tmp_path / "b"):  # the second time too: it is read at each call
        monkeypatch.setenv("QWENCHAT_HOME", str(home))
        assert config.config_dir() == home / "config"
        assert config.data_dir() == home / "data"
        assert config.cache_dir() == home / "cache"
        assert config.log_dir() == home / "log"
        assert config.config_path() == home / "config" / "config.toml"


def test_folders_may_begin_with_a_tilde_or_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert config.data_dir({"QWENCHAT_HOME": "~/chat"}) == tmp_path / "chat" / "data"
    assert config.data_dir({"QWENCHAT_HOME": "chat"}) == tmp_path / "chat" / "data"
    assert config.config_path({"QWENCHAT_CONFIG": "~/my.toml"}) == tmp_path / "my.toml"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses other users' homes")
def test_the_home_of_nobody_is_told() -> None:
    with pytest.raises(ConfigError, match="QWENCHAT_HOME=~no-such-user/x: there is no such home folder"):
        config.cache_dir({"QWENCHAT_HOME": "~no-such-user/x"})


def test_without_the_variable_the_folders_are_the_platforms() -> None:
    folders = [f({}) for f in (config.config_dir, config.data_dir, config.cache_dir, config.log_dir)]
    assert all(folder.is_absolute() and "qwenchat" in folder.parts for folder in folders)


# --- the example file ----------------------------------------------------------------------------


def uncommented() -> dict[str, str]:
    """The lines of the example that show a setting, without their comment sign, by key."""
    return {
        match[1]: match[0].removeprefix("# ")
        for match in re.finditer(r"^# (\w+) = .*$", example_toml(), re.MULTILINE)
    }


def test_the_example_in_the_repository_is_the_generated_one() -> None:
    assert (ROOT / "config.example.toml").read_bytes() == example_toml().encode()


def test_the_example_shows_every_key_and_changes_nothing(file: Path) -> None:
    assert list(uncommented()) == list(Settings.model_fields)
    assert load(example_toml(), file).settings == Settings()
    assert all(line == "" or line.startswith("#") for line in example_toml().splitlines())


def test_the_example_describes_every_key_in_lines_that_fit_a_screen() -> None:
    assert max(map(len, example_toml().splitlines())) <= 100
    for field in Settings.model_fields.values():
        assert field.description and field.description.endswith(".")
    assert example_toml().count("\n# Allowed: ") == len(Settings.model_fields)
    without_default = [key for key, field in Settings.model_fields.items() if field.default is None]
    assert example_toml().count("If not set: ") == len(without_default)


def test_uncommented_the_example_holds_the_defaults_and_valid_examples(file: Path) -> None:
    resolved = load("\n".join(uncommented().values()), file)
    assert set(resolved.origins.values()) == {str(file)}
    for key, field in Settings.model_fields.items():
        value = getattr(resolved.settings, key)
        if field.default is None:
            assert value is not None
        else:
            assert value == field.default


def test_writing_the_example_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config.toml"
    config.write_example(path)
    assert path.read_bytes() == example_toml().encode()


def test_writing_the_example_never_overwrites(file: Path) -> None:
    file.write_text("seed = 1")
    with pytest.raises(ConfigError, match=r"config\.toml: exists already; it was left as it is"):
        config.write_example(file)
    assert file.read_text() == "seed = 1"


def test_an_example_that_cannot_be_written_is_told(file: Path) -> None:
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot make this folder"):
        config.write_example(file / "config.toml")
    with pytest.raises(ConfigError, match="cannot write it"):
        config.write_example(file.with_name("x" * 300))


# --- showing -------------------------------------------------------------------------------------


def test_describe_shows_every_key_with_value_and_origin(file: Path) -> None:
    rows = describe(load('system = "a \\"b\\""', file, {"temperature": 1}, QWENCHAT_STOP="END"))
    assert [key for key, _, _ in rows] == list(Settings.model_fields)
    by_key = {key: (value, origin) for key, value, origin in rows}
    assert by_key["system"] == ('"a \\"b\\""', str(file))
    assert by_key["temperature"] == ("1.0", "--temperature")
    assert by_key["stop"] == ('["END"]', "QWENCHAT_STOP")
    assert by_key["quiet"] == ("false", "default")
    assert by_key["context"] == ("(the checkpoint's own seq_length)", "default")


text = st.text(st.characters(exclude_categories=["Cs"]))
some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
finite = st.floats(allow_nan=False, allow_infinity=False)
any_settings = st.builds(
    Settings,
    model=some_text,
    checkpoint=some_text,
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:12"]),
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    context=st.none() | st.integers(16, 2**63 - 1),
    system=text,
    temperature=st.none() | finite.filter(lambda x: x >= 0),
    top_k=st.none() | st.integers(0, 2**63 - 1),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    min_p=st.none() | st.floats(0, 1),
    repetition_penalty=st.none() | finite.filter(lambda x: x > 0),
    seed=st.none() | st.integers(0, 2**63 - 1),
    max_new_tokens=st.none() | st.integers(1, 2**63 - 1),
    stop=st.lists(some_text).map(tuple),
    quiet=st.booleans(),
    stats=st.booleans(),
)


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.toml"


@given(wanted=any_settings)
@hypothesis_settings(deadline=None)
def test_any_settings_written_as_toml_are_read_back(wanted: Settings, shared_file: Path) -> None:
    lines = [f"{key} = {toml_value(value)}\n" for key, value in wanted if value is not None]
    shared_file.write_bytes("".join(lines).encode())
    assert load_settings({}, {}, shared_file).settings == wanted


toml_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.just(datetime.date.min)
)


@given(
    key=st.sampled_from(list(Settings.model_fields)),
    value=st.recursive(toml_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
)
@hypothesis_settings(deadline=None)
def test_any_value_of_a_flag_is_taken_or_told(key: str, value: object) -> None:
    try:
        load_settings({key: value}, {}, ROOT / "no-such-file")
    except ConfigError as error:
        assert "\n" not in str(error)


@given(raw=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@hypothesis_settings(deadline=None)
def test_any_bytes_of_a_file_are_taken_or_told(raw: bytes, shared_file: Path) -> None:
    shared_file.write_bytes(raw)
    try:
        load_settings({}, {}, shared_file)
    except ConfigError as error:
        assert str(error).startswith(str(shared_file))
        assert "\n" not in str(error)


def test_importing_the_settings_loads_nothing_heavy() -> None:
    code = "import sys, qwenchat.config; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"torch", "transformers", "numpy", "rich", "typer", "prompt_toolkit", "platformdirs", "tomllib"}
    assert not heavy & set(run.stdout.split())
