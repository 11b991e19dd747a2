"""Python in a chat: the interpreter of the session at hand, and what of a run is shown.

Owns the worker's life in a chat, and that the files of the chat are in its folder. What runs, and who may ask
for it, is the commands' and the tools'.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.chat.parts import AttachedFile
from qwenchat.i18n.language import plural, tr
from qwenchat.sessions.store import Session
from qwenchat.terminal import console

if TYPE_CHECKING:
    from qwenchat.tools.interpreter import Execution, Interpreter

Show = Callable[[str, str], None]


class CodeRunner:
    """Runs Python for a chat; one worker at a time, that of the session at hand.

    Args:
        python: the interpreter whose packages there are; empty for our own.
    """

    def __init__(self, python: str) -> None:
        self._python = python
        self._interpreter: Interpreter | None = None
        self._put: set[tuple[str, int]] = set()

    @property
    def sandbox(self) -> str:
        """What confines the worker that there is; empty while there is none."""
        return self._interpreter.sandbox if self._interpreter is not None else ""

    @property
    def is_confined(self) -> bool:
        """False while there is a worker that nothing confines."""
        return self._interpreter is None or self._interpreter.is_confined

    def run(
        self,
        session: Session,
        code: str,
        cancel: threading.Event,
        show: Show = lambda kind, text: None,
        attached: Iterable[AttachedFile] = (),
    ) -> Execution:
        """Runs code in a session's folder, in which the chat's files are.

        Args:
            session: the chat's.
            code: Python.
            cancel: ends the run when it is set.
            show: told what comes as it comes, of which kind and what.
            attached: files beside those of the chat so far.

        Raises:
            SandboxError: nothing can confine it here.
            ConfigError: the interpreter that the user named is none.
        """
        return self._ready(session, attached).run(code, cancel, show)

    def run_unconfined(
        self,
        session: Session,
        code: str,
        cancel: threading.Event,
        show: Show = lambda kind, text: None,
        attached: Iterable[AttachedFile] = (),
    ) -> Execution:
        """As :meth:`run`, but confined by nothing: after a yes of ``approval.ask_unconfined`` to this run."""
        return self._ready(session, attached).run_unconfined(code, cancel, show)

    def _ready(self, session: Session, attached: Iterable[AttachedFile]) -> Interpreter:
        """The interpreter of a session, with the chat's files in its folder."""
        interpreter = self._here(session)
        said = [node.message for turn in session.conversation.turns() for node in turn.nodes]
        for file in (*(file for message in said for file in message.files), *attached):
            if (key := (file.name, hash(file.text))) not in self._put:
                interpreter.put(file.name, file.text.encode("utf-8", "replace"))
                self._put.add(key)
        return interpreter

    def put(self, session: Session, name: str, data: bytes) -> Path:
        """Puts a file into a session's folder, in place of one of that name. Returns where it is."""
        return self._here(session).put(name, data)

    def leave(self, session: Session) -> None:
        """Ends the worker. The files of a session stay with it; of one that was not kept they go."""
        if self._interpreter is None:
            return
        self._interpreter.close()
        self._interpreter = None
        self._put.clear()
        if not session.path.exists():
            shutil.rmtree(session.files, ignore_errors=True)

    def _here(self, session: Session) -> Interpreter:
        """The interpreter of a session; its worker starts with the first run."""
        if self._interpreter is None:
            from qwenchat.tools.interpreter import Interpreter  # the prompt need not wait for it

            self._interpreter = Interpreter(session.files, python=self._python)
        return self._interpreter


class RunView:
    """A run as the user sees it: what it prints as it comes, then its files and its end."""

    def __init__(self) -> None:
        self._writer = console.PlainWriter(sys.stdout)
        self._kind = ""

    def show(self, kind: str, text: str) -> None:
        """Shows a piece of what the code says."""
        if kind != self._kind:
            self._writer.finish()
            self._kind = kind
        if kind == "error" and text.endswith("KeyboardInterrupt"):
            return  # the user knows where they stopped it
        if kind in ("stderr", "error"):
            for line in text.splitlines():
                console.say(line, "error" if kind == "error" else "warning")
        else:
            self._writer.push(text)

    def end(self, done: Execution) -> None:
        """Says what is left to be said of a run."""
        self._writer.finish()
        for picture in done.pictures:
            from qwenchat.terminal import pictures  # brings numpy

            with suppress(OSError):
                pictures.show(picture)
            console.say(str(picture))
        for file in done.files:
            console.say(tr("wrote {path}", path=file))
        if done.ended == "interrupted":
            console.say(tr("interrupted; the variables are kept"))
        elif done.ended == "died":
            console.say(tr("the next run starts a new interpreter"))
        elif not done.pictures and not self._kind:
            console.say(tr("it ended and said nothing"))


def lines_of(code: str) -> str:
    """How long code is, in words."""
    return plural(len(code.splitlines()), "1 line", "{count} lines")
