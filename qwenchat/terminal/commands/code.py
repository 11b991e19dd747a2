"""The commands that run code, in the confined interpreter of the session."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

from qwenchat.chat import code_blocks
from qwenchat.errors import Phrase, UsageError
from qwenchat.i18n.language import plural, tr
from qwenchat.terminal import approval, console
from qwenchat.terminal.code_runner import RunView, lines_of
from qwenchat.terminal.commands.registry import Group, number
from qwenchat.terminal.echo import quiet_keyboard
from qwenchat.terminal.input import attachments
from qwenchat.terminal.signals import cancel_on_interrupt
from qwenchat.terminal.transcript import replies

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

MAX_BYTES = 256 * 2**20
"""The largest file that is copied: a quarter of the disk that code may fill."""
_PYTHON = ("", "python", "python3", "py", "ipython")
_group = Group("Code")
command = _group.command


@command("python", "Run Python in a sandbox; its variables stay for the next run.", usage="CODE")
def _python(chat: Chat, rest: str) -> None:
    from qwenchat.sandbox import start  # the prompt need not wait for it

    _run(chat, rest, start.lacking())


@command("run", "Run the Python of the last reply in the sandbox, or its block N, after asking.", usage="[N]")
def _run_block(chat: Chat, rest: str) -> None:
    blocks = [
        block
        for block in code_blocks.code_blocks(next(reversed(replies(chat.conversation)), ""))
        if block.language.lower() in _PYTHON
    ]
    if not blocks:
        raise UsageError("there is no Python in the last reply")
    n = number(rest, 0) if rest else 0
    if n > len(blocks) or (n == 0 and len(blocks) > 1):
        for i, block in enumerate(blocks, 1):
            chat.say(
                tr("{number}: {language}, {size}", number=i, language="python", size=lines_of(block.text))
            )
        count = plural(len(blocks), "there is only one block of code", "there are {count} blocks of code")
        raise UsageError(count, Phrase("usage: {usage}", usage="/run N"))
    code = blocks[max(n, 1) - 1].text
    from qwenchat.sandbox import start  # the prompt need not wait for these
    from qwenchat.terminal.render.live import render_markdown

    if unconfined := start.lacking():  # which is asked about, with the code
        _run(chat, code, unconfined)
        return
    fence = "~" * 3 + "~" * max(map(len, re.findall("~+", code)), default=0)
    render_markdown(f"{fence}python\n{code}\n{fence}", plain=chat.settings.plain)
    if chat.prompt.confirm(tr("run it?")):
        _run(chat, code)
    else:
        chat.say(tr("nothing was run"))


@command(
    "put",
    "Copy a file of any kind to where Python runs.",
    usage="PATH",
    complete=lambda chat, rest: attachments.complete_path(rest),
)
def _put(chat: Chat, rest: str) -> None:
    if not rest:
        raise UsageError(Phrase("usage: {usage}", usage="/put PATH"))
    name, data = attachments.read_any(rest, MAX_BYTES)
    path = chat.code.put(chat.session, name, data)
    chat.say(tr("Python has {name} in its folder", name=path.name))


def _run(chat: Chat, code: str, unconfined: str = "") -> None:
    """Runs code confined; or, after a yes to this run, otherwise, with the reason why nothing confines it."""
    view, run = RunView(), chat.code.run
    with ExitStack() as stack:
        stack.callback(quiet_keyboard())
        if unconfined:
            if not _said_yes(unconfined, code):
                chat.say(tr("nothing was run"))
                return
            run = chat.code.run_unconfined
        cancel = stack.enter_context(cancel_on_interrupt())
        done = run(chat.session, code, cancel, view.show, chat.draft.attached)
    view.end(done)
    console.blank_line()


def _said_yes(reason: str, code: str) -> bool:
    try:
        return approval.ask_unconfined(reason, code)
    except KeyboardInterrupt:
        return False
