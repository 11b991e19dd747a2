"""The commands that bring text in and take it out: files, the clipboard, an editor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qwenchat.chat import code_blocks
from qwenchat.errors import Phrase, UsageError
from qwenchat.files import text as textfile
from qwenchat.i18n.language import plural, tr
from qwenchat.terminal import clipboard, lending, transcript
from qwenchat.terminal.commands.registry import Group, number, without_force
from qwenchat.terminal.input import attachments, editor

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

_group = Group("Files and the clipboard")
command = _group.command


@command(
    "file",
    "Attach a text file to the next message, or list the attached ones.",
    usage="[PATH]",
    complete=lambda chat, rest: attachments.complete_path(rest),
)
def _file(chat: Chat, rest: str) -> None:
    if rest:
        file = chat.draft.attach(rest)
        chat.say(chat.draft.describe(file, chat.backend))
    elif chat.draft.attached:
        for file in chat.draft.attached:
            chat.say(chat.draft.describe(file, chat.backend))
    else:
        chat.say(_none_attached())


@command(
    "detach",
    "Detach the files from the next message, or one of them.",
    usage="[NAME]",
    complete=lambda chat, rest: (file.name for file in chat.draft.attached),
)
def _detach(chat: Chat, rest: str) -> None:
    if not rest and not chat.draft.attached:
        chat.say(_none_attached())
        return
    count = chat.draft.detach(rest)
    chat.say(plural(count, "detached one file", "detached {count} files"))


def _none_attached() -> str:
    return tr("no file is attached; /file PATH or @PATH attaches one")


@command(
    "copy",
    "Copy the last reply, the reply of turn N, or the last reply's code to the clipboard.",
    usage="[N|code]",
    complete=lambda chat, rest: ("code",) if code_blocks.code_blocks(_last_reply(chat)) else (),
)
def _copy(chat: Chat, rest: str) -> None:
    if rest == "code":
        text = "\n\n".join(block.text for block in _code(chat))
    else:
        text = _reply_text(chat, number(rest, 0))
    way = clipboard.copy(text)
    if way is None:
        said = plural(
            len(text),
            "sent one character to the terminal (OSC 52)",
            "sent {count} characters to the terminal (OSC 52)",
        )
    else:
        said = plural(
            len(text), "copied one character by {way}", "copied {count} characters by {way}", way=way
        )
    chat.say(said)


def _paths_after_number(chat: Chat, rest: str) -> Iterator[str]:
    first, space, path = rest.partition(" ")
    if space and first.isdecimal():
        yield from (f"{first} {found}" for found in attachments.complete_new_path(path))
    else:
        yield from attachments.complete_new_path(rest)


@command(
    "save-code",
    "Write the last reply's code, or its block N, to a new file.",
    usage="[N] [PATH] [--force]",
    complete=_paths_after_number,
)
def _save_code(chat: Chat, rest: str) -> None:
    blocks = _code(chat)
    rest, force = without_force(rest)
    first, _, others = rest.partition(" ")
    n, name = (number(first), others.strip()) if first.isdecimal() else (0, rest)
    if n > len(blocks) or (n == 0 and len(blocks) > 1):
        for i, block in enumerate(blocks, 1):
            lines = plural(attachments.line_count(block.text), "1 line", "{count} lines")
            chat.say(tr("{number}: {language}, {size}", number=i, language=block.language or "?", size=lines))
        count = plural(len(blocks), "there is only one block of code", "there are {count} blocks of code")
        raise UsageError(count, Phrase("usage: {usage}", usage="/save-code N PATH"))
    block = blocks[max(n, 1) - 1]
    path = attachments.to_path(name or code_blocks.suggested_name(block))
    textfile.write_text(path, block.text.rstrip("\n") + "\n", overwrite=force)
    chat.say(tr("wrote {path}", path=path))


@command("editor", "Write the next message in your editor; closing it does not send.", usage="[TEXT]")
def _editor(chat: Chat, rest: str) -> None:
    with lending.lent():
        text = editor.edit(rest)
    if text is None or not text.strip():
        chat.say(tr("nothing was written"))
    else:
        chat.put_on_line(text)


def _code(chat: Chat) -> list[code_blocks.Block]:
    blocks = code_blocks.code_blocks(_reply_text(chat, 0))
    if not blocks:
        raise UsageError("there is no code in the last reply")
    return blocks


def _last_reply(chat: Chat) -> str:
    """The last reply; empty if there is none."""
    replies = transcript.replies(chat.conversation)
    return replies[-1] if replies else ""


def _reply_text(chat: Chat, n: int) -> str:
    """The reply of turn ``n``; 0 for the last."""
    replies = transcript.replies(chat.conversation)
    if not replies:
        raise UsageError("no reply yet")
    if n > len(replies):
        raise UsageError(
            Phrase("there is no turn {n}", n=n),
            Phrase.of_number(len(replies), "there is only one turn", "there are {count} turns"),
        )
    return replies[n - 1]
