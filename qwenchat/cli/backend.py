"""Loads the model that a command answers with, as the settings say."""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING

from qwenchat.errors import UsageError
from qwenchat.i18n.language import tr
from qwenchat.settings.remotes import Remote, remote_of

if TYPE_CHECKING:
    from qwenchat.backends.door.client import DoorBackend
    from qwenchat.chat.backend import Backend
    from qwenchat.chat.conversation import Conversation
    from qwenchat.chat.messages import GenerationOptions
    from qwenchat.models.progress import Progress
    from qwenchat.settings.schema import Settings
    from qwenchat.terminal.background_load import Load, Notice

log = logging.getLogger("qwenchat")


def loader(name: str, settings: Settings, *, complete: bool = False, served: bool = False) -> Load:
    """A function that loads the model and reports its progress.

    Args:
        name: the model's.
        settings: the settings in force.
        complete: whether it goes on with a text, instead of answering.
        served: whether a server that has loaded it already may answer, where the settings let it.
    """

    def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        remote = remote_of(name, settings.remotes)
        if remote is not None:
            return _remote(remote, progress, notice)
        if served and settings.server and (found := _behind_a_door(name, settings, complete)) is not None:
            return found
        from qwenchat.backends.load import load_requested
        from qwenchat.backends.request import LoadRequest
        from qwenchat.backends.torch_import import no_garbage_collection

        request = LoadRequest.of(
            settings,
            name,
            settle=settle,
            complete=complete,
            progress=progress,
            notice=(lambda line: None) if settings.quiet else notice,
        )
        with no_garbage_collection():
            backend = load_requested(request)
            # Else each later collection would walk all of torch again: 0.1 s in which no key is heard.
            gc.freeze()
        _ = backend.tokenizer  # without one it cannot chat, and says so now
        return backend

    def _remote(remote: Remote, progress: Progress, notice: Notice) -> Backend:
        if complete:
            raise UsageError("--complete goes on with a text on this machine alone", "leave it out")
        from qwenchat.backends.remote.load import load_remote

        notice = (lambda line: None) if settings.quiet else notice
        return load_remote(remote, context=settings.context, progress=progress, notice=notice)

    return load


def ask_ahead(
    name: str, settings: Settings, conversation: Conversation, question: str, options: GenerationOptions
) -> Backend | None:
    """A server's model, if one has it and may answer, that is asked already while this program gets ready.

    Args:
        conversation: in which the question is asked; it stays as it is.
    """
    if not settings.server or remote_of(name, settings.remotes) is not None:
        return None
    found = _behind_a_door(name, settings, False)
    if found is not None:
        from qwenchat.chat.messages import Message
        from qwenchat.chat.parts import Role

        asked = conversation.fork()
        asked.ask(Message.of_text(Role.USER, question), "")
        found.ask_ahead(asked.messages(), options)
    return found


def _behind_a_door(name: str, settings: Settings, complete: bool) -> DoorBackend | None:
    """The model of a server on this machine, if one has it."""
    from qwenchat.backends.door import places

    if not places.doors():
        return None
    from qwenchat.backends.door.client import find
    from qwenchat.backends.door.wanted import wanted

    return find(wanted(name, settings, complete=complete))


def load(name: str, settings: Settings, *, complete: bool = False, served: bool = False) -> Backend:
    """Loads a model while somebody waits for it; the arguments are :func:`loader`'s."""
    from qwenchat.backends.request import QuietStage
    from qwenchat.terminal import console

    # A terminal sees every stage pass by; a log file need not hear of what is the same every time.
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    with console.progress_reporter(quiet=settings.quiet) as show:

        def progress(stage: str, fraction: float | None) -> None:
            log.debug("%s %s", stage, "" if fraction is None else f"{fraction:.0%}")
            if on_terminal or not isinstance(stage, QuietStage):
                show(tr(stage), fraction)

        return loader(name, settings, complete=complete, served=served)(progress, console.say)
