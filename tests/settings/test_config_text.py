"""Settings as text: the example file, what ``config show`` prints, and that any of it is read back."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qwenchat.errors import ConfigError, QwenchatError
from qwenchat.i18n import language
from qwenchat.settings import sources
from qwenchat.settings.schema import KEYS, Settings, default_of
from qwenchat.settings.sources import (
    describe,
    example_toml,
    load_settings,
    toml_value,
)
from tests.places import ROOT
from tests.settings.loads import load

# --- the example file ----------------------------------------------------------------------------


def uncommented() -> dict[str, str]:
    """The lines of the example that show a setting, without their comment sign, by key."""
    return {
        match[2] or match[3]: match[1]
        for match in re.finditer(
            r"^# (\[(\w+)(?:\.\w+)?\](?:\n# \w+ = .*)+|(\w+) = .*)$", example_toml(), re.MULTILINE
        )
    }


def test_the_example_in_the_repository_is_the_generated_one() -> None:
    assert (ROOT / "config.example.toml").read_bytes() == example_toml().encode()


def test_the_example_is_chinese_where_that_is_spoken_and_changes_nothing_either(file: Path) -> None:
    try:
        language.use("zh")
        text = example_toml()
    finally:
        language.use("en")
    assert load(text, file).settings == Settings()
    prose = [line for line in text.splitlines() if line[2:] and not re.match(r"# (\w+ = |\[)", line)]
    assert all(re.search("[\u4e00-\u9fff]", line) for line in prose)


def test_the_example_shows_every_key_and_changes_nothing(file: Path) -> None:
    assert list(uncommented()) == list(KEYS)
    assert load(example_toml(), file).settings == Settings()
    assert all(line == "" or line.startswith("#") for line in example_toml().splitlines())


def test_the_example_describes_every_key_in_lines_that_fit_a_screen() -> None:
    assert max(map(len, example_toml().splitlines())) <= 100
    for key in KEYS.values():
        assert key.description.endswith(".")
    assert example_toml().count("\n# Allowed: ") == len(KEYS)
    without_default = [key for key in KEYS if default_of(key) is None]
    assert example_toml().count("If not set: ") == len(without_default)


def test_uncommented_the_example_holds_the_defaults_and_valid_examples(file: Path) -> None:
    resolved = load("\n".join(uncommented().values()).replace("\n# ", "\n"), file)
    assert set(resolved.origins.values()) == {str(file)}
    for key in KEYS:
        value = getattr(resolved.settings, key)
        if default_of(key) in (None, {}):
            assert value != default_of(key)
        else:
            assert value == default_of(key)


def test_the_table_stands_at_the_end_of_the_example() -> None:
    assert list(KEYS)[-1] == "prompts"
    assert example_toml().endswith('# [prompts]\n# teacher = "You explain things step by step."\n')


def test_writing_the_example_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config.toml"
    sources.write_example(path)
    assert path.read_bytes() == example_toml().encode()


def test_writing_the_example_never_overwrites(file: Path) -> None:
    file.write_text("seed = 1")
    with pytest.raises(ConfigError, match=r"config\.toml already exists; it is left as it is"):
        sources.write_example(file)
    assert file.read_text() == "seed = 1"


def test_an_example_that_cannot_be_written_is_told(file: Path) -> None:
    file.write_text("")
    with pytest.raises(QwenchatError, match="cannot be written"):
        sources.write_example(file / "config.toml")
    with pytest.raises(QwenchatError, match="cannot be written"):
        sources.write_example(file.with_name("x" * 300))


# --- showing -------------------------------------------------------------------------------------


def test_describe_shows_every_key_with_value_and_origin(file: Path) -> None:
    rows = describe(load('system = "a \\"b\\""', file, {"temperature": 1}, QWENCHAT_STOP="END"))
    assert [key for key, _, _ in rows] == list(KEYS)
    by_key = {key: (value, origin) for key, value, origin in rows}
    assert by_key["system"] == ('"a \\"b\\""', str(file))
    assert by_key["temperature"] == ("1.0", "--temperature")
    assert by_key["stop"] == ('["END"]', "QWENCHAT_STOP")
    assert by_key["quiet"] == ("false", "default")
    assert by_key["context"] == ("(the checkpoint's own seq_length)", "default")
    assert by_key["prompts"] == ("{}", "default")


def test_describe_shows_each_prompt_in_a_row_that_the_file_could_hold(file: Path) -> None:
    prompts = {"teacher": 'Step by "step".\n', "老师": "慢慢讲。"}
    rows = describe(load("", file, QWENCHAT_PROMPTS=json.dumps(prompts)))
    shown = [row for row in rows if row[0].startswith("prompts")]
    assert shown == [
        ("prompts.teacher", '"Step by \\"step\\".\\n"', "QWENCHAT_PROMPTS"),
        ('prompts."老师"', '"慢慢讲。"', "QWENCHAT_PROMPTS"),
    ]
    assert load("\n".join(f"{key} = {value}" for key, value, _ in shown), file).settings.prompts == prompts


text = st.text(st.characters(exclude_categories=["Cs"]))
names = st.from_regex(r"[\w-]{1,64}", fullmatch=True).filter(lambda name: name not in KEYS)
some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
any_settings = st.builds(
    Settings,
    model=some_text,
    checkpoint=some_text,
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:12"]),
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    context=st.none() | st.integers(16, 2**63 - 1),
    overflow=st.sampled_from(["drop", "error"]),
    system=text.filter(lambda text: not text.startswith("@")),
    temperature=st.none() | st.floats(0, 2),
    top_k=st.none() | st.integers(0, 2**31 - 1),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    min_p=st.none() | st.floats(0, 1),
    repetition_penalty=st.none() | st.floats(0, 2, exclude_min=True),
    seed=st.none() | st.integers(0, 2**63 - 1),
    max_new_tokens=st.none() | st.integers(1, 2**63 - 1),
    stop=st.lists(some_text).map(tuple),
    save=st.booleans(),
    plain=st.booleans(),
    theme=st.sampled_from(["terminal", "dark", "light", "mono"]),
    keys=st.sampled_from(["emacs", "vi"]),
    language=st.sampled_from(["auto", "en", "zh"]),
    quiet=st.booleans(),
    stats=st.booleans(),
    prompts=st.dictionaries(names, some_text),
)


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.toml"


@given(wanted=any_settings)
@hypothesis_settings(deadline=None)
def test_any_settings_written_as_toml_are_read_back(wanted: Settings, shared_file: Path) -> None:
    lines = [f"{key} = {toml_value(value)}\n" for key, value in vars(wanted).items() if value is not None]
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
    key=st.sampled_from(list(KEYS)),
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
