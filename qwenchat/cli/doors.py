"""The local side of ``qwenchat serve``: its door, and servers in the background.

Owns what is said of them. The door is ``server/door.py``'s, the detached process ``server/background.py``'s.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from qwenchat.cli.context import Context
from qwenchat.errors import QwenchatError, UsageError
from qwenchat.humanize import time_text
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.backends.local import Model
    from qwenchat.server.life import Server

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_IDLE = re.compile(r"([0-9]{1,6})([smh]?)")


def seconds_of(idle: str) -> int:
    """The seconds of a time such as 90, 90s, 15m or 2h.

    Raises:
        UsageError: it is none.
    """
    found = _IDLE.fullmatch(idle)
    if found is None or int(found[1]) == 0:
        raise UsageError("--idle is {value}, expected a time such as 90s, 15m or 2h", value=idle)
    return int(found[1]) * _SECONDS[found[2]]


def start(context: Context) -> None:
    """Starts a server in the background, with the same arguments, and says where it is."""
    from qwenchat.server import background

    about = background.start([word for word in sys.argv[1:] if word != "--background"])
    context.say(
        tr(
            "serving {model} at {address} in the background, process {pid}; qwenchat serve --stop ends it",
            model=about["model"],
            address=about["address"],
            pid=about["pid"],
        )
    )


def status() -> None:
    """Prints a line for each server of this user."""
    from qwenchat.backends.door import client
    from qwenchat.cli.output import stdout
    from qwenchat.terminal.console import write
    from qwenchat.terminal.sanitize import sanitize_line

    servers = client.about()
    for about in servers:
        write(stdout(), sanitize_line(_line(about)) + "\n")
    if not servers:
        raise _none()


def stop(context: Context) -> None:
    """Ends the servers of this user."""
    from qwenchat.server import background

    stopped = background.stop()
    for about in stopped:
        context.say(tr("ended: {server}", server=_line(about)))
    if not stopped:
        raise _none()


def _none() -> QwenchatError:
    return QwenchatError("no server is running", "qwenchat serve --background starts one")


def _line(about: Mapping[str, Any]) -> str:
    return tr(
        "{model} at {address}, process {pid}, version {version}, running for {time}",
        model=about.get("model"),
        address=about.get("address"),
        pid=about.get("pid"),
        version=about.get("version"),
        time=time_text(int(about.get("seconds", 0))),
    )


@contextmanager
def opened(context: Context, model: Model, address: str, idle: int | None, server: Server) -> Iterator[None]:
    """Opens the door to a model that is served, for ask and the chat; where there can be none, says why.

    Args:
        address: where else it is served.
        idle: seconds without use after which the server ends; None for never.
        server: what else serves it; the door is open as long as it, and who comes while it ends is sent away.
    """
    from qwenchat.backends.door import places
    from qwenchat.backends.door.wanted import files_of, wanted
    from qwenchat.server.background import end_when_idle
    from qwenchat.server.door import Door

    settings = context.settings
    name, checkpoint = settings.model, settings.checkpoint
    loaded = files_of(name, checkpoint)
    with ExitStack() as stack:
        unused = lambda: model.engine.unused_seconds  # noqa: E731
        if places.supported():
            door = Door(
                model,
                wanted(name, settings, complete=context.flags.complete),
                is_current=lambda: not server.should_exit and files_of(name, checkpoint) == loaded,
                address=address,
                on_stop=server.end,
                grace=lambda: server.grace_left,
            )
            try:
                stack.enter_context(door)
            except OSError as error:
                context.say(tr("there is no door for qwenchat ask: {reason}", reason=error))
            except QwenchatError as error:
                context.say(tr("there is no door for qwenchat ask: {reason}", reason=error.message))
            else:
                unused = lambda: min(door.unused_seconds, model.engine.unused_seconds)  # noqa: E731
        if idle is not None:
            end_when_idle(idle, unused, server.end)
        yield
