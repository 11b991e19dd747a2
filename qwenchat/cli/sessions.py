"""``qwenchat sessions``: the chats on this machine, from the command line.

Owns what can be done with sessions there. What a session is, and what its name may be, is ``sessions``'s; the
tables of sessions are ``terminal/session_table.py``'s.

stdout gets what was asked for and nothing else: lines, a document, or JSON. The JSON is verbatim once it
is parsed; all else passes the sanitiser, but for documents that go into a file or a pipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwenchat.cli import chat, completion
from qwenchat.cli.context import Context
from qwenchat.cli.output import (
    check_terminal,
    columns,
    confirm,
    print_gated,
    print_json_text,
    print_lines,
    print_object,
    print_objects,
    print_tables,
)
from qwenchat.cli.parser import App
from qwenchat.errors import SessionError, UsageError
from qwenchat.i18n.language import plural, tr

if TYPE_CHECKING:
    from qwenchat.sessions.listing import SessionInfo
    from qwenchat.sessions.store import SessionStore

_NAMED = 10  # of the sessions that are about to be deleted

app = App(help="List and manage the chats on this machine.")


# --- the commands --------------------------------------------------------------------------------

_NAME_HELP = "An id, a title, the beginning of either, or latest."
_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help=_NAME_HELP, show_default=False, autocompletion=completion.readable_sessions
    ),
]
_Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="List only the last N.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def sessions(ctx: typer.Context) -> None:
    """Lists the sessions, where no command was named."""
    ctx.obj.read_settings()  # what is wrong with them is told before anything is done
    if ctx.invoked_subcommand is None:
        list_sessions(ctx)


@app.command("list")
def list_sessions(ctx: typer.Context, limit: _Limit = None, as_json: _Json = False) -> None:
    """List the sessions, newest first."""
    from qwenchat.terminal.session_table import list_table

    context: Context = ctx.obj
    infos = context.store.list()[:limit]
    if context.wants_json(as_json):
        print_objects(info.as_dict() for info in infos)
    elif infos:
        print_tables(list_table(infos))
    else:
        context.say(tr("there are no sessions yet"))


@app.command()
def show(
    ctx: typer.Context,
    name: _Name,
    plain: Annotated[bool, typer.Option("--plain", help="No Markdown on a terminal.")] = False,
    as_json: _Json = False,
) -> None:
    """Print a chat: its current branch, or all of it as JSON."""
    from qwenchat.sessions.export import to_json, to_markdown

    context: Context = ctx.obj
    record = context.store.record(name)
    if context.wants_json(as_json):
        print_json_text(to_json(record))
    elif columns() is None:
        print_lines(to_markdown(record))
    else:
        from qwenchat.terminal.render.live import render_markdown

        render_markdown(to_markdown(record), plain=plain or context.settings.plain)


@app.command()
def resume(ctx: typer.Context, name: _Name) -> None:
    """Continue a chat."""
    chat.chat(ctx.obj, session=name)


@app.command()
def rename(
    ctx: typer.Context,
    name: _Name,
    title: Annotated[list[str], typer.Argument(metavar="TITLE", show_default=False)],
    as_json: _Json = False,
) -> None:
    """Give a session another title."""
    from qwenchat.files.text import check

    context: Context = ctx.obj
    info = context.store.rename(name, check(" ".join(title), tr("the title")))
    if context.wants_json(as_json):
        print_object(info.as_dict())
    else:
        context.say(tr("{id} is called {title!r} now", id=info.id, title=info.title))


@app.command()
def search(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="TEXT", show_default=False)],
    limit: _Limit = None,
    as_json: _Json = False,
) -> None:
    """List the sessions that contain a text, whatever its case.

    It searches titles, questions and replies.
    """
    from qwenchat.files.text import check
    from qwenchat.terminal.session_table import hit_table

    context: Context = ctx.obj
    text = check(" ".join(words), tr("what is searched for"))
    if not text:
        raise UsageError("nothing to search for", "usage: {usage}", usage="qwenchat sessions search TEXT")
    hits = context.store.search(text)[:limit]
    if context.wants_json(as_json):
        print_objects(hit.as_dict() for hit in hits)
    elif hits:
        print_tables(hit_table(hits, text))
    else:
        context.say(tr("no session contains {text!r}", text=text))


@app.command()
def fork(
    ctx: typer.Context,
    name: _Name,
    title: Annotated[str, typer.Option(metavar="TEXT", help="The copy's title.", show_default=False)] = "",
    as_json: _Json = False,
) -> None:
    """Copy a session, and print the copy's id."""
    from qwenchat.files.text import check

    context: Context = ctx.obj
    store = context.store
    with store.fork(name, check(title, tr("the title"))) as copy:
        info = store.find(copy.id)
    if context.wants_json(as_json):
        print_object(info.as_dict())
    else:
        print_lines(f"{info.id}\n")


