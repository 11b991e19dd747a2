"""The commands about sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.errors import Phrase, UsageError
from qwenchat.files import text
from qwenchat.i18n.language import tr
from qwenchat.sessions.listing import with_a_title_alone
from qwenchat.sessions.typed_lines import said_in
from qwenchat.terminal import console
from qwenchat.terminal.commands.registry import Group, number, without_force
from qwenchat.terminal.input.attachments import complete_new_path, to_path
from qwenchat.terminal.session_table import described, hit_table, list_table

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

_LISTED = 20
_group = Group("Sessions")
command = _group.command


@command("sessions", "List the last 20 sessions, or the last N.", usage="[N]")
def _sessions(chat: Chat, rest: str) -> None:
    infos = chat.store.list()
    shown = infos[: number(rest, _LISTED)]
    if shown:
        console.say_table(list_table(shown, here=chat.session.id))
    if not infos:
        chat.say(tr("there are no sessions yet"))
    elif len(shown) < len(infos):
        chat.say(
            tr("{count} more; /sessions {all} lists them all", count=len(infos) - len(shown), all=len(infos))
        )


def _names(chat: Chat, rest: str) -> Iterator[tuple[str, str]]:
    """Ids, or titles once a title is begun."""
    infos = chat.store.list()
    for info in infos:
        yield info.id, info.title or info.problem
    if rest:
        yield from ((info.title, info.id) for info in with_a_title_alone(infos))


def _others(chat: Chat, rest: str) -> Iterator[tuple[str, str]]:
    """The names of sessions that can be read, and are not the one at hand."""
    taken = {info.id for info in chat.store.list() if not info.problem and info.id != chat.session.id}
    return (names for names in _names(chat, rest) if taken.intersection(names))


@command(
    "resume",
    "Go on with another session: an id, a title, the beginning of either, or the latest.",
    usage="[NAME]",
    complete=_others,
)
def _resume(chat: Chat, rest: str) -> None:
    if not rest:
        others = (info for info in chat.store.list() if info.id != chat.session.id and not info.problem)
        latest = next(others, None)
        if latest is None:
            raise UsageError("there is no other session")
        rest = latest.id
    elif chat.store.find(rest).id == chat.session.id:
        raise UsageError("this is the session that you are in")
    chat.go_to(lambda: chat.store.open(rest, on_locked="fork", on_damaged="set_aside"))
    chat.tell_session()


@command("rename", "Give this session another title.", usage="TITLE")
def _rename(chat: Chat, rest: str) -> None:
    chat.session.rename(rest)
    chat.save_and_say(tr("this session is called {title}", title=chat.session.title))


@command("fork", "Go on in a copy of this session; the original stays as it is.")
def _fork(chat: Chat, rest: str) -> None:
    if not chat.conversation.nodes:
        raise UsageError("nothing to copy yet", "say something first")
    chat.go_to(lambda: chat.store.copy(chat.session.record()))
    chat.save_and_say(tr("this is a copy, {title}", title=chat.session.title))


@command(
    "delete", "Delete this session, or another; it asks before it does.", usage="[NAME]", complete=_names
)
def _delete(chat: Chat, rest: str) -> None:
    if not rest and not chat.session.path.exists():
        raise UsageError("this chat was not saved", "nothing to delete")
    info = chat.store.find(rest or chat.session.id)
    said = said_in(chat.store, info.id)
    if not chat.prompt.confirm(tr("delete {session}?", session=described(info))):
        chat.say(tr("it stays"))
        return
    if info.id == chat.session.id:
        chat.go_to()  # it is closed first, or nobody could delete it
    chat.store.delete(info.id)
    chat.say(tr("deleted {title!r}", title=info.title or info.id))
    chat.prompt.history.forget(said)


@command("search", "Find the sessions that contain a text.", usage="TEXT")
def _search(chat: Chat, rest: str) -> None:
    if not rest:
        raise UsageError("nothing to search for", "usage: {usage}", usage="/search TEXT")
    hits = chat.store.search(rest)
    if hits:
        console.say_table(hit_table(hits, rest))
    else:
        chat.say(tr("no session contains {text!r}", text=rest))


def _export_words(chat: Chat, rest: str) -> Iterator[str]:
    from qwenchat.sessions.export import FORMATS

    kind, space, path = rest.partition(" ")
    if space and kind in FORMATS:
        yield from (f"{kind} {found}" for found in complete_new_path(path))
    else:
        yield from FORMATS
        yield from complete_new_path(rest)


@command(
    "export",
    "Write the chat to a file: md, html, json or txt; by default its ending decides, else md.",
    usage="[md|html|json|txt] [PATH] [--force]",
    complete=_export_words,
)
def _export(chat: Chat, rest: str) -> None:
    from qwenchat.sessions.export import FORMATS, format_of

    rest, force = without_force(rest)
    first, _, others = rest.partition(" ")
    kind, name = (
        (first, others.strip()) if first in FORMATS else (format_of(to_path(rest) if rest else None), rest)
    )
    if kind not in FORMATS:
        raise UsageError(Phrase("unknown format {kind!r}", kind=kind or rest), "/export " + "|".join(FORMATS))
    if not chat.conversation.nodes:
        raise UsageError("nothing to export yet", "say something first")
    path = to_path(name) if name else Path(f"{_file_name(chat)}.{kind}")
    text.write_text(path, FORMATS[kind](chat.session.record()), overwrite=force)
    chat.say(tr("wrote {path}", path=path))


def _file_name(chat: Chat) -> str:
    """The session's title as a file can be called on any system; its id if nothing is left of that."""
    words = "".join(c if c.isalnum() else " " for c in chat.session.title).split()
    return "-".join(words)[:60] or chat.session.id
