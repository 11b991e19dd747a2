"""The loop of a chat on a terminal: reads a line, runs it, until the user leaves.

Owns what becomes of a line: a command, a message, or an end; what Tab offers; and that nothing that goes
wrong with a line ends the chat. What a line changes is ``chat.py``'s.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prompt_toolkit.completion import Completion

from qwenchat.errors import Interrupted, QwenchatError
from qwenchat.i18n.language import told, tr
from qwenchat.terminal import toolbar, transcript
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.commands import registry
from qwenchat.terminal.input import attachments
from qwenchat.terminal.input.prompt import Leave
from qwenchat.terminal.lending import suspendable
from qwenchat.terminal.signals import exit_on_hangup, interrupts_kept

log = logging.getLogger("qwenchat")


class Loop:
    """Runs a chat.

    Args:
        chat: the chat.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._warned = False  # that leaving now loses the chat
        chat.prompt.complete = lambda before: completions(chat, before)
        chat.prompt.toolbar = lambda: toolbar.render(chat)

    def run(self) -> int:
        """Reads and answers until the user leaves. Returns the exit code."""
        chat = self._chat
        with exit_on_hangup(), interrupts_kept(), suspendable(), chat.prompt.pastes_marked():
            try:
                if chat.resumed:
                    chat.tell_session()
                while self._goes_on():
                    pass
            finally:
                chat.close()
        return 0

    def _goes_on(self) -> bool:
        """Reads a line and runs it. Returns whether the chat goes on."""
        chat = self._chat
        try:
            text = chat.prompt.read(chat.take_next_line())
            chat.notices.show()
            if text.strip():
                self.take(text)
            else:
                chat.give_up_edit()
        except Leave:
            return not self._may_leave()
        self._warned = False
        return True

    def _may_leave(self) -> bool:
        """True if the chat is on the disk, or the user was told that it is not and leaves all the same."""
        reason = self._chat.unsaved_reason()
        if not reason or self._warned:
            return True
        self._warned = True
        self._chat.say(tr("this chat is not saved yet: {reason}", reason=reason), "error")
        self._chat.say(tr("/export writes it elsewhere; /quit or Ctrl-D once more leaves without it"))
        return False

    def take(self, text: str) -> None:
        """Runs one line of the user's: a command, a question in other words, or a message.

        What goes wrong is said.

        Raises:
            Leave: the user wants to leave.
        """
        chat = self._chat
        try:
            called = registry.find(text)
            if called is None:
                chat.send(text)
            else:
                chat.give_up_edit()
                command, rest = called
                command.run(chat, rest)
        except Leave:
            raise
        except KeyboardInterrupt:  # what ran did not end by itself
            chat.save()
            chat.say(transcript.how_it_ended(chat.conversation) or tr("interrupted"))
        except Interrupted as error:
            chat.say(told(error))
        except QwenchatError as error:
            chat.say(told(error, in_chat=True), "error")
            chat.say(chat.way_out(error))
        except Exception as error:
            log.debug("a mistake of the program", exc_info=True)
            chat.say(tr("internal error: {error}", error=f"{type(error).__name__}: {error}"), "error")


def completions(chat: Chat, before: str) -> Iterable[Completion]:
    """Commands, what can follow one, and paths, for the text before the cursor."""
    try:
        yield from registry.completions(chat, before)
        prefix = attachments.mention_prefix(before)
        if prefix is not None:
            for path in attachments.complete_path(prefix):
                yield Completion(path, start_position=-len(prefix))
    except Exception:  # a press of Tab is no place to say what is broken
        log.debug("completing failed", exc_info=True)