@app.command()
def delete(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help=_NAME_HELP, show_default=False, autocompletion=completion.sessions
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Delete all that were saved longer ago than that."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete sessions; asks first."""
    from qwenchat.paths import history_file
    from qwenchat.sessions import typed_lines

    context: Context = ctx.obj
    store = context.store
    infos = _to_delete(store, names or [], older_than)
    if infos and not yes:
        _ask_to_delete(infos)
    deleted, failures, said = [], [], []
    for info in infos:
        try:
            said_in_it = typed_lines.said_in(store, info.id)
            deleted.append(store.delete(info.id))
            said.append(said_in_it)
        except SessionError as error:  # what is in use does not keep the others
            failures.append(error)
    if context.wants_json(as_json):
        print_objects(info.as_dict() for info in deleted)
    elif len(deleted) == 1:
        context.say(tr("deleted {title!r}", title=_called(deleted[0])))
    elif deleted or not failures:
        context.say(plural(len(deleted), "deleted one session", "deleted {count} sessions"))
    if said:
        typed_lines.forget(history_file(), lambda line: any(was_said(line) for was_said in said))
    if len(failures) > 1:
        many = plural(
            len(failures),
            "one session could not be deleted: {first}",
            "{count} sessions could not be deleted: {first}",
            first=failures[0].message,
        )
        raise SessionError(many, failures[0].hint)
    if failures:
        raise failures[0]


@app.command()
def export(
    ctx: typer.Context,
    name: _Name,
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="md, html, json or txt; by default the file's ending decides, else md.",
            show_default=False,
            autocompletion=completion.export_formats,
        ),
    ] = "",
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file.", show_default=False),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print a chat as a document, or write it to a file."""
    from qwenchat.files.text import write_text
    from qwenchat.sessions.export import FORMATS

    context: Context = ctx.obj
    path = None if output == "-" else Path(output)
    kind = _format(kind or ("json" if context.wants_json(as_json) else ""), path)
    text = FORMATS[kind](context.store.record(name))
    if path is not None:
        write_text(path, text, overwrite=force)
        context.say(tr("wrote {path}", path=path))
    elif kind == "json" and columns() is not None:
        print_json_text(text)
    else:
        print_gated(text)


def _format(given: str, path: Path | None) -> str:
    """The format that was named, or that the file's name says."""
    from qwenchat.sessions.export import FORMATS, format_of

    kind = given or format_of(path)
    if kind in FORMATS:
        return kind
    names = tr(", ").join(FORMATS)
    if kind:
        raise UsageError("unknown format {kind!r}", "there are {names}", kind=kind, names=names)
    raise UsageError("{path} does not say its format", "--format takes {names}", path=path, names=names)


# --- deleting ------------------------------------------------------------------------------------


def _to_delete(store: SessionStore, names: Sequence[str], days: float | None) -> list[SessionInfo]:
    """The sessions of these names, each once; or without names those that are older."""
    from qwenchat.terminal.session_table import local_time

    if bool(names) == (days is not None):
        raise UsageError("delete which sessions?", "give their names, or --older-than DAYS")
    if days is None:
        return list({info.id: info for info in map(store.find, names)}.values())
    try:
        limit = datetime.now(UTC) - timedelta(days=days)
    except OverflowError:  # before there were years
        return []
    # What cannot be read may be a newer version's; it goes only by name.
    dated = [(info, local_time(info.updated)) for info in store.list() if not info.problem]
    return [info for info, moment in dated if moment is not None and moment < limit]


def _ask_to_delete(infos: Sequence[SessionInfo]) -> None:
    """Asks the user, by title and number of turns.

    Raises:
        Interrupted: the answer is not yes.
        UsageError: nobody can answer.
    """
    from qwenchat.terminal import console
    from qwenchat.terminal.session_table import described

    unasked = tr("--yes deletes without asking")
    check_terminal(unasked)
    if len(infos) == 1:
        question = tr("delete {session}?", session=described(infos[0]))
    else:
        for info in infos[:_NAMED]:
            console.say(described(info))
        if len(infos) > _NAMED:
            console.say(tr("and {n} more", n=len(infos) - _NAMED))
        question = plural(len(infos), "delete this session?", "delete these {count} sessions?")
    confirm(question, unasked=unasked, declined=tr("nothing was deleted"))


def _called(info: SessionInfo) -> str:
    return info.title or info.id
