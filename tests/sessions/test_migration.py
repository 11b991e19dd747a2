"""Session files of schema 1: read as they were, untouched until the next save, then whole in the new form."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from qwenchat.chat.chatml import prompt_ids
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.nodes import Node
from qwenchat.errors import ConversationError, SessionDamagedError
from qwenchat.sessions import format as session_file
from qwenchat.sessions import listing
from qwenchat.sessions.export import FORMATS, to_html, to_markdown, to_text
from qwenchat.sessions.format import SessionRecord
from qwenchat.sessions.store import SessionStore
from qwenchat.tokenizer import QwenTokenizer
from tests.chats import replied, user
from tests.places import SCHEMA_1
from tests.terminal.chat_program import make_chat

READ = json.loads((SCHEMA_1 / "expected" / "read.json").read_text())
REFUSED = json.loads((SCHEMA_1 / "expected" / "refused.json").read_text())
NOW = "2026-11-30T09:00:00+00:00"
every_kind = pytest.mark.parametrize("kind", READ)


def old(kind: str) -> bytes:
    return (SCHEMA_1 / f"{kind}.json").read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    """A store with a copy of every old file."""
    folder = tmp_path / "sessions"
    folder.mkdir(mode=0o700)
    for kind in READ:
        shutil.copy(SCHEMA_1 / f"{kind}.json", folder)
    return SessionStore(folder)


LATER_OPTIONS: dict[str, Any] = {
    "think": None,
    "think_tokens": None,
    "grammar": "",
    "trigger": "",
    "tools": (),
    "logit_bias": (),
    "likelihoods": None,
}
"""What the version that wrote the old files had not, as it is where a reply does not have it."""


def as_read_then(node: Node) -> dict[str, Any]:
    """A node as the version that wrote the old files saw it."""
    fields = {"id": node.id, "parent": node.parent, "role": node.role.value, "created": node.created}
    fields["text"] = node.message.text
    if node.record is None:
        return fields
    record = asdict(node.record)
    assert {name: record["options"].pop(name) for name in LATER_OPTIONS} == LATER_OPTIONS
    return {**fields, "token_ids": list(node.message.token_ids or ()), **record}


def saved_again(record: SessionRecord) -> SessionRecord:
    data = session_file.encode(record)
    assert json.loads(data)["schema"] == 2
    return session_file.decode(data)


# --- reading -------------------------------------------------------------------------------------


@every_kind
def test_every_old_file_is_read_as_it_was_and_comes_back_the_same_from_the_new_form(kind: str) -> None:
    record, then = listing.load(SCHEMA_1 / f"{kind}.json")[0], READ[kind]
    chat = record.conversation
    assert asdict(record.head) == then["head"]
    assert (record.settings, chat.system, chat.cursor) == (then["settings"], then["system"], then["cursor"])
    places = (chat.branches, sorted(chat.pinned), list(chat.visited))
    assert places == (then["branches"], then["pinned"], then["visited"])
    assert json.loads(json.dumps([as_read_then(node) for node in chat.nodes])) == then["nodes"]
    assert saved_again(record) == record


@every_kind
def test_turns_prompts_and_exports_of_an_old_file_are_as_they_were(kind: str) -> None:
    record, then = listing.load(SCHEMA_1 / f"{kind}.json")[0], READ[kind]
    for one in (record, saved_again(record)):
        turns = one.conversation.turns()
        assert [[turn.question.id, turn.reply and turn.reply.id] for turn in turns] == then["turns"]
        messages = one.conversation.messages()
        ids = prompt_ids(QwenTokenizer.default(), messages) if messages else None
        assert ids == then["prompt_ids"]
        assert (to_markdown(one), to_text(one)) == (then["markdown"], then["txt"])
        assert to_html(one) == to_html(record)


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_was_damaged_is_damaged_still(content: object) -> None:
    with pytest.raises(SessionDamagedError):
        session_file.decode(json.dumps(content).encode())


def test_damaged_old_files_are_read_or_refused() -> None:
    rng, kinds = random.Random(5), list(READ)
    refused = 0
    for _ in range(1500):
        content = bytearray(old(rng.choice(kinds)))
        at = rng.randrange(len(content))
        content[at : at + rng.choice([0, 1, 9])] = rng.choice([b"", b"0", b'"', b"null", b"[]", bytes(4)])
        try:
            record = session_file.decode(bytes(content))
        except SessionDamagedError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert saved_again(record) == record
    assert refused > 500


# --- looking, which writes nothing ---------------------------------------------------------------


def test_looking_at_old_files_changes_none(store: SessionStore) -> None:
    listed = {info.id: {k: v for k, v in info.as_dict().items() if k != "path"} for info in store.list()}
    assert listed == {kind: READ[kind]["listed"] for kind in READ}
    assert {hit.info.id for hit in store.search("rayleigh")} == {"plain"}
    latest, _ = store.latest()
    assert latest is not None and latest.id in READ
    for kind in READ:
        with store.open(kind, on_locked="refuse") as session:
            assert session.conversation.nodes or kind == "nothing_said"
            for export in FORMATS.values():
                export(session.record())
        assert store.path_of(kind).read_bytes() == old(kind)


@every_kind
def test_a_search_finds_the_same_in_both_forms(kind: str) -> None:
    before = old(kind)
    after = session_file.encode(session_file.decode(before))
    texts = [node["text"] for node in READ[kind]["nodes"]]
    words = {word for text in texts for word in text.split()} | {"nowhere to be found"}
    for word in words:
        assert session_file.find(before, listing.fold(word)) == session_file.find(after, listing.fold(word))
    assert all(session_file.find(after, listing.fold(text)) for text in texts if text)


def test_an_old_file_too_large_to_be_read_for_a_list_is_listed_by_its_beginning(
    store: SessionStore,
) -> None:
    content = json.loads(old("plain"))
    content["nodes"][0]["text"] = "word " * 600_000
    store.path_of("plain").write_text(json.dumps(content))
    (info,) = (info for info in store.list() if info.id == "plain")
    assert not info.problem and info.title == READ["plain"]["head"]["title"]
    with store.open("plain") as session:
        session.save()
    assert store.record("plain").conversation.questions()[0].text == content["nodes"][0]["text"]


# --- going on, which migrates --------------------------------------------------------------------


@every_kind
def test_a_chat_goes_on_with_an_old_file_which_is_then_a_new_one(store: SessionStore, kind: str) -> None:
    with store.open(kind, on_locked="refuse") as session:
        before = session.conversation.fork()
        session.conversation.ask(user("and now?"), NOW)
        session.conversation.reply(*replied("now"), NOW)
        session.save()
    assert json.loads(store.path_of(kind).read_bytes())["schema"] == 2
    with store.open(kind, on_locked="refuse") as session:
        chat = session.conversation
        assert chat.nodes[: len(before.nodes)] == before.nodes
        assert [node.text for node in chat.path()[-2:]] == ["and now?", "now"]
        chat.undo()
        assert [turn.nodes for turn in chat.turns()] == [turn.nodes for turn in _answered(before)]
    assert sorted(path.name for path in store.folder.glob("*.*")) == sorted(f"{kind}.json" for kind in READ)


def _answered(chat: Conversation) -> list[Any]:
    """The turns of the path; a question without a reply is left aside by the next one."""
    return [turn for turn in chat.turns() if turn.reply is not None]


def test_moves_lead_to_the_same_places_in_both_forms() -> None:
    record = listing.load(SCHEMA_1 / "branches.json")[0]
    before, after = record.conversation, saved_again(record).conversation
    rng = random.Random(1)
    moves = {
        "redo": lambda chat, n: chat.redo(n),
        "undo": lambda chat, n: chat.undo(n),
        "next": lambda chat, n: chat.next_sibling(),
        "previous": lambda chat, n: chat.previous_sibling(),
        "switch": lambda chat, n: chat.switch(("main", "其他", "edited")[n]),
        "retry": lambda chat, n: chat.retry(),
        "unpin": lambda chat, n: chat.unpin(n),
    }
    for _ in range(300):
        move, n = rng.choice(list(moves)), rng.randrange(3)
        told = []
        for chat in (before, after):
            try:
                told.append(str(moves[move](chat, n)))
            except ConversationError as error:
                told.append(str(error))
        assert told[0] == told[1] and before == after


def test_a_cut_reply_of_an_old_file_is_continued_from_its_tokens(tmp_path: Path, store: SessionStore) -> None:
    chat = make_chat(tmp_path, session="length")
    tokens = chat.conversation.path()[-1].message.token_ids
    assert tokens == tuple(READ["length"]["nodes"][-1]["token_ids"])
    chat.continue_reply()
    chat.close()
    reply = store.record("length").conversation.path()[-1]
    assert reply.text.startswith("half an ans") and len(reply.text) > len("half an ans")
    assert reply.record is not None and reply.record.status == "complete"


def test_a_question_with_pasted_files_is_edited_without_getting_them_twice(
    tmp_path: Path, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("as it is today")
    (tmp_path / "my notes.md").write_text("as it is today")
    chat = make_chat(tmp_path, session="files_pasted_in_text")
    n, before = next(
        (turn.n, turn.question) for turn in chat.conversation.turns() if "@notes.txt" in turn.question.text
    )
    assert "alpha beta" in before.text
    chat.edit(n)
    chat.send(chat.take_next_line())
    chat.close()
    asked = chat.conversation.question(n)
    assert asked.id > before.id and asked.message == before.message


# --- kills ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kind", ["branches", "surrogates_and_controls"])
def test_a_kill_at_any_step_of_the_migration_leaves_the_old_file_or_the_new(
    store: SessionStore, kind: str
) -> None:
    path, before = store.path_of(kind), store.record(kind).conversation
    outcomes = []
    for step in range(100):
        shutil.copy(SCHEMA_1 / f"{kind}.json", path)
        status = _killed_while_saving(store, kind, step)
        content = path.read_bytes()
        outcomes.append(json.loads(content)["schema"])
        with SessionStore(store.folder).open(kind, on_locked="refuse") as session:  # sweeps, as a start does
            assert session.conversation == before
        assert outcomes[-1] == 2 or content == old(kind)
        assert list(store.folder.glob("*.tmp")) == []
        if os.WIFEXITED(status):
            break
    assert os.waitstatus_to_exitcode(status) == 0
    assert outcomes == sorted(outcomes) and outcomes.count(1) >= 4 and outcomes.count(2) >= 2


def _killed_while_saving(store: SessionStore, kind: str, step: int) -> int:
    """Saves a session in a process that is killed at a step; one more than there are is never taken."""
    child = os.fork()
    if child == 0:
        try:
            session = store.open(kind, on_locked="refuse")
            _kill_at(step)
            session.save()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def _kill_at(step: int) -> None:
    """From here on this process is killed at a call that touches files, the first being 0."""
    calls = iter(range(step))

    def until(real: Any, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if next(calls, None) is None:
                if name == "write":  # cut in the middle
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return call

    for owner, name in [(os, "open"), (os, "write"), (os, "fsync"), (os, "close"), (Path, "replace")]:
        setattr(owner, name, until(getattr(owner, name), name))
