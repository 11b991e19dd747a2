"""The real chat on a backend that needs no model, for tests to run in a terminal of their own.

python chat_program.py FOLDER [loading-seconds] [error]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from qwenchat.chat.backend import Backend
from qwenchat.errors import ModelNotFoundError
from qwenchat.i18n import language
from qwenchat.models.progress import Progress
from qwenchat.sessions.resume import open_chat
from qwenchat.sessions.store import SessionStore
from qwenchat.settings import sources
from qwenchat.terminal.background_load import Load, Notice
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.loop import Loop
from qwenchat.terminal.notices import Notices
from tests.fakes import Echo, Thinker


def make_load(name: str, seconds: float = 0.0, fails: bool = False) -> Load:
    def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        progress("loading weights", 0.5)
        time.sleep(seconds)
        if (fails and name == "first") or name == "damaged":
            raise ModelNotFoundError(f"there is no model called {name}")
        return Thinker() if name == "thinker" else Echo()

    return load


def make_chat(
    folder: Path, seconds: float = 0.0, fails: bool = False, session: str | None = None, **flags: object
) -> Chat:
    """A chat with its sessions and history in a folder, set by flags, which goes on with a session."""
    resolved = sources.load_settings({"system": "", **flags})
    notices = Notices()
    store = SessionStore(folder / "sessions", notices.warn)
    start = open_chat(resolved, store, session=session, on_damaged="set_aside", notice=print)
    return Chat(
        resolved.settings,
        replace(start, model="first"),
        store,
        lambda name: make_load(name, seconds, fails),
        notices=notices,
        history=folder / "history" if resolved.settings.save and resolved.settings.history else None,
        model_names=lambda: ("first", "second"),
    )


def main() -> None:
    language.use(language.of_locale())
    folder, seconds, fails = (*sys.argv[1:], "", "")[:3]
    sys.exit(Loop(make_chat(Path(folder), float(seconds or 0), bool(fails))).run())


if __name__ == "__main__":
    main()
