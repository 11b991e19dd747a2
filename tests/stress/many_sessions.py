"""How long listing and searching many sessions takes.

    python -m tests.stress.many_sessions [SESSIONS]

Half of the sessions are in English, half in Chinese, eight turns each, with token ids; some 23 KB a
file. Prints the best of three as JSON, in seconds.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, Timings, Usage
from qwenchat.sessions import format as session_file
from qwenchat.sessions.store import SessionStore
from tests.chats import replied, user

ENGLISH = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "prefill", "of"]
CHINESE = list("我们今天讨论如何在终端里聊天并保存会话记录模型回答问题")


def fill(store: SessionStore, sessions: int) -> int:
    """Returns the bytes written. Without fsync, which is not what is measured here."""
    rng = random.Random(1)
    store.folder.mkdir()
    size = 0
    for i in range(sessions):
        words, space = (ENGLISH, " ") if i % 2 else (CHINESE, "")
        session = store.create(Conversation("You are helpful."), model="qwen-7b-chat-int8")
        for _ in range(8):
            session.conversation.ask(user(space.join(rng.choices(words, k=20))), session.created)
            ids = tuple(rng.choices(range(150_000), k=200))
            text = space.join(rng.choices(words, k=150))
            options, usage, timings = GenerationOptions(0.7), Usage(9, 3, 200), Timings(0.1, 0.2, 0.3)
            reply = replied(text, "complete", ids, session.model, 1, options, usage, timings)
            session.conversation.reply(*reply, session.created)
        session.rename(session.conversation.questions()[0].text[:60])
        size += session.path.write_bytes(session_file.encode(session.record()))
    return size


def best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return round(min(seconds), 3)


def main() -> None:
    sessions = int((sys.argv[1:] or ["5000"])[0])
    with tempfile.TemporaryDirectory() as folder:
        store = SessionStore(Path(folder) / "sessions")
        size = fill(store, sessions)
        figures = {
            "sessions": sessions,
            "MB": size // 10**6,
            "open": best(lambda: SessionStore(store.folder)),
            "list": best(store.list),
            "search, in every other": best(lambda: store.search("Fox")),
            "search, in none": best(lambda: store.search("no such words")),
            "search, Chinese": best(lambda: store.search("会话")),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
