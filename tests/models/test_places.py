"""Where checkpoints are found, which of them count, and what a name means."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qwenchat.errors import ModelNotFoundError
from qwenchat.i18n import language
from qwenchat.i18n.language import translated
from qwenchat.models import about, catalog, checking, places, records
from qwenchat.models.records import File, Record
from tests.models.hub_fixture import tiny_checkpoint

NAME = "org/tiny"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))


def put(folder: Path, *, without: str = "") -> Path:
    """A checkpoint in a folder, but for a file of it."""
    folder.mkdir(parents=True)
    for name, content in tiny_checkpoint(100).items():
        if name != without:
            (folder / name).write_bytes(content)
    return folder


def in_hub_cache(name: str = NAME, commit: str = "a" * 40) -> Path:
    return places.hub_folder(name) / "snapshots" / commit


def set_main(commit: str, name: str = NAME) -> None:
    refs = places.hub_folder(name) / "refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / "main").write_text(commit)


def record(folder: Path, *, ended: str) -> Record:
    kept = Record(NAME, "hub", folder.name, folder, (File("config.json", 2, "git:" + "0" * 40),), ended)
    records.keep(kept)
    return kept


# --- what is whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", *SHARDS, places.INDEX, "qwen.tiktoken"])
def test_a_folder_that_lacks_a_file_is_not_whole(file: str) -> None:
    put(in_hub_cache(), without=file)
    assert catalog.find(NAME) is None
    with pytest.raises(ModelNotFoundError, match="org/tiny is not fully downloaded; qwenchat models"):
        catalog.locate(NAME)


def test_a_link_to_a_content_that_is_gone_is_a_missing_file() -> None:
    folder = put(in_hub_cache(), without=SHARDS[0])
    (folder / SHARDS[0]).symlink_to(folder.parents[1] / "blobs" / "gone")
    assert catalog.find(NAME) is None


def test_a_single_file_of_weights_is_whole() -> None:
    folder = put(in_hub_cache())
    for name in (*SHARDS, places.INDEX):
        (folder / name).unlink()
    assert catalog.find(NAME) is None
    (folder / "model.safetensors").write_bytes(b"x")
    assert catalog.find(NAME) == folder


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": "../../x"}}',
        b'{"weight_map": {"a": 1}}',
    ],
)
def test_an_index_that_names_no_files_is_not_whole(index: bytes) -> None:
    folder = put(in_hub_cache())
    (folder / places.INDEX).write_bytes(index)
    assert catalog.find(NAME) is None


def test_a_pull_that_has_not_ended_does_not_count_though_all_seems_there() -> None:
    folder = put(in_hub_cache())
    record(folder, ended="")
    assert catalog.find(NAME) is None
    record(folder, ended="2025-01-01T00:00:00+00:00")
    assert catalog.find(NAME) == folder


def test_a_record_belongs_to_its_folder_alone() -> None:
    begun, other = put(in_hub_cache(commit="a" * 40)), put(in_hub_cache(commit="b" * 40))
    record(begun, ended="")
    assert catalog.find(NAME) == other


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"version": 99}', '{"version": 1}'),
        '{"version": 1, "files": [{"name": "a", "size": Infinity, "digest": ""}]}',
    ],
)
def test_a_record_that_cannot_be_read_is_none(content: str) -> None:
    folder = put(in_hub_cache())
    record(folder, ended="")
    (path,) = (places.ours().parent / "pulls").glob("*.json")
    path.write_text(content)
    assert records.read(folder) is None
    assert list(records.everything()) == []


def in_the_way(path: Path) -> None:
    """Puts a pipe in the place of a file: who reads it waits for ever."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", ["config.json", places.INDEX, "qwen.tiktoken", SHARDS[0]])
def test_a_pipe_is_no_file_of_a_checkpoint_and_is_not_waited_for(name: str) -> None:
    folder = put(in_hub_cache())
    in_the_way(folder / name)
    in_the_way(places.hub_folder(NAME) / "refs" / "main")
    assert catalog.find(NAME) is None
    assert about.of(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_tells_nothing_of_a_model(tmp_path: Path) -> None:
    for name in ("config.json", "README.md", "LICENSE", "quantize_config.json"):
        in_the_way(tmp_path / name)
    assert about.of(tmp_path) == about.CheckpointInfo(None, None, None, None, None)


def test_what_cannot_be_looked_into_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    good, closed = put(in_hub_cache()), put(in_hub_cache(commit="b" * 40))
    shut = {closed, places.ours() / "shut", places.modelscope_cache() / "models" / "org" / "tiny"}
    for folder in shut - {closed}:
        put(folder)
    real = Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        if shut & {self, *self.parents}:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [place.folder for place in catalog.on_this_machine()] == [good]
    assert catalog.find(NAME) == good
    assert all(checking.check(place) for place in places.find(NAME))


# --- where they are found ------------------------------------------------------------------------


def test_what_others_fetched_is_found_without_copying() -> None:
    folder = put(in_hub_cache())
    set_main(folder.name)
    assert catalog.find(NAME) == folder


def test_of_several_revisions_main_is_taken_and_before_it_what_was_pulled_here() -> None:
    first, second = put(in_hub_cache(commit="a" * 40)), put(in_hub_cache(commit="b" * 40))
    set_main(first.name)
    assert catalog.find(NAME) == first
    record(second, ended="2025-01-01T00:00:00+00:00")
    assert catalog.find(NAME) == second


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_the_hubs_cache_is_where_its_variables_say(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert places.hub_cache() == tmp_path / "elsewhere"
    folder = put(in_hub_cache())
    assert tmp_path / "elsewhere" in folder.parents
    assert catalog.find(NAME) == folder


def test_without_variables_it_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert places.hub_cache() == tmp_path / "huggingface" / "hub"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("~/hf", "{home}/hf/hub"),
        ("$MINE/hf", "/mine/hf/hub"),
        ("hf", "{here}/hf/hub"),
        ("~no-such/x", "{here}/~no-such/x/hub"),
    ],
)
def test_hf_home_means_what_it_means_to_the_hubs_client(
    value: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "/mine")
    monkeypatch.setenv("HF_HOME", value)
    assert str(places.hub_cache()) == expected.format(home=Path.home(), here=tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "models/org--my.tiny/snapshots/master",
        "models/org/my___tiny",
        "hub/models/org/my___tiny",
        "hub/org/my___tiny",
    ],
)
def test_every_layout_of_modelscopes_cache_is_found(place: str) -> None:
    folder = put(places.modelscope_cache() / place)
    assert catalog.find("org/my.tiny") == folder
    assert [(found.name, found.source) for found in catalog.on_this_machine()] == [
        ("org/my.tiny", "modelscope")
    ]


