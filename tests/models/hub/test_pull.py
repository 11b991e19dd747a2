"""Pulling a model with the real client from a small Hub: what is fetched, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import logging
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.errors import DownloadError, ModelNotFoundError
from qwenchat.models import catalog, places, records
from qwenchat.models.hub import answers
from qwenchat.models.hub import client as hub_module
from qwenchat.models.hub import pull as pull_module
from qwenchat.models.hub.pull import pull
from tests.models.hub_fixture import CHUNK, NAME, UNWANTED, WANTED, hub, tiny_checkpoint
from tests.models.hub_server import COMMIT, HubServer, Repository, serving, sha256

__all__ = ["hub"]

# The client leaves connections that broke to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SHARD = "model-00001-of-00002.safetensors"


def test_a_pulled_model_is_found_whole_in_the_hubs_own_cache(hub: HubServer) -> None:
    assert catalog.find(NAME) is None
    record = pull(NAME)
    folder = places.hub_cache() / "models--org--tiny" / "snapshots" / hub.repositories[NAME].commit
    assert catalog.find(NAME) == record.folder == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: tiny_checkpoint()[name] for name in WANTED
    }
    assert record.ended
    assert records.read(folder) == record
    assert (folder.parents[1] / "refs" / "main").read_text() == record.revision


def test_other_programs_find_it_without_a_network(hub: HubServer) -> None:
    from huggingface_hub import try_to_load_from_cache

    folder = pull(NAME).folder
    found = try_to_load_from_cache(NAME, "config.json", cache_dir=places.hub_cache())
    assert found == str(folder / "config.json")


def test_code_and_pickles_are_never_asked_for(hub: HubServer) -> None:
    pull(NAME)
    asked = " ".join(hub.requests)
    assert not [name for name in UNWANTED if name in asked]


@pytest.mark.parametrize(
    "name",
    ["../escape.json", "..%2Fescape.json", "sub/config.json", "/tmp/escape.json", ".hidden.json", "a\n.json"],
)
def test_a_file_that_is_not_plainly_in_the_folder_is_not_fetched(hub: HubServer, name: str) -> None:
    hub.repositories[NAME].files[name] = b"{}"
    folder = pull(NAME).folder
    assert {path.name for path in folder.iterdir()} == set(WANTED)


def test_what_is_whole_is_verified_and_not_fetched_again(hub: HubServer) -> None:
    pull(NAME)
    hub.requests.clear()
    pull(NAME)
    assert hub.requests == ["GET /api/models/org/tiny/revision/main"]


def test_a_pull_of_what_is_whole_takes_nothing_away_however_it_ends(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull(NAME).folder

    def interrupt(*_: object) -> None:
        assert catalog.find(NAME) == folder
        raise KeyboardInterrupt

    monkeypatch.setattr(pull_module, "_verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pull(NAME)
    assert catalog.find(NAME) == folder


def test_what_others_fetched_is_verified_and_recorded(hub: HubServer) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(NAME, cache_dir=places.hub_cache(), endpoint=hub.url, allow_patterns=list(WANTED))
    hub.requests.clear()
    assert records.read(pull(NAME).folder)
    assert hub.requests == ["GET /api/models/org/tiny/revision/main"]


def test_a_file_that_is_too_large_for_the_client_is_told(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 30_000)
    with pytest.raises(DownloadError, match="a file of org/tiny is too large"):
        pull(NAME)


def test_a_file_that_has_gone_bad_is_fetched_again(hub: HubServer) -> None:
    folder = pull(NAME).folder
    for name in ("config.json", SHARD):
        content = bytearray((folder / name).read_bytes())
        content[5] ^= 1
        (folder / name).write_bytes(content)
    pull(NAME)
    assert all((folder / name).read_bytes() == tiny_checkpoint()[name] for name in WANTED)


def test_progress_tells_the_bytes_of_all_files_and_never_goes_back(hub: HubServer) -> None:
    seen: list[tuple[str, int, int]] = []
    pull(NAME, progress=lambda *told: seen.append(told))
    fetched = [done for stage, done, _ in seen if stage == f"fetching {NAME}"]
    assert fetched == sorted(fetched)
    assert seen[0] == (f"looking for {NAME}", 0, 0)
    assert {total for _, _, total in seen[1:]} == {sum(len(tiny_checkpoint()[name]) for name in WANTED)}


def test_the_client_says_nothing_by_itself(hub: HubServer, capfd: pytest.CaptureFixture[str]) -> None:
    hub.drop_after = _once_each(lambda name: 2000)
    pull(NAME)
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.CRITICAL)


def test_what_is_offered_by_way_of_xet_comes_over_http_which_goes_on(hub: HubServer) -> None:
    hub.repositories[NAME].xet = True
    hub.drop_after = _once_each(lambda name: 9000 if name == SHARD else None)
    assert pull(NAME).ended
    assert not [request for request in hub.requests if "xet" in request]


@pytest.mark.parametrize("etag", ["W/0123", "a/b=="])
def test_what_sends_the_files_may_tag_them_as_it_likes(hub: HubServer, etag: str) -> None:
    hub.headers = {"ETag": f'"{etag}"'}
    assert pull(NAME).ended


def test_what_is_whole_is_not_written_to_for_the_cache_may_be_read_only(hub: HubServer) -> None:
    pull(NAME)

    def state() -> dict[Path, int]:
        return {path: path.lstat().st_mtime_ns for path in places.hub_cache().rglob("*")}

    before = state()
    assert pull(NAME).ended
    assert state() == before


def test_a_model_in_other_capitals_is_the_same_one(hub: HubServer) -> None:
    folder = pull("ORG/Tiny").folder
    assert folder.parents[1] == places.hub_folder(NAME)
    assert catalog.find("ORG/Tiny") == catalog.find(NAME) == folder


# --- interruptions -------------------------------------------------------------------------------


def _once_each(limit: Callable[[str], int | None]) -> Callable[[str], int | None]:
    """Drops the first transfer of each file."""
    dropped: set[str] = set()

    def drop(name: str) -> int | None:
        if name in dropped:
            return None
        dropped.add(name)
        return limit(name)

    return drop


def test_a_dropped_connection_is_taken_up_where_it_broke_within_one_pull(hub: HubServer) -> None:
    hub.drop_after = _once_each(lambda name: 9000 if name == SHARD else None)
    pull(NAME)
    assert catalog.find(NAME)
    total = sum(len(tiny_checkpoint()[name]) for name in WANTED)
    assert total <= hub.sent <= total + CHUNK


@pytest.mark.slow
def test_fifty_interrupted_pulls_end_with_the_same_hashes(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = hub.repositories[NAME].files = tiny_checkpoint(12_000)
    rng = random.Random(1)
    total = sum(len(files[name]) for name in WANTED)
    for number in range(50):
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / str(number)))
        left = rng.randrange(total)

        def drop(name: str) -> int | None:
            """Cuts the connection after so many bytes of all, and answers no more."""
            nonlocal left
            size = len(files[name])
            if left >= size:
                left -= size
                return None
            hub.status = 503
            return left

        hub.drop_after = drop
        with pytest.raises(DownloadError):
            pull(NAME)
        assert catalog.find(NAME) is None
        hub.drop_after, hub.status = lambda name: None, None
        folder = pull(NAME).folder
        assert catalog.find(NAME) == folder
        assert {name: sha256((folder / name).read_bytes()) for name in WANTED} == {
            name: sha256(files[name]) for name in WANTED
        }


def test_a_branch_that_moves_between_interrupted_pulls_leaves_no_mixture(hub: HubServer) -> None:
    repository = hub.repositories[NAME]
    first = pull(NAME).folder
    repository.commit, repository.files[SHARD] = "d" * 40, bytes(30_000)

    def cut(name: str) -> int | None:
        """Ends within the large file, and answers no more."""
        hub.status = 503 if name == SHARD else None
        return 9000 if name == SHARD else None

    hub.drop_after = cut
    with pytest.raises(DownloadError):
        pull(NAME)
    assert catalog.find(NAME) == first
    hub.drop_after, hub.status = lambda name: None, None
    repository.commit, repository.files[SHARD] = "e" * 40, b"3" * 20_000
    last = pull(NAME).folder
    assert catalog.find(NAME) == last
    assert (last / SHARD).read_bytes() == b"3" * 20_000
    assert (first / SHARD).read_bytes() == tiny_checkpoint()[SHARD]
    assert not places.missing(first)
    assert (places.hub_folder(NAME) / "refs" / "main").read_text() == "e" * 40


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.slow
def test_killed_pulls_are_never_taken_for_whole_and_end_with_the_same_hashes(
    hub: HubServer, tmp_path: Path
) -> None:
    import json
    import subprocess

    hub.pause = 0.001
    program = Path(__file__).with_name("killed_pulls.py")
    process = subprocess.run(
        [sys.executable, str(program), NAME, str(tmp_path / "caches"), "12"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    outcomes = json.loads(process.stdout)
    assert len(outcomes) == 12
    expected = {name: sha256(tiny_checkpoint()[name]) for name in WANTED}
    assert all(outcome["hashes"] == expected for outcome in outcomes)
    assert not [outcome for outcome in outcomes if outcome["found"] and not outcome["was_whole"]]
    assert sum(not outcome["found"] for outcome in outcomes) > 2


def test_a_partial_file_of_other_content_is_found_out(hub: HubServer) -> None:
    blobs = places.hub_folder(NAME) / "blobs"
    blobs.mkdir(parents=True)
    content = tiny_checkpoint()[SHARD]
    (blobs / f"{sha256(content)}.incomplete").write_bytes(b"x" * 7000)
    folder = pull(NAME).folder
    assert (folder / SHARD).read_bytes() == content


@pytest.mark.parametrize("size", [40_000, 50_000])
def test_a_partial_file_that_is_too_long_begins_anew(hub: HubServer, size: int) -> None:
    blobs = places.hub_folder(NAME) / "blobs"
    blobs.mkdir(parents=True)
    content = tiny_checkpoint()[SHARD]
    (blobs / f"{sha256(content)}.incomplete").write_bytes(b"x" * size)
    assert (pull(NAME).folder / SHARD).read_bytes() == content


def test_a_server_without_ranges_sends_it_all_again(hub: HubServer) -> None:
    hub.ignores_range = True
    hub.drop_after = _once_each(lambda name: 9000 if name == SHARD else None)
    assert (pull(NAME).folder / SHARD).read_bytes() == tiny_checkpoint()[SHARD]


def test_a_connection_that_always_drops_at_the_same_byte_ends_in_words(hub: HubServer) -> None:
    hub.drop_after = lambda name: 0 if name == SHARD else None
    with pytest.raises(DownloadError, match="the connection was lost; the same command goes on") as error:
        pull(NAME)
    assert error.value.exit_code == 3
    assert catalog.find(NAME) is None


# --- what a server may say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "only to those who have signed in; accept its terms on .*/org/tiny, then set HF_TOKEN"),
        (403, {}, "only to those who have signed in"),
        (401, {"X_Error_Code": "GatedRepo"}, "only to those who have signed in"),
        (404, {}, "has no model org/tiny"),
        (
            404,
            {"X_Error_Code": "RepoNotFound"},
            "has no model org/tiny, or does not show it; look at the spelling",
        ),
        (404, {"X_Error_Code": "RevisionNotFound"}, "org/tiny has no revision main"),
        (429, {}, "too many requests from here; try again in some minutes; a token in HF_TOKEN allows more"),
        (429, {"Retry_After": "17"}, "try again in 17 s"),
        (500, {}, "answers with error 500; try again later"),
        (503, {}, "answers with error 503"),
    ],
)
@pytest.mark.parametrize("when", ["at once", "after the listing"])
def test_an_error_is_told_in_words(
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    words: str,
    when: str,
) -> None:
    if when == "at once":
        hub.status, hub.headers = status, headers
    else:
        listing = hub_module.Hub.listing

        def then_fail(*arguments: Any) -> hub_module.Listing:
            found = listing(*arguments)
            hub.status, hub.headers = status, headers
            return found

        monkeypatch.setattr(hub_module.Hub, "listing", then_fail)
    with pytest.raises(DownloadError, match=words) as error:
        pull(NAME)
    assert error.value.exit_code == 3
    assert catalog.find(NAME) is None


def test_a_gated_model_comes_with_the_right_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].gated = "right"
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(DownloadError, match="does not give org/tiny to the owner of this token"):
        pull(NAME)
    monkeypatch.setenv("HF_TOKEN", "right")
    assert pull(NAME).ended


def test_a_revision_that_is_not_there_is_named(hub: HubServer) -> None:
    with pytest.raises(DownloadError, match="org/tiny has no revision v9; --revision takes a branch"):
        pull(NAME, revision="v9")


def test_a_revision_by_its_commit_leaves_main_alone(hub: HubServer) -> None:
    commit = hub.repositories[NAME].commit
    assert pull(NAME, revision=commit).revision == commit
    assert not (places.hub_folder(NAME) / "refs").exists()
    assert catalog.find(NAME)


def test_without_an_answer_the_reason_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(DownloadError, match="cannot be reached: the connection is refused; HF_ENDPOINT"):
            pull(NAME, source="hub")
        assert hub_module.reachable() == "the connection is refused"


def test_a_server_that_keeps_silent_is_not_waited_for(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_TIMEOUT", 0.05)
    monkeypatch.setattr(hub_module, "_REACHABLE_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DownloadError, match="cannot be reached: there was no answer in time"):
            pull(NAME, source="hub")
        assert hub_module.reachable() == "there was no answer in time"


def test_an_unknown_host_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    with pytest.raises(DownloadError, match=r"hub\.invalid cannot be reached: unknown host"):
        pull(NAME, source="hub")
    assert hub_module.reachable() == "unknown host"


def test_a_hub_that_answers_is_reachable(hub: HubServer) -> None:
    assert hub_module.reachable() is None
    hub.status = 502
    assert hub_module.reachable() == "it answers with error 502"


def test_offline_means_that_nothing_is_asked(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        pull(NAME)
    assert hub_module.reachable() == "HF_HUB_OFFLINE is set"
    assert hub.requests == []


def test_what_does_not_answer_as_a_hub_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/{NAME}/resolve/main/config.json?")
    with pytest.raises(DownloadError, match="does not answer as the Hub does; look at HF_ENDPOINT"):
        pull(NAME)


def test_an_etag_never_names_a_file_outside_of_the_cache(hub: HubServer, tmp_path: Path) -> None:
    for etag in ("../../../../escaped", f"{tmp_path}/escaped"):
        hub.repositories[NAME].etags = {"config.json": etag, SHARD: etag}
        with pytest.raises(DownloadError, match="does not answer as the Hub does"):
            pull(NAME)
    outside = {path for path in tmp_path.rglob("*") if "escaped" in path.name}
    assert outside == set()


def test_pickles_alone_are_refused_with_the_reason(hub: HubServer) -> None:
    files = hub.repositories[NAME].files
    for name in [name for name in files if name.endswith(".safetensors")]:
        del files[name]
    with pytest.raises(DownloadError, match="only as pickles, which can run code while they are read"):
        pull(NAME)
    assert len(hub.requests) == 1


def ggufs(hub: HubServer, *names: str, size: int = 30_000) -> dict[str, bytes]:
    """Publishes GGUF files of these names and what lies beside them, under org/tiny."""
    content = {name: random.Random(name).randbytes(size) for name in names}
    beside = {"README.md": b"# tiny", "LICENSE": b"Apache", "mmproj-f16.gguf": b"GGUF", "imatrix.dat": b"x"}
    hub.repositories[NAME].files = {**beside, **content}
    return content


def test_the_gguf_files_of_one_kind_are_pulled_and_found_by_it(hub: HubServer) -> None:
    files = ggufs(hub, "tiny-q4_k_m.gguf", "tiny-q8_0.gguf", "tiny-fp16.gguf")
    assert catalog.find(f"{NAME}:Q4_K_M") is None
    record = pull(f"{NAME}:q4_k_m")
    assert record.name == f"{NAME}:Q4_K_M"
    assert record.folder.name == "tiny-q4_k_m.gguf"
    assert {path.name for path in record.folder.parent.iterdir()} == {
        "README.md",
        "LICENSE",
        "tiny-q4_k_m.gguf",
    }
    assert record.folder.read_bytes() == files["tiny-q4_k_m.gguf"]
    # By its kind in any case, by the files' name, and as long as it is the only one, by the repository's.
    for name in (f"{NAME}:Q4_K_M", f"{NAME}:q4_k_m", "ORG/Tiny:q4_k_m", f"{NAME}:tiny-q4_k_m", NAME):
        assert catalog.find(name) == record.folder
    assert [place.name for place in catalog.on_this_machine()] == [record.name]
    pull(f"{NAME}:F16")  # as other programs call it
    assert sorted(p.name for p in catalog.on_this_machine()) == [f"{NAME}:FP16", f"{NAME}:Q4_K_M"]
    assert catalog.find(NAME) is None
    with pytest.raises(ModelNotFoundError, match=f"{NAME} is here as {NAME}:FP16, {NAME}:Q4_K_M"):
        catalog.check(NAME)


def test_the_parts_of_a_gguf_file_come_together(hub: HubServer) -> None:
    parts = [f"tiny-q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    files = ggufs(hub, *parts, "tiny-q4_0.gguf")
    first = pull(f"{NAME}:Q8_0").folder
    assert first.name == parts[0]
    assert [first.with_name(part).read_bytes() for part in parts] == [files[part] for part in parts]
    place = catalog.place_of(f"{NAME}:Q8_0")
    assert place is not None
    assert place.bytes == sum(len(files[part]) for part in parts)
    first.with_name(parts[1]).unlink()
    assert catalog.find(f"{NAME}:Q8_0") is None
    pull(f"{NAME}:Q8_0")
    assert catalog.find(f"{NAME}:Q8_0") == first


def test_a_pull_of_a_gguf_file_goes_on_where_it_was_cut(hub: HubServer) -> None:
    files = ggufs(hub, "tiny-q4_0.gguf", "tiny-q8_0.gguf", size=10 * CHUNK)
    cuts = iter([4 * CHUNK])
    hub.drop_after = lambda name: next(cuts, 0) if name.endswith(".gguf") else None
    with pytest.raises(DownloadError) as caught:
        pull(f"{NAME}:Q4_0")
    assert "goes on where it stopped" in caught.value.hint
    assert catalog.find(f"{NAME}:Q4_0") is None
    hub.drop_after, hub.sent = lambda name: None, 0
    record = pull(f"{NAME}:Q4_0")
    assert record.folder.read_bytes() == files["tiny-q4_0.gguf"]
    assert hub.sent <= 7 * CHUNK


def test_a_gguf_file_that_comes_bad_twice_is_not_kept(hub: HubServer) -> None:
    ggufs(hub, "tiny-q4_0.gguf")
    hub.repositories[NAME].sent["tiny-q4_0.gguf"] = b"x" * 30_000
    with pytest.raises(DownloadError, match="its content is not what was published"):
        pull(f"{NAME}:Q4_0")
    assert catalog.find(f"{NAME}:Q4_0") is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (NAME, "org/tiny has Q4_K_M (10.0 kB), Q8_0 (20.0 kB)"),
        (f"{NAME}:Q5_K_M", "org/tiny has no Q5_K_M, but Q4_K_M (10.0 kB), Q8_0 (20.0 kB)"),
        (f"{NAME}:../x", "org/tiny has no ../x, but Q4_K_M (10.0 kB), Q8_0 (20.0 kB)"),
    ],
)
def test_where_no_kind_or_none_that_there_is_was_named_those_that_there_are_are_told(
    hub: HubServer, asked: str, said: str
) -> None:
    ggufs(
        hub, "tiny-q8_0-00001-of-00002.gguf", "tiny-q8_0-00002-of-00002.gguf", "tiny-q4_k_m.gguf", size=10_000
    )
    with pytest.raises(DownloadError) as caught:
        pull(asked)
    assert caught.value.message == said
    assert caught.value.hint == "qwenchat models pull org/tiny:Q4_K_M fetches one"
    assert not any("/resolve/" in request for request in hub.requests)


def test_the_only_gguf_file_of_a_repository_needs_no_kind(hub: HubServer) -> None:
    ggufs(hub, "tiny.gguf")
    assert pull(NAME).name == f"{NAME}:tiny"
    assert pull(f"{NAME}:tiny").name == f"{NAME}:tiny"
    assert catalog.find(NAME) == catalog.find(f"{NAME}:tiny")


def test_a_repository_that_lacks_a_part_is_refused_before_anything_is_fetched(hub: HubServer) -> None:
    ggufs(hub, "tiny-q8_0-00001-of-00002.gguf", "tiny-q4_k_m.gguf")
    with pytest.raises(DownloadError, match=r"lacks tiny-q8_0-00002-of-00002\.gguf"):
        pull(f"{NAME}:Q8_0")
    assert not any("/resolve/" in request for request in hub.requests)


def test_safetensors_come_before_gguf_files_unless_a_kind_is_named(hub: HubServer) -> None:
    hub.repositories[NAME].files["tiny-q8_0.gguf"] = b"GGUF"
    whole, file = pull(NAME), pull(f"{NAME}:Q8_0")
    assert catalog.find(NAME) == whole.folder == file.folder.parent
    assert catalog.find(f"{NAME}:Q8_0") == file.folder
    with pytest.raises(DownloadError, match="has no Q4_0"):
        pull(f"{NAME}:Q4_0")


def test_a_gguf_file_that_is_here_needs_no_network(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ggufs(hub, "tiny-q8_0.gguf", "tiny-q4_0.gguf")
    folder = pull(f"{NAME}:Q8_0").folder
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said: list[str] = []
    for name in (f"{NAME}:Q8_0", NAME):
        assert pull(name, source="hub", notice=said.append).folder == folder
    assert all(line.endswith("what is here is complete") for line in said)


def test_gguf_files_come_from_modelscope_too(hub: HubServer) -> None:
    pytest.importorskip("modelscope_hub")
    files = ggufs(hub, "tiny-q8_0.gguf", "tiny-q4_0.gguf")
    record = pull(f"{NAME}:Q8_0", source="modelscope")
    assert record.folder.read_bytes() == files["tiny-q8_0.gguf"]
    place = catalog.place_of(f"{NAME}:Q8_0")
    assert place is not None
    assert (place.source, place.folder) == ("modelscope", record.folder)


def test_weights_without_a_vocabulary_are_no_checkpoint(hub: HubServer) -> None:
    del hub.repositories[NAME].files["qwen.tiktoken"]
    with pytest.raises(DownloadError, match=r"org/tiny lacks \*\.tiktoken"):
        pull(NAME)
    assert catalog.find(NAME) is None


@pytest.mark.parametrize(
    "told",
    [{"lfs": {"sha256": "../../x", "size": 40_000, "pointerSize": 1}}, {"lfs": None, "blobId": None}],
)
def test_a_file_without_a_hash_is_refused(hub: HubServer, told: dict[str, Any]) -> None:
    hub.repositories[NAME].listed = {SHARD: told}
    with pytest.raises(DownloadError, match=f"no hash of {SHARD} is told"):
        pull(NAME)


@pytest.mark.parametrize("size", [10**400, "x", -5, float("inf"), [1]])
def test_a_size_that_none_can_be_is_not_believed(hub: HubServer, size: object) -> None:
    hub.repositories[NAME].listed = {"config.json": {"size": size}}
    with pytest.raises(DownloadError, match="does not answer as the Hub does"):
        pull(NAME)


@pytest.mark.parametrize("etag", ["..", ".", "../x"])
def test_an_etag_names_no_folder(hub: HubServer, etag: str) -> None:
    hub.repositories[NAME].etags = {"config.json": etag}
    with pytest.raises(DownloadError, match="does not answer as the Hub does"):
        pull(NAME)


def test_a_token_goes_to_no_other_host(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with serving(HubServer(dict(hub.repositories))) as other:
        hub.files_at = other.url
        assert pull(NAME).ended
        assert other.sent
        assert other.with_token == []
    assert hub.with_token


def test_a_token_that_cannot_be_sent_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "令牌")
    with pytest.raises(DownloadError, match="the token cannot be sent; look at HF_TOKEN"):
        pull(NAME)


@pytest.mark.parametrize("path", ["/api/models", "config.json", SHARD])
def test_an_answer_without_an_end_is_cut(hub: HubServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_LONGEST", 200_000)
    hub.endless = path
    with pytest.raises(DownloadError, match="does not answer as the Hub does"):
        pull(NAME)
    assert catalog.find(NAME) is None
    kept = [path.stat().st_size for path in places.hub_cache().rglob("*") if path.is_file()]
    assert max(kept, default=0) <= 200_000
    hub.endless = ""
    assert pull(NAME).ended


@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_a_listing_of_more_values_than_any_has_is_cut(
    hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "modelscope":
        pytest.importorskip("modelscope_hub")
    monkeypatch.setattr(answers, "_MOST_VALUES", 20)
    with pytest.raises(DownloadError, match="does not answer as"):
        pull(NAME, source=source)


@pytest.mark.parametrize("is_body", [False, True], ids=["head", "body"])
@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_a_listing_that_comes_a_byte_at_a_time_is_not_waited_for(
    hub: HubServer, source: str, is_body: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "modelscope":
        pytest.importorskip("modelscope_hub")
    monkeypatch.setattr(answers, "LISTING_SECONDS", 0.3)
    hub.drips, hub.drips_body = "/api/", is_body
    with pytest.raises(DownloadError, match="cannot be reached: there was no answer in time"):
        pull(NAME, source=source)


def test_the_head_of_a_file_that_comes_a_byte_at_a_time_is_not_waited_for(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "HEADER_SECONDS", 0.3)
    hub.drips = "config.json"
    with pytest.raises(DownloadError, match="cannot be reached: there was no answer in time"):
        pull(NAME, source="hub")


# --- without a network ---------------------------------------------------------------------------


@pytest.fixture(params=["offline", "unreachable"])
def no_network(request: pytest.FixtureRequest) -> Callable[[pytest.MonkeyPatch], None]:
    """Ends the network for what follows."""

    def end(monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "offline":
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")

    return end


@pytest.mark.parametrize("is_ours", [True, False], ids=["pulled here", "by another program"])
@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_what_is_whole_needs_no_network(
    hub: HubServer,
    is_ours: bool,
    revision: str | None,
    no_network: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = pull(NAME).folder
    if not is_ours:
        for record in list(records.everything()):
            records.forget(record)
    no_network(monkeypatch)
    said: list[str] = []
    assert pull(NAME, revision=revision, notice=said.append).folder == folder
    assert len(said) == 1
    assert said[0].endswith("what is here is complete")


@pytest.mark.parametrize("spoil", ["cut", "missing", "another revision"])
def test_what_is_not_whole_needs_a_network(
    hub: HubServer,
    spoil: str,
    no_network: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = pull(NAME).folder
    if spoil == "cut":
        (folder / SHARD).resolve().write_bytes(b"cut")
    elif spoil == "missing":
        (folder / SHARD).unlink()
    no_network(monkeypatch)
    with pytest.raises(DownloadError, match=r"cannot be reached|nothing is fetched"):
        pull(NAME, revision="v2" if spoil == "another revision" else None, source="hub")


# --- lies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_other_content_of_the_same_size_does_not_verify(hub: HubServer, name: str) -> None:
    repository: Repository = hub.repositories[NAME]
    repository.sent[name] = bytes(len(repository.files[name]))
    with pytest.raises(DownloadError, match=f"{name} did not verify: its content is not what was published"):
        pull(NAME)
    assert catalog.find(NAME) is None
    assert not (places.hub_folder(NAME) / "snapshots" / repository.commit / name).exists()
    repository.sent.clear()
    assert pull(NAME).ended


def test_bad_content_under_a_name_of_the_servers_is_not_kept(hub: HubServer) -> None:
    repository = hub.repositories[NAME]
    repository.etags = {SHARD: "v1"}
    repository.sent[SHARD] = bytes(40_000)
    with pytest.raises(DownloadError, match="did not verify"):
        pull(NAME)
    repository.sent.clear()
    assert (pull(NAME).folder / SHARD).read_bytes() == tiny_checkpoint()[SHARD]


@pytest.mark.parametrize("announced", [39_000, 45_000])
def test_a_length_that_is_not_true_is_never_taken_for_whole(hub: HubServer, announced: int) -> None:
    hub.repositories[NAME].announced = {SHARD: announced}
    with pytest.raises(DownloadError) as error:
        pull(NAME)
    assert error.value.exit_code == 3
    assert catalog.find(NAME) is None
    hub.repositories[NAME].announced.clear()
    assert (pull(NAME).folder / SHARD).read_bytes() == tiny_checkpoint()[SHARD]


@pytest.mark.parametrize("content", [b"", b"x" * 30_000, b"x" * 60_000])
def test_a_body_of_another_length_is_never_taken_for_whole(hub: HubServer, content: bytes) -> None:
    hub.repositories[NAME].sent = {SHARD: content}
    with pytest.raises(DownloadError):
        pull(NAME)
    assert catalog.find(NAME) is None


def test_a_listing_with_another_size_does_not_verify(hub: HubServer) -> None:
    lfs = {"sha256": sha256(tiny_checkpoint()[SHARD]), "size": 41_000, "pointerSize": 1}
    hub.repositories[NAME].listed = {SHARD: {"size": 41_000, "lfs": lfs}}
    with pytest.raises(DownloadError, match="it has 40000 bytes, expected 41000"):
        pull(NAME)
    assert catalog.find(NAME) is None


# --- the disk ------------------------------------------------------------------------------------


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "SPARE", 10**18)
    with pytest.raises(
        DownloadError, match=r"org/tiny takes 63\.. kB more, .* free, of which .* stay free; free some"
    ):
        pull(NAME)
    assert len(hub.requests) == 1


def test_a_disk_that_fills_up_on_the_way_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name.startswith(sha256(tiny_checkpoint()[SHARD])):
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DownloadError, match="is full; free some, or name another place with HF_HOME"):
        pull(NAME)
    assert catalog.find(NAME) is None
    monkeypatch.undo()


def test_a_cache_that_cannot_be_written_is_told(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(
        DownloadError, match="cannot be written: Not a directory; HF_HOME names another place"
    ):
        pull(NAME)


# --- ModelScope ----------------------------------------------------------------------------------


def test_modelscope_is_a_source_too(hub: HubServer) -> None:
    pytest.importorskip("modelscope_hub")
    record = pull(NAME, source="modelscope")
    assert record.source == "modelscope"
    assert catalog.find(NAME) == record.folder == places.modelscope_folder(NAME, "master")
    assert {path.name for path in record.folder.iterdir()} == set(WANTED)


def test_where_the_hub_cannot_be_reached_modelscope_is_tried_and_that_is_said(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("modelscope_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said: list[str] = []
    assert pull(NAME, notice=said.append).source == "modelscope"
    assert said == ["127.0.0.1:9 cannot be reached: the connection is refused; trying ModelScope"]


def test_without_its_client_the_command_that_installs_it_is_told(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"not installed; pip install 'modelscope-hub<0\.6' installs it"):
        pull(NAME, source="modelscope")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DownloadError,
        match=r"127\.0\.0\.1:9 cannot be reached: .*; HF_ENDPOINT names a mirror; .*modelscope-hub",
    ):
        pull(NAME)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "ModelScope has no model"), (401, "signed in"), (500, "ModelScope does not give org/tiny")],
)
def test_modelscopes_errors_are_told_in_words(
    hub: HubServer, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("modelscope_hub")
    monkeypatch.setattr("modelscope_hub._legacy_api.time.sleep", lambda seconds: None)
    hub.status = status
    with pytest.raises(DownloadError, match=words):
        pull(NAME, source="modelscope")


@pytest.mark.parametrize("size", [10**400, "x", -5, [1]])
def test_a_size_that_none_can_be_is_not_believed_of_modelscope_either(hub: HubServer, size: object) -> None:
    pytest.importorskip("modelscope_hub")
    hub.repositories[NAME].listed = {"config.json": {"Size": size}}
    with pytest.raises(DownloadError, match="ModelScope does not give org/tiny"):
        pull(NAME, source="modelscope")


def test_a_pull_from_modelscope_that_broke_goes_on(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("modelscope_hub._download")
    monkeypatch.setattr(client, "DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.0)
    hub.repositories[NAME].sent[SHARD] = bytes(40_000)
    with pytest.raises(DownloadError):
        pull(NAME, source="modelscope")
    assert catalog.find(NAME) is None
    hub.repositories[NAME].sent.clear()
    hub.requests.clear()
    assert pull(NAME, source="modelscope").ended
    assert not [request for request in hub.requests if "config.json" in request]
