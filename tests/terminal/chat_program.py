"""The real chat on a backend that needs no model, for tests to run in a terminal of their own.

python chat_program.py FOLDER [loading-seconds] [error]
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import Event, GenerationOptions, Message, ReplyEnd, TextDelta, Timings, Usage
from qwenchat.errors import ModelNotFoundError
from qwenchat.i18n import language
from qwenchat.sessions.resume import begin
from qwenchat.sessions.store import SessionStore
from qwenchat.settings import sources
from qwenchat.terminal.background_load import Load, Notice, Progress
from qwenchat.terminal.chat import Chat


class Echo:
    """Says the last question back word by word; a question that begins with "slow" takes its time."""

    name, description, context = "echo", "a test", 200

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        last = messages[-1]
        question = messages[-2].content if last.role.value == "assistant" else last.content
        words = f"You said: {question}".split()
        done = len(last.content.split()) if last.role.value == "assistant" else 0
        reason = "stop"
        said = []
        for word in words[done:]:
            if cancel is not None and cancel.is_set():
                reason = "cancelled"
                break
            said.append(word)
            yield TextDelta(f"{word} ")
            time.sleep(0.2 if question.startswith("slow") else 0)
        yield ReplyEnd(reason, Usage(self.count_tokens(messages), 0, len(said)), Timings(0.1, 0.1, 0.1))  # type: ignore[arg-type]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        said = [message for message in messages if message.content or message.role.value != "system"]
        return sum(len(message.content.split()) + 2 for message in said)

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        own: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 0.8, "min_p": 0.0}
        own["repetition_penalty"] = 1.1
        return replace(options, **{n: v for n, v in own.items() if getattr(options, n) is None})

    closed = False
    system = "You are a fake."

    def close(self) -> None:
        self.closed = True


def make_load(name: str, seconds: float = 0.0, fails: bool = False) -> Load:
    def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        progress("loading weights", 0.5)
        time.sleep(seconds)
        if (fails and name == "first") or name == "damaged":
            raise ModelNotFoundError(f"there is no model called {name}")
        return Echo()

    return load


def make_chat(
    folder: Path, seconds: float = 0.0, fails: bool = False, session: str | None = None, **flags: object
) -> Chat:
    """A chat with its sessions and history in a folder, set by flags, which goes on with a session."""
    resolved = sources.load_settings({"system": "", **flags})
    store = SessionStore(folder / "sessions")
    start = begin(resolved, store, session=session, on_damaged="set_aside", notice=print)
    return Chat(
        resolved.settings,
        replace(start, model="first"),
        store,
        lambda name: make_load(name, seconds, fails),
        history=folder / "history" if resolved.settings.save and resolved.settings.history else None,
        model_names=lambda: ("first", "second"),
    )


def main() -> None:
    language.use(language.of_locale())
    folder, seconds, fails = (*sys.argv[1:], "", "")[:3]
    sys.exit(make_chat(Path(folder), float(seconds or 0), bool(fails)).run())


if __name__ == "__main__":
    main()