def test_our_folder_comes_first_and_needs_no_organisation() -> None:
    put(in_hub_cache())
    mine, other = put(places.ours() / NAME), put(places.ours() / "my-own")
    assert catalog.find(NAME) == mine
    assert {found.folder for found in catalog.on_this_machine()} == {mine, other, in_hub_cache()}


def test_every_model_that_is_found_can_be_named() -> None:
    put(places.ours() / "my-own")
    put(places.hub_cache() / "models--gpt2" / "snapshots" / ("a" * 40))
    for place in catalog.on_this_machine():
        assert catalog.find(place.name) == place.folder


def test_capitals_make_no_other_model() -> None:
    folder = put(in_hub_cache("Org/Tiny-Chat"))
    assert catalog.find("org/tiny-chat") == folder
    other = put(in_hub_cache("org/tiny-chat"))
    assert catalog.find("org/tiny-chat") == other
    assert catalog.find("Org/Tiny-Chat") == folder


def test_bytes_are_those_of_the_files() -> None:
    put(in_hub_cache())
    (found,) = catalog.on_this_machine()
    assert found.bytes == sum(map(len, tiny_checkpoint(100).values()))


# --- what a name means ---------------------------------------------------------------------------


def test_a_known_model_is_found_by_its_short_name() -> None:
    folder = put(in_hub_cache("Qwen/Qwen-7B-Chat-Int8"))
    for name in ("Qwen/Qwen-7B-Chat-Int8", "qwen-7b-chat-int8", "7b-int8", "QWEN-7B-CHAT-INT8"):
        assert catalog.find(name) == catalog.locate(name) == folder


def test_a_folder_and_a_gguf_file_stand_for_themselves(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    assert catalog.find(tmp_path) == tmp_path
    assert catalog.find(str(file)) == file
    (tmp_path / "note.txt").write_text("")
    assert catalog.find(str(tmp_path / "note.txt")) is None


def test_the_built_in_model_that_is_not_here_is_fetched_not_guessed_at() -> None:
    error = catalog.not_found(catalog.DEMO)
    assert error.message == "demo is not downloaded"
    assert error.hint == "qwenchat models pull demo downloads it"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 5000,
        "a\0b",
        "~nobody-of-that-name/x",
        "../x/y",
        "org/--x",
        "a/b/c",
        "org/tiny.",
        "org/tiny-",
        "org/tiny.git",
        "org/" + "x" * 97,
    ],
)
def test_what_is_no_name_is_not_found(name: str) -> None:
    assert catalog.find(name) is None
    assert catalog.full_name(name) is None


def test_the_way_to_get_a_model_is_told() -> None:
    with pytest.raises(ModelNotFoundError) as error:
        catalog.check("qwen-7b-chat-int8")
    assert error.value.message == "Qwen/Qwen-7B-Chat-Int8 is not downloaded"
    assert error.value.hint == "qwenchat models pull Qwen/Qwen-7B-Chat-Int8 downloads it"
    with pytest.raises(ModelNotFoundError, match="did you mean Qwen/Qwen-7B-Chat-Int8"):
        catalog.check("qwen-7b-chat-int9")
    catalog.check("auto")
    catalog.check("demo")


def test_a_record_holds_what_was_pulled_and_moves_with_no_other_folder(tmp_path: Path) -> None:
    folder = in_hub_cache()
    kept = record(folder, ended="2025-01-01T00:00:00+00:00")
    assert records.read(folder) == kept
    assert records.read(tmp_path) is None
    (path,) = (places.ours().parent / "pulls").glob("*.json")
    assert json.loads(path.read_text())["files"] == [
        {"name": "config.json", "size": 2, "digest": "git:" + "0" * 40}
    ]
    records.forget(kept)
    assert records.read(folder) is None


def test_how_a_checkpoint_is_quantised_is_told_in_both_languages(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq", "bits": 8}}')
    found = about.of(tmp_path).quantization
    assert found == "gptq, 8 bits"
    language.use("zh")
    try:
        assert translated(found) == "gptq，8 位"
    finally:
        language.use("en")
