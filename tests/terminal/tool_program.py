"""The real chat on a model that plays a script and calls tools, to run in a terminal.

python tool_program.py FOLDER SCRIPT.json [session]

The script is a list of texts, one a step, a text and how it ends if not by itself; the tools are ``time`` and
those of FOLDER/tools.py.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from qwenchat.chat.backend import Backend
from qwenchat.i18n import language
from qwenchat.models.progress import Progress
from qwenchat.sessions.resume import open_chat
from qwenchat.sessions.store import SessionStore
from qwenchat.settings import sources
from qwenchat.terminal.background_load import Load, Notice
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.loop import Loop
from qwenchat.terminal.notices import Notices
from tests.fakes import Scripted


def main() -> None:
    language.use(language.of_locale())
    folder, script, session = (*sys.argv[1:], "")[:3]
    told = json.loads(Path(script).read_text("utf-8"))
    steps = [step if isinstance(step, str) else (step[0], step[1]) for step in told]

    def make_load(name: str) -> Load:
        def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
            return Scripted(*steps)

        return load

    resolved = sources.load_settings({"system": "", "tools": ["time", f"{folder}/tools.py"]})
    notices = Notices()
    store = SessionStore(Path(folder) / "sessions", notices.warn)
    start = open_chat(resolved, store, session=session or None, on_damaged="set_aside", notice=print)
    chat = Chat(
        resolved.settings, replace(start, model="scripted"), store, make_load, notices=notices, history=None
    )
    sys.exit(Loop(chat).run())


if __name__ == "__main__":
    main()
