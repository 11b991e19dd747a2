"""Many processes that all go on with the same session at once.

    python -m tests.stress.session_writers [WRITERS] [TURNS] [FOLDER]

One gets the session, the others are told and go on in forks. Prints as JSON how many turns were
acknowledged and how many of those are stored afterwards; ends with 1 if these differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qwenchat.sessions.store import SessionStore
from tests.chats import replied, user

NOW = "2025-01-01T00:00:00+00:00"


def write(folder: Path, writer: str, turns: int) -> None:
    """One process: saves turns, and says on standard output where each is stored."""
    told: list[str] = []
    store = SessionStore(folder, told.append)
    with store.open("shared", on_locked="fork") as session:
        assert bool(told) == (session.title != "shared"), "a fork must be told"
        for n in range(turns):
            session.conversation.ask(user(f"{writer}-{n}"), NOW)
            session.conversation.reply(*replied(f"reply to {writer}-{n}", "complete"), NOW)
            session.save()
            print(session.id, f"{writer}-{n}", flush=True)


def stored(folder: Path) -> set[tuple[str, str]]:
    store = SessionStore(folder)
    found = set()
    for info in store.list():
        with store.open(info.id, on_locked="refuse") as session:
            found |= {(session.id, node.text) for node in session.conversation.questions()}
    return found


def main() -> int:
    writers, turns = int((sys.argv[1:] or ["8"])[0]), int((sys.argv[2:] or ["200"])[0])
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp()) / "sessions"
    with SessionStore(folder).create() as session:
        session.rename("shared")
        session.save()
    started = time.perf_counter()
    commands = [
        [sys.executable, "-m", "tests.stress.session_writers", "--write", str(folder), str(i), str(turns)]
        for i in range(writers)
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]
    acknowledged = {tuple(line.split()) for line in lines}
    figures = {
        "writers": writers,
        "failed": sum(process.returncode != 0 for process in processes),
        "acknowledged": len(acknowledged),
        "stored": len(acknowledged & stored(folder)),
        "sessions": len(SessionStore(folder).list()),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(figures))
    return int(figures["stored"] != writers * turns)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(main())
