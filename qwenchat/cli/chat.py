"""The chat on a terminal: checks that there can be one, and starts it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qwenchat.cli.context import Context, session_store
from qwenchat.errors import UsageError

if TYPE_CHECKING:
    from qwenchat.settings.schema import Settings


def chat(context: Context, *, session: str | None = None) -> None:
    """Chats on a terminal.

    Args:
        context: of the command line.
        session: the name of the session to go on with, if not the flags say one.
    """
    from qwenchat.cli.backend import loader
    from qwenchat.paths import history_file
    from qwenchat.sessions.resume import open_chat
    from qwenchat.terminal.chat import Chat
    from qwenchat.terminal.loop import Loop
    from qwenchat.terminal.notices import Notices

    flags = context.flags
    if flags.as_json or flags.stream_json or flags.code or flags.complete:
        raise UsageError(
            "--json, --stream-json, --code and --complete are for one answer",
            "use qwenchat ask, or pipe a text",
        )
    if sys.stdin is None or not sys.stdin.isatty() or sys.stdout is None or not sys.stdout.isatty():
        raise UsageError("a chat needs a terminal", "qwenchat ask answers into a file or a pipe")
    resolved = context.read_settings()
    settings = resolved.settings
    notices = Notices()
    store = session_store(notices.warn)
    start = open_chat(
        resolved,
        store,
        session=flags.session if session is None else session,
        latest=flags.latest,
        on_damaged="set_aside",
        notice=context.say,
    )
    Loop(
        Chat(
            settings,
            start,
            store,
            lambda name: loader(name, settings, served=True),
            notices=notices,
            check_model=lambda name: _check_model(name, settings),
            history=history_file() if settings.save and settings.history else None,
            model_names=lambda: _model_names(settings),
        )
    ).run()


# The prompt comes first, what is on the disk when it is asked for.


def _check_model(name: str, settings: Settings) -> None:
    from qwenchat.models import catalog
    from qwenchat.settings.remotes import remote_of

    if remote_of(name, settings.remotes) is None:
        catalog.check(name)


def _model_names(settings: Settings) -> Iterable[str]:
    from qwenchat.models import offers

    return (*settings.remotes, *offers.to_load())
