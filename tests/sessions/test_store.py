"""Sessions: what is saved can be read again, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, Timings, Usage
from qwenchat.errors import (
    SessionDamagedError,
    SessionError,
    SessionLockedError,
    SessionNotFoundError,
    UsageError,
)
from qwenchat.files import atomic, locks
from qwenchat.i18n import language
from qwenchat.i18n.language import told, tr
from qwenchat.sessions import format as session_file
from qwenchat.sessions import listing
from qwenchat.sessions.store import Session, SessionStore
from tests.chats import replied, user
from tests.disk import Disk
from tests.places import ROOT

NOW = "2025-01-01T00:00:00+00:00"
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and folder descriptors are POSIX's")


@pytest.fixture
def notices() -> list[str]:
    """What the store has told."""
    return []


@pytest.fixture
def store(tmp_path: Path, notices: list[str]) -> SessionStore:
    return SessionStore(tmp_path / "data" / "sessions", notices.append)


def chat(store: SessionStore, *questions: str) -> Session:
    session = store.create(
        Conversation("be brief"), model="qwen", settings={"temperature": 0.7, "stop": ["\n"]}
    )
    for question in questions:
        add_turn(session, question)
    return session


def add_turn(session: Session, question: str) -> None:
    session.conversation.ask(user(question), NOW)
    options, usage, timings = GenerationOptions(0.7, stop=("x",)), Usage(9, 3, 2), Timings(0.1, 0.2, 0.3)
    reply = replied(question.upper(), "complete", (7, 8), "qwen", 42, options, usage, timings)
    session.conversation.reply(*reply, NOW)


def saved(store: SessionStore, *questions: str) -> str:
    with chat(store, *questions) as session:
        session.save()
        return session.id


def texts(store: SessionStore, session_id: str) -> list[str]:
    with store.open(session_id, on_locked="refuse") as session:
        return [node.text for node in session.conversation.path()]


def temporaries(store: SessionStore) -> list[Path]:
    return list(store.folder.glob("*.tmp"))


# --- a session comes back as it was --------------------------------------------------------------


def test_a_session_comes_back_as_it_was(store: SessionStore, notices: list[str]) -> None:
    session = chat(store, "你好 \ud800 <|im_end|>", "b")
    session.conversation.retry()
    session.conversation.reply(*replied("half", "length", (1,)), NOW)
    session.conversation.branch("other")
    session.conversation.pin(1)
    session.conversation.previous_sibling()
    session.save()
    session.close()
    with store.open(session.id) as again:
        assert again.conversation == session.conversation
        assert again.record() == session.record()
        assert not again.read_only and not notices


def test_the_file_reads_well(store: SessionStore) -> None:
    with chat(store, "你好") as session:
        session.save()
    text = session.path.read_text(encoding="utf-8")
    assert '\n  "title": "你好",\n' in text
    assert '\n          "token_ids": [7, 8]\n' in text
    content = json.loads(text)
    assert content["schema"] == 2
    assert list(content)[1:7] == ["id", "title", "model", "created", "updated", "turns"]


def test_a_reply_that_was_still_being_made_counts_as_interrupted(store: SessionStore) -> None:
    with chat(store) as session:
        session.conversation.ask(user("a"), NOW)
        session.conversation.reply(*replied("half", "streaming", (5,)), NOW)
        session.save()
    with store.open(session.id) as again:
        reply = again.conversation.path()[-1]
        assert reply.record is not None
        assert (reply.text, reply.record.status, reply.message.token_ids) == ("half", "interrupted", (5,))


def test_nothing_is_on_the_disk_before_the_first_save(store: SessionStore) -> None:
    chat(store, "a")
    assert store.list() == [] and store.latest()[0] is None
    assert not store.folder.exists()


def test_the_title_is_the_beginning_of_the_first_question(store: SessionStore) -> None:
    with chat(store, "\n  What is \t a monad?\nIn short.", "b") as session:
        session.save()
        assert session.title == "What is a monad?"
        session.rename("  Monads \n again ")
        session.save()
        with pytest.raises(UsageError):
            session.rename(" ")
    assert store.find("monads again").title == "Monads again"
    with chat(store, "x" * 100) as session:
        session.save()
        assert session.title == "x" * 59 + "…"


# --- finding -------------------------------------------------------------------------------------


def test_sessions_are_found_by_id_title_and_the_beginning_of_either(store: SessionStore) -> None:
    first, second = saved(store, "apples"), saved(store, "pears")
    for name in (first, first[:11], "Apples", "app"):
        assert store.find(name).id == first
    assert store.find("pears").id == second
    for name in ("", "plums", "../sessions", f"../{first}"):
        with pytest.raises(SessionNotFoundError, match="no session"):
            store.find(name)


def test_a_name_that_several_answer_to_is_not_guessed(store: SessionStore) -> None:
    ids = {saved(store, "same"), saved(store, "same")}
    with pytest.raises(SessionNotFoundError, match="2 sessions match") as error:
        store.open("same")
    assert all(session_id in str(error.value) for session_id in ids)


def test_an_empty_name_is_not_that_of_the_only_session(store: SessionStore) -> None:
    with chat(store) as session:
        session.save()
    with pytest.raises(SessionNotFoundError):
        store.delete("")
    assert len(store.list()) == 1


def test_latest_is_a_name_unless_a_session_is_called_so(store: SessionStore) -> None:
    with pytest.raises(SessionNotFoundError, match="none was saved yet"):
        store.find("latest")
    saved(store, "latest news")
    newest = saved(store, "b")
    assert store.find("latest").id == store.find("LATEST").id == newest
    store.path_of(saved(store, "damaged")).write_bytes(b"{")
    assert store.find("latest").id == newest
    called_so = saved(store, "Latest")
    saved(store, "c")
    assert store.find("latest").id == called_so


def test_the_list_is_newest_first(store: SessionStore) -> None:
    first, second = saved(store, "a"), saved(store, "b")
    assert [info.id for info in store.list()] == [second, first]
    with store.open(first) as session:
        session.save()
    latest, _ = store.latest()
    assert latest is not None and latest.id == first
    assert (latest.title, latest.head.model, latest.head.turns) == ("a", "qwen", 1)


def read_files(store: SessionStore, monkeypatch: pytest.MonkeyPatch, look: Callable[[], object]) -> int:
    """How many files are read for it."""
    read, count = listing.read_file, 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        return read(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(listing, "read_file", counted)
        look()
    return count


def test_the_latest_is_found_without_reading_every_file(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [store.path_of(saved(store, f"number {i}")) for i in range(20)]
    long_ago = time.time() - 1000
    monkeypatch.setattr(listing, "_changed", lambda entry: entry.stat().st_mtime)
    for i, path in enumerate(paths[:-1]):
        os.utime(path, (long_ago + i, long_ago + i))
    assert read_files(store, monkeypatch, store.list) == 20
    assert read_files(store, monkeypatch, store.latest) == 1


@posix
def test_the_latest_is_that_of_the_list_whatever_the_times_of_the_files(store: SessionStore) -> None:
    paths = [store.path_of(saved(store, f"number {i}")) for i in range(12)]
    store.path_of(saved(store, "damaged")).write_bytes(b"{")
    rng = random.Random(5)
    for _ in range(30):
        path = rng.choice(paths)
        os.utime(path, (rng.choice([0, -9e9, 1e9, 9e12, time.time()]),) * 2)
        if rng.random() < 0.2:
            with store.open(path.stem) as session:
                session.save()
        latest, _ = store.latest()
        assert latest == next(info for info in store.list() if not info.problem)


@pytest.mark.parametrize("seconds", [9e15, -9e15])
def test_a_damaged_file_of_no_year_is_listed(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    store.path_of(saved(store, "a")).write_bytes(b"{")
    monkeypatch.setattr(Path, "lstat", lambda path: SimpleNamespace(st_mtime=seconds))
    assert store.list()[0].problem and store.latest()[0] is None


def test_a_list_needs_only_the_head_of_a_file(store: SessionStore) -> None:
    with chat(store, "long " * 10_000) as session:
        session.save()
    head = session_file.decode_head(session.path.read_bytes()[: session_file.HEAD_BYTES])
    assert head == store.list()[0].head


@pytest.mark.parametrize("needle", ["HEU", "straße", "你", '"quoted"', "back\\slash", "ß"])
def test_search_finds_text_in_any_case(store: SessionStore, needle: str) -> None:
    question = 'im Heuhaufen an der STRASSE 你好 "quoted" back\\slash ' + "z" * 100
    session_id = saved(store, "something else", question)
    saved(store, "nothing of the kind")
    hits = store.search(needle)
    assert [(hit.info.id, hit.node_id) for hit in hits] == [(session_id, 3)]
    assert "\n" not in hits[0].excerpt and len(hits[0].excerpt) < 120


def test_search_looks_at_what_was_said_and_at_titles_alone(store: SessionStore) -> None:
    with chat(store, "a") as session:
        session.rename("Needle")
        session.save()
    assert [hit.node_id for hit in store.search("needle")] == [None]
    for nothing in ("", "token_ids", "qwen", "temperature"):
        assert store.search(nothing) == []


def test_search_reads_files_that_a_person_laid_out(store: SessionStore) -> None:
    session_id = saved(store, "你好")
    path = store.path_of(session_id)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="ascii")
    assert [hit.node_id for hit in store.search("你")] == [1]
    assert store.list()[0].title == "你好"


# --- changing ------------------------------------------------------------------------------------


def test_rename_fork_and_delete(store: SessionStore) -> None:
    session_id = saved(store, "a")
    assert store.rename(session_id, "b").title == "b"
    with store.fork("b") as copy:
        assert copy.id != session_id and copy.title == "b (fork)"
        add_turn(copy, "c")
        copy.save()
    assert texts(store, session_id) == ["a", "A"]
    with store.fork(session_id, title="by\nname") as named:
        assert (named.title, store.record(named.id).head.title) == ("by name", "by name")
    store.delete(named.id)
    assert store.delete(session_id).title == "b"
    assert [info.id for info in store.list()] == [copy.id]
    assert [lock.stem for lock in (store.folder / "locks").iterdir()] == [copy.id]
    with pytest.raises(SessionNotFoundError):
        store.open(session_id)


def test_a_fork_that_cannot_be_saved_leaves_no_lock_and_no_file(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = saved(store, "a")
    Disk(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(SessionError, match="No space left") as error:
        store.fork(session_id)
    assert error.tb  # it keeps the fork from being collected, which would let go of its lock
    with pytest.raises(UsageError, match="empty"):
        store.fork(session_id, title=" ")
    assert [info.id for info in store.list()] == [session_id]
    for lock in (store.folder / "locks").iterdir():
        held = locks.acquire(lock)
        assert held is not None
        held.release()


def test_what_is_said_of_sessions_is_said_in_the_users_language(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, "a")
    session_id = saved(store, "b")
    store.path_of(session_id).write_bytes(b"{")
    chinese = {
        "there is no session {name!r}": "没有会话 {name!r}",
        "it is not JSON in line {n}": "第 {n} 行不是 JSON",
    }
    monkeypatch.setattr(language, "_table", chinese)
    with pytest.raises(SessionNotFoundError) as caught:
        store.find("x")
    assert told(caught.value).startswith("没有会话 'x'")
    assert tr(store.find(session_id).problem).endswith("行不是 JSON")


# --- locks ---------------------------------------------------------------------------------------


def test_a_session_that_is_open_elsewhere_is_read_only_and_says_so(
    store: SessionStore, notices: list[str]
) -> None:
    session_id = saved(store, "a")
    with store.open(session_id), store.open(session_id) as second:
        assert notices == ["the session 'a' is open in another qwenchat"]
        with pytest.raises(SessionLockedError, match="/fork"):
            second.save()
        with pytest.raises(SessionLockedError):
            store.open(session_id, on_locked="refuse")
        with pytest.raises(SessionLockedError):
            store.rename(session_id, "b")
        with pytest.raises(SessionLockedError):
            store.delete(session_id)
        with store.open(session_id, on_locked="fork") as fork:
            assert "this is a fork" in notices[1]
            fork.save()
    assert texts(store, session_id) == texts(store, fork.id) == ["a", "A"]
    with store.open(session_id, on_locked="refuse") as third:
        third.save()


def test_a_session_of_a_folder_without_locks_can_be_read(
    store: SessionStore, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = saved(store, "a")

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(atomic, "make_private_folder", refuse)
    with store.open(session_id) as session:
        assert notices == ["the session 'a' is read-only: Read-only file system"]
        assert len(session.conversation.path()) == 2
    with pytest.raises(SessionLockedError, match=r"read-only: Read-only file system$"):
        store.rename(session_id, "b")


def stress(name: str, *arguments: object) -> dict[str, int]:
    """The figures of a trial, as a developer runs it."""
    command = [sys.executable, "-m", f"tests.stress.{name}", *map(str, arguments)]
    trial = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, int] = json.loads(trial.stdout)
    return figures


def test_eight_processes_with_one_session_lose_nothing(tmp_path: Path) -> None:
    figures = stress("session_writers", 8, 12, tmp_path)
    assert figures["failed"] == 0
    assert figures["acknowledged"] == figures["stored"] == 8 * 12


# --- kills, full disks and other accidents -------------------------------------------------------


@posix
def test_killed_writers_leave_whole_files(tmp_path: Path) -> None:
    figures = stress("kill_sessions", 60, tmp_path)
    assert figures["kills"] == 60 and figures["saves"] > 0
    assert (figures["unreadable"], figures["lost"], figures["left_behind"]) == (0, 0, 0)


@posix
def test_the_order_of_saving(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    session = chat(store, "a")
    session.save()
    disk = Disk(monkeypatch)
    session.save()
    assert disk.steps == list(Disk.STEPS)


@posix
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("step", Disk.STEPS)
def test_a_disk_that_fails_costs_no_turn_that_was_saved(
    store: SessionStore, notices: list[str], monkeypatch: pytest.MonkeyPatch, step: str, error: int
) -> None:
    session = chat(store, "a")
    session.save()
    before = session.path.read_bytes()
    add_turn(session, "b")
    with monkeypatch.context() as patch:
        disk = Disk(patch, step, error)
        for _ in range(2):
            with pytest.raises(SessionError) as caught:
                session.save()
            assert "\n" not in str(caught.value)
            assert os.strerror(error) in str(caught.value)
        assert disk.steps[-1] == step
    # Once it is in place, the new file is whole; only a power cut could bring the old one back.
    expected = session_file.encode(session.record()) if step == "folder fsync" else before
    assert session.path.read_bytes() == expected
    assert not temporaries(store)

    session.save()
    session.close()
    assert texts(store, session.id) == ["a", "A", "b", "B"]
    assert not notices and not (store.folder / "set-aside").exists()


def test_short_writes_are_gone_on_with(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:100]))
    assert texts(store, saved(store, "a")) == ["a", "A"]


@posix
def test_a_file_system_that_cannot_sync_folders_is_no_error(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, "folder fsync", errno.EINVAL)
    assert texts(store, saved(store, "a")) == ["a", "A"]


def test_an_interrupt_while_saving_leaves_the_old_file(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = chat(store, "a")
    session.save()

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    add_turn(session, "b")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        session.save()
    session.close()
    assert texts(store, session.id) == ["a", "A"]
    assert not temporaries(store)


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(store: SessionStore) -> None:
    session = chat(store, "a")
    session.save()
    living = atomic.write_temporary(session.path, b"{").path
    dead = atomic.write_temporary(store.path_of("0123456789ab"), b"{").path
    SessionStore(store.folder)
    assert living.exists() and not dead.exists()
    session.close()
    SessionStore(store.folder)
    assert not temporaries(store)
    assert [path.stem for path in (store.folder / "locks").iterdir()] == [session.id]


@posix
@pytest.mark.parametrize("umask", [0, 0o777])
def test_nobody_else_can_read_sessions_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir(mode=0o755)
    before = os.umask(umask)
    try:
        with chat(SessionStore(folder), "a") as session:
            session.save()
    finally:
        os.umask(before)
    lock = folder / "locks" / f"{session.id}.lock"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, session.path)] == [0o700, 0o600]
    assert stat.S_IMODE(lock.stat().st_mode) & 0o077 == 0


@posix
def test_a_symbolic_link_in_place_of_a_session_is_refused(store: SessionStore, tmp_path: Path) -> None:
    session = chat(store, "a")
    session.save()
    target = tmp_path / "elsewhere.json"
    session.path.rename(target)
    session.path.symlink_to(target)
    before = target.read_bytes()
    with pytest.raises(SessionError, match="symbolic link"):
        session.save()
    session.close()
    with pytest.raises(SessionError, match="symbolic link"):
        store.open(session.id)
    assert store.list()[0].problem == "it is a symbolic link"
    assert target.read_bytes() == before and session.path.is_symlink() and not temporaries(store)


@posix
def test_a_pipe_in_place_of_a_session_keeps_nobody_waiting(store: SessionStore) -> None:
    saved(store, "a")
    os.mkfifo(store.path_of("pipe"))
    assert store.find("pipe").problem == "not a regular file"
    with pytest.raises(SessionError, match="not a regular file"):
        store.open("pipe")


def test_what_others_put_in_a_sessions_place_is_kept(store: SessionStore, notices: list[str]) -> None:
    session = chat(store, "a")
    session.save()
    session.path.write_text("edited by hand")
    session.save()
    kept = store.folder / "set-aside" / f"{session.id}.1.json"
    assert notices == [f"the file that was in the session's place is kept as {kept}"]
    assert kept.read_text() == "edited by hand"
    session.close()
    assert texts(store, session.id) == ["a", "A"]


def test_a_session_whose_folder_was_deleted_is_saved_anew(store: SessionStore) -> None:
    import shutil

    with chat(store, "a") as session:
        session.save()
        shutil.rmtree(store.folder)
        session.save()
    assert texts(store, session.id) == ["a", "A"]


# --- damaged, strange and newer files ------------------------------------------------------------


def damaged(store: SessionStore) -> tuple[str, bytes]:
    session_id = saved(store, "a")
    path = store.path_of(session_id)
    path.write_bytes(path.read_bytes()[:-40])
    return session_id, path.read_bytes()


def test_a_damaged_file_is_named_and_left_as_it_is(store: SessionStore) -> None:
    session_id, content = damaged(store)
    good = saved(store, "b")
    with pytest.raises(SessionDamagedError) as error:
        store.open(session_id)
    assert "\n" not in str(error.value) and str(store.path_of(session_id)) in str(error.value)
    with pytest.raises(SessionDamagedError):
        store.fork(session_id)
    assert store.path_of(session_id).read_bytes() == content
    latest, _ = store.latest()
    assert latest is not None and latest.id == good
    # The lock was let go of.
    assert store.delete(session_id).id == session_id


def test_an_option_that_cannot_be_means_that_the_file_is_damaged(store: SessionStore) -> None:
    session_id = saved(store, "a")
    path = store.path_of(session_id)
    content = json.loads(path.read_text())
    content["nodes"][1]["options"] = {"max_new_tokens": 0}
    path.write_text(json.dumps(content))
    with pytest.raises(SessionDamagedError, match="max_new_tokens is 0"):
        store.open(session_id)


def test_a_damaged_file_is_moved_aside_only_when_its_session_goes_on(
    store: SessionStore, notices: list[str]
) -> None:
    session_id, content = damaged(store)
    with store.open(session_id, on_damaged="set_aside") as session:
        assert session.id == session_id
        assert store.path_of(session_id).read_bytes() == content
        add_turn(session, "new")
        session.save()
        assert "kept as" in notices[-1]
    assert (store.folder / "set-aside" / f"{session_id}.1.json").read_bytes() == content
    assert texts(store, session_id) == ["new", "NEW"]


QUESTION = {
    "id": 1,
    "parent": None,
    "role": "user",
    "created": NOW,
    "parts": [{"type": "text", "text": "a"}],
}


def edited(store: SessionStore, **changes: object) -> str:
    session_id = saved(store, "a")
    path = store.path_of(session_id)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return session_id


def test_a_newer_schema_is_named_as_such(store: SessionStore) -> None:
    session_id = edited(store, schema=99, anything={"new": 1})
    with pytest.raises(SessionDamagedError, match="newer qwenchat"):
        store.open(session_id)
    assert "newer" in store.list()[0].problem


def test_old_schemas_migrate(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = edited(store, schema=1, title=["old", "form"])
    with pytest.raises(SessionDamagedError, match="schema 1"):
        store.open(session_id)
    step = {1: lambda old: {**old, "schema": 2, "title": " ".join(old["title"])}}
    monkeypatch.setattr(session_file, "MIGRATIONS", step)
    assert store.list()[0].title == "old form"
    assert texts(store, session_id) == ["a", "A"]


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": True},
        {"schema": None},
        {"title": 1},
        {"turns": 1.5},
        {"turns": True},
        {"updated": "yesterday"},
        {"settings": []},
        {"settings": {"a": {"deep": 1}}},
        {"cursor": 3},
        {"cursor": 0},
        {"cursor": "1"},
        {"branches": {"x": 9}},
        {"pinned": [2]},
        {"pinned": [None]},
        {"visited": [-1]},
        {"nodes": {}},
        {"nodes": [None]},
        {"nodes": [{**QUESTION, "parent": 1}]},
        {"nodes": [{**QUESTION, "role": "system"}]},
        {"nodes": [{**QUESTION, "role": "tool"}]},
        {"nodes": [{**QUESTION, "role": "assistant"}]},
        {"nodes": [{**QUESTION, "text": "a"}]},
        {"nodes": [{**QUESTION, "parts": []}]},
        {"nodes": [{**QUESTION, "parts": "a"}]},
        {"nodes": [{**QUESTION, "parts": ["a"]}]},
        {"nodes": [{**QUESTION, "parts": [{"type": "image", "text": "a"}]}]},
        {"nodes": [{**QUESTION, "parts": [{"type": "text"}]}]},
        {"nodes": [{**QUESTION, "parts": [{"type": "text", "text": "a", "more": 1}]}]},
        {"nodes": [{**QUESTION, "parts": [{"type": "text", "text": "a", "token_ids": None}]}]},
        {"nodes": [{**QUESTION, "parts": [{"type": "tool_call", "name": "f", "arguments": "", "id": "1"}]}]},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_a_session_cannot_say_is_refused(store: SessionStore, changes: dict) -> None:
    session_id = edited(store, **changes)
    with pytest.raises(SessionDamagedError):
        store.open(session_id)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"schema": 1, "id": ' + b'{"a":' * 100_000,
        b'{"schema": ' + b"9" * 10_000 + b"}",
        b'{"schema": NaN}',
        b"\xff\xfe{\x00}\x00",
        bytes(5000),
    ],
    ids=["empty", "null", "deep", "deep objects", "long number", "NaN", "UTF-16", "zeros"],
)
def test_what_is_no_session_file_is_refused(store: SessionStore, content: bytes) -> None:
    session_id = saved(store, "a")
    store.path_of(session_id).write_bytes(content)
    with pytest.raises(SessionDamagedError):
        store.open(session_id)
    assert store.list()[0].problem and store.search("a") == []


def test_a_huge_file_is_not_read(store: SessionStore) -> None:
    session_id = saved(store, "a")
    with store.path_of(session_id).open("r+b") as file:
        file.truncate(session_file.SIZE_LIMIT + 1)
    with pytest.raises(SessionDamagedError, match="larger than 128 MB"):
        store.open(session_id)


def test_a_session_too_large_to_be_read_again_is_not_saved(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_file, "SIZE_LIMIT", 1000)
    with pytest.raises(SessionError, match="larger"):
        chat(store, "a" * 1000).save()


def damage(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    kind = rng.choice(["cut", "flip", "zero", "drop", "repeat"])
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    end = min(at + rng.randrange(1, 200), len(content))
    filling = {"zero": bytes(end - at), "drop": b"", "repeat": content[at:end] * 2}[kind]
    return content[:at] + filling + content[end:]


def test_ten_thousand_damaged_files_are_read_or_refused(store: SessionStore) -> None:
    session = chat(store, "你好", "b")
    session.conversation.retry()
    session.conversation.reply(*replied("half", "interrupted"), NOW)
    session.conversation.branch("x")
    session.save()
    session.close()
    whole = session.path.read_bytes()
    rng = random.Random(3)
    refused = 0
    for number in range(10_000):
        content = damage(whole, rng)
        try:
            record = session_file.decode(content)
        except SessionDamagedError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            again = session_file.decode(session_file.encode(record))
            assert again == record
        if number % 50 == 0:
            session.path.write_bytes(content)
            assert len(store.list()) == 1
            store.search("b")
    assert refused > 5_000


# --- clocks, layouts, names ----------------------------------------------------------------------------


def dated(store: SessionStore, title: str, moment: str) -> str:
    """A session that was saved while the clock said so."""
    session_id = saved(store, title)
    path = store.path_of(session_id)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "updated": moment}, indent=2))
    return session_id


def test_a_session_dated_ahead_is_not_the_latest_for_ever(store: SessionStore) -> None:
    ahead = dated(store, "from the future", "2999-01-01T00:00:00+00:00")
    now = saved(store, "of today")
    assert [(info.id, info.ahead) for info in store.list()] == [(now, False), (ahead, True)]
    latest, passed_over = store.latest()
    assert latest is not None and latest.id == now
    assert [info.id for info in passed_over] == [ahead]
    assert store.find("latest").id == now


def test_where_all_are_dated_ahead_the_latest_of_them_is_taken(store: SessionStore) -> None:
    dated(store, "first", "2998-01-01T00:00:00+00:00")
    last = dated(store, "last", "2999-01-01T00:00:00+00:00")
    latest, _ = store.latest()
    assert latest is not None and latest.id == last
    with store.open(last) as session:  # to go on with it mends its date
        session.save()
    assert not store.find(last).ahead


def test_a_large_file_without_line_breaks_is_listed_by_its_beginning(store: SessionStore) -> None:
    session_id = saved(store, "compact", "word " * 1_000_000)
    path = store.path_of(session_id)
    path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")))
    with path.open("rb") as file:
        head = session_file.decode_head(file.read(session_file.HEAD_BYTES))
    assert head == store.list()[0].head and head.title == "compact"
    assert store.record(session_id).conversation.questions()[-1].text.startswith("word word")


def test_a_large_file_whose_beginning_says_nothing_is_named_as_such(store: SessionStore) -> None:
    session_id = saved(store, "sorted", "word " * 1_000_000)
    path = store.path_of(session_id)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"nodes": content.pop("nodes"), **content}))
    assert "too large to be listed" in store.list()[0].problem
    assert store.record(session_id).head.title == "sorted"


def test_a_head_cut_in_the_middle_of_a_number_is_no_head() -> None:
    head = b'{"schema":1,"id":"a","title":"t","model":"","created":"2026-01-01",'
    head += b'"updated":"2026-01-01","turns":12'
    assert session_file.decode_head(head) is None
    whole = session_file.decode_head(head + b",")
    assert whole is not None and whole.turns == 12


def test_accents_apart_or_composed_are_one_name_and_one_text(store: SessionStore) -> None:
    apart, composed = unicodedata.normalize("NFD", "Café 한글"), "café 한글"
    session_id = saved(store, apart, f"... {apart} ...")
    assert store.find(composed).id == session_id
    assert [hit.info.id for hit in store.search(composed)] == [session_id]
    assert store.search("cafe") == []
