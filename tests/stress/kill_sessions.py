"""Kills a process that saves sessions, again and again, and looks at what it left behind.

    python -m tests.stress.kill_sessions [KILLS] [FOLDER]

Each run opens the session that the last one was killed in (every 40th run begins a new one), adds
turns as a chat does (question, checkpoint of the reply, whole reply) and acknowledges every save
through a pipe, until SIGKILL ends it 2 to 40 ms later. Then the folder is opened as a next start
would. Prints the figures as JSON; ends with 1 if anything was lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import filelock  # noqa: F401  # before forking, or each writer would be killed while importing it

from qwenchat.errors import SessionError
from qwenchat.files.atomic import TEMPORARY_SUFFIX
from qwenchat.sessions.store import SessionStore
from tests.chats import replied, user

RUNS_PER_SESSION = 40
NOW = "2025-01-01T00:00:00+00:00"


def write_until_killed(folder: Path, name: str, pipe: int) -> None:
    store = SessionStore(folder)
    session = store.open(name, on_locked="refuse") if name else store.create(model="model")
    os.write(pipe, b"ready\n")
    chat = session.conversation

    def save() -> None:
        session.save()
        os.write(pipe, f"{session.id} {len(chat.nodes)} {chat.nodes[-1].text}\n".encode())

    while True:
        chat.ask(user(f"question-{len(chat.nodes)}"), NOW)
        save()
        node = chat.reply(*replied("part", "streaming", tuple(range(200))), NOW)
        save()
        chat.replace_reply(node.id, *replied(f"whole-{node.id}", "complete", tuple(range(400))))
        save()


def run_and_kill(folder: Path, name: str, seconds: float) -> list[str]:
    """Returns the acknowledgements, the id first in each."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(folder, name, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        ready = pipe.readline()
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines = pipe.read().decode().splitlines()
    assert ready == b"ready\n", "the writer failed before it was killed"
    return lines


def leftovers(folder: Path) -> int:
    return len(list(folder.glob(f"*{TEMPORARY_SUFFIX}")))


def is_kept(store: SessionStore, acknowledgement: str) -> bool:
    session_id, count, text = acknowledgement.split()
    with store.open(session_id, on_locked="refuse") as session:
        node = session.conversation.node(int(count))
        # A reply may have been saved once more after this acknowledgement.
        return not session.read_only and (node.text == text or text == "part")


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()) / "sessions"
    rng = random.Random()
    figures = dict.fromkeys(
        ("kills", "saves", "killed_while_writing", "unreadable", "lost", "left_behind"), 0
    )
    started = time.perf_counter()
    name = ""
    for run in range(kills):
        acknowledgements = run_and_kill(folder, name, rng.uniform(0.002, 0.040))
        figures["kills"] += 1
        figures["saves"] += len(acknowledgements)
        figures["killed_while_writing"] += leftovers(folder)
        store = SessionStore(folder)
        figures["left_behind"] += leftovers(folder)
        try:
            figures["unreadable"] += sum(bool(info.problem) for info in store.list())
            figures["lost"] += sum(not is_kept(store, line) for line in acknowledgements[-1:])
        except SessionError:
            figures["unreadable"] += 1
        latest, _ = store.latest()
        name = latest.id if latest and (run + 1) % RUNS_PER_SESSION else ""
    print(json.dumps({**figures, "seconds": round(time.perf_counter() - started, 1)}))
    return int(any(figures[name] for name in ("unreadable", "lost", "left_behind")))


if __name__ == "__main__":
    sys.exit(main())
