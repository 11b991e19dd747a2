"""``qwenchat serve``: a model over HTTP, for editors, agents and scripts.

Owns the command's options and what it says. What is served is ``server``'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from qwenchat.cli import doors
from qwenchat.cli.context import Context, Flags
from qwenchat.cli.flags import with_flags_to_serve
from qwenchat.errors import Interrupted, UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.server.guard import Entry

_PORT = 8000
_LONGEST_KEY = 4096
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+")


def _option(help_text: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, show_default=False)


@with_flags_to_serve
def serve(
    ctx: typer.Context,
    flags: Flags,
    host: Annotated[str, _option("The address to serve at; 127.0.0.1 by default.", "ADDRESS")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port; 0 for any that is free.", metavar="PORT", min=0, max=65535)
    ] = _PORT,
    key_file: Annotated[
        Optional[Path],  # noqa: UP045
        _option("A file with the key that requests must have; needed off this machine.", "FILE"),
    ] = None,
    cors: Annotated[
        Optional[list[str]],  # noqa: UP045
        _option("Let web pages of this origin ask; may be repeated.", "ORIGIN"),
    ] = None,
    alias: Annotated[
        Optional[list[str]],  # noqa: UP045
        _option("Another name for the model; may be repeated.", "NAME"),
    ] = None,
    slots: Annotated[
        int,
        typer.Option(help="Replies that are made at a time; others wait.", metavar="COUNT", min=1, max=64),
    ] = 8,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Print each request on stderr: path, status, seconds.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Serve in the background; ends with --stop, or --idle.")
    ] = False,
    idle: Annotated[
        Optional[str],  # noqa: UP045
        _option("End after so long without use, such as 15m.", "TIME"),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Print which servers are running.")] = False,
    ends: Annotated[bool, typer.Option("--stop", help="End the servers that are running.")] = False,
) -> None:
    """Serve a model to other programs, over HTTP.

    It speaks the protocols of OpenAI, Anthropic and ollama. It ends with Ctrl-C, or with SIGTERM.
    """
    before: Context = ctx.obj
    context = Context(flags.over(before.flags))
    settings = context.settings
    if status or ends:
        doors.status() if status else doors.stop(context)
        return
    idle_seconds = None if idle is None else doors.seconds_of(idle)
    entry = _entry(host, key_file, cors or [])
    if background:
        doors.start(context)
        return

    from qwenchat.server.life import Server, bind

    with bind(host, port) as listening:
        from qwenchat.backends.local import Model
        from qwenchat.chat.messages import OPTION_NAMES, GenerationOptions
        from qwenchat.cli.backend import load
        from qwenchat.server.app import build
        from qwenchat.server.service import Limits, Service

        address = _address(host, listening.getsockname()[1])
        defaults = GenerationOptions(**{name: getattr(settings, name) for name in OPTION_NAMES})
        model = load(settings.model, settings, complete=context.flags.complete)
        if not isinstance(model, Model):
            raise UsageError("{model} is served elsewhere already", model=model.name)
        model.share(slots=slots)
        service = Service(
            model, aliases=alias or [], defaults=replace(defaults, seed=None), limits=Limits(running=slots)
        )

        def started() -> None:
            context.say(
                tr("serving {model} at {address}; Ctrl-C ends it", model=service.name, address=address)
            )

        app = build(service, entry, _log() if log_requests else None)
        server = Server(app, on_start=started)
        with doors.opened(context, model, address, idle_seconds, server):
            server.run(sockets=[listening])
    if server.force_exit:
        raise Interrupted


def _entry(host: str, key_file: Path | None, origins: list[str]) -> Entry:
    """What lets a request in.

    Raises:
        UsageError: others can reach the address, and there is no key.
    """
    from qwenchat.paths import KEY_VARIABLE
    from qwenchat.server.guard import Entry, is_loopback

    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(
                "--cors is {origin}, expected the origin of a page, such as https://example.org",
                origin=origin,
            )
    key = _key_of(key_file) if key_file is not None else os.environ.get(KEY_VARIABLE, "").strip()
    if not key and not is_loopback(host):
        raise UsageError(
            "at {host} other machines reach the server, so it needs a key",
            "--key-file FILE, or {variable}",
            host=host,
            variable=KEY_VARIABLE,
        )
    return Entry(() if is_loopback(host) else None, key, origins)


def _key_of(path: Path) -> str:
    """The key in a file.

    Raises:
        UsageError: there is none.
    """
    from qwenchat.files.opening import read_file, reason_of
    from qwenchat.files.text import decode

    try:
        data, _ = read_file(path.expanduser(), _LONGEST_KEY)
    except (OSError, ValueError) as error:
        raise UsageError("{path}: {reason}", path=path, reason=reason_of(error)) from error
    key = decode(data, str(path)).strip()
    if not key or not key.isprintable() or not key.isascii() or " " in key:
        raise UsageError("{path} holds no key, expected one word", path=path)
    return key


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _log() -> Callable[[str], None]:
    from qwenchat.terminal import console

    return console.say
