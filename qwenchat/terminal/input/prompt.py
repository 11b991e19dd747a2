"""The line that the user types on: keys, history, completion, the toolbar.

Built on prompt_toolkit. Knows nothing of models or sessions; what it completes and what the toolbar
says it is told by functions.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app, run_in_terminal
from prompt_toolkit.application.current import set_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER, SEARCH_BUFFER
from prompt_toolkit.filters import Condition, emacs_mode, is_searching, vi_navigation_mode
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.controls import SearchBufferControl
from prompt_toolkit.search import SearchState
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from qwenchat.errors import QwenchatError
from qwenchat.i18n.language import is_yes, told, tr
from qwenchat.terminal import console, lending, theme
from qwenchat.terminal.input import editor
from qwenchat.terminal.input.display import Display, PlainDisplay, display, drawn
from qwenchat.terminal.input.history import TypedLines
from qwenchat.terminal.input.line import Line, Pastes, Shown, swap_case
from qwenchat.terminal.sanitize import sanitize_line
from qwenchat.terminal.signs import plain, whole

_PROMPT = "> "


class Leave(Exception):
    """The user wants to leave."""


class Prompt:
    """Reads messages and commands.

    Args:
        history: the file that keeps what was typed, across runs; None keeps it for this run alone.
        notice: told what the user should know.
        on_ready: called once, after the line was drawn for the first time.
        on_clear: called when the user gives up what the line began with or holds.
        placeholder: stands on the first line while nothing is typed.
        vi: vi keys instead of emacs keys.

    Attributes:
        complete: completions of the text before the cursor.
        toolbar: what stands below the line.
        history: what was typed.
        multiline: whether Enter breaks the line and Alt-Enter sends, instead of the other way round.
    """

    def __init__(
        self,
        history: Path | None,
        *,
        notice: Callable[[str], None] = lambda line: None,
        on_ready: Callable[[], None],
        on_clear: Callable[[], None] = lambda: None,
        placeholder: str = "",
        vi: bool = False,
    ) -> None:
        self.multiline = False
        self.complete: Callable[[str], Iterable[Completion]] = lambda before: ()
        self.toolbar: Callable[[], str] = lambda: ""
        self._above: list[Callable[[], None]] = []

        self._pastes = Pastes()
        self._on_ready: Callable[[], None] | None = on_ready
        self._on_clear = on_clear
        self._empty_interrupts = 0
        self.history = TypedLines(history, self._pastes.unfold, notice)
        with _plain_where_dumb():
            self._session: _Session = _Session(
                multiline=True,
                history=self.history,
                auto_suggest=AutoSuggestFromHistory(),
                completer=PromptCompleter(lambda before: self.complete(before)),
                # A command's name shows what there is; all else waits for Tab.
                complete_while_typing=Condition(self._types_command),
                placeholder=[("class:auto-suggestion", placeholder)],
                key_bindings=self._keys(),
                bottom_toolbar=lambda: self.toolbar(),
                vi_mode=vi,
                style=Style.from_dict(theme.prompt_styles()),
                prompt_continuation=" " * len(_PROMPT),
                input=_keyboard(),
                output=display(),
                input_processors=[Shown(self._drawn)],
            )
        for control in self._session.layout.find_all_controls():
            if isinstance(control, SearchBufferControl) and control.input_processors is not None:
                control.input_processors.append(Shown(self._drawn))

    def read(self, default: str = "") -> str:
        """The next message or command, folded pastes unfolded.

        Args:
            default: what the line begins with, to be edited.

        Raises:
            Leave: Ctrl-D, or Ctrl-C twice on an empty line.
        """
        while True:
            self._take_typed()
            try:
                text = self._session.prompt(
                    _PROMPT,
                    default=self._pastes.refold(default),
                    pre_run=self._begin,
                    handle_sigint=False,  # Ctrl-C is a key here; a signal is the chat's to handle
                )
            except EOFError:
                raise Leave from None
            except KeyboardInterrupt:
                self._empty_interrupts += 1
                if self._empty_interrupts > 1:
                    raise Leave from None
                default = ""
                continue
            self._empty_interrupts = 0
            self._session.placeholder = None
            return self._pastes.unfold(text)

    def _take_typed(self) -> None:
        """Lets the line begin with what was typed while it was not there."""
        if sys.platform != "win32":
            from qwenchat.terminal.input.keyboard import Keyboard

            if isinstance(self._session.input, Keyboard):
                self._session.input.take_typed()

    @contextmanager
    def pastes_marked(self) -> Iterator[None]:
        """For the time of a chat: what is pasted is told from what is typed, also while a reply comes."""
        output = self._session.output
        if not isinstance(output, Display):
            yield
            return
        output.mark_pastes(True)
        forget = lending.changed(lambda: output.mark_pastes(False), lambda: output.mark_pastes(True))
        try:
            yield
        finally:
            forget()
            output.mark_pastes(False)

    def confirm(self, question: str) -> bool:
        """True if the user says yes; anything else, Ctrl-C and Ctrl-D too, is no."""
        asked: PromptSession[str] = PromptSession(output=self._session.output)
        try:
            answer = asked.prompt(tr("{question} [y/N] ", question=sanitize_line(question)))
        except (EOFError, KeyboardInterrupt):
            return False
        return is_yes(answer)

    def restyle(self) -> None:
        """Takes the styles of the theme in force."""
        self._session.style = Style.from_dict(theme.prompt_styles())

    @property
    def text(self) -> str:
        """The text being typed, a folded paste as one character."""
        return Pastes.hide(self._session.default_buffer.text)

    def redraw(self) -> None:
        """Draws the toolbar anew; may be called from any thread."""
        self._in_the_loop(self._session.app.invalidate)

    def above(self, show: Callable[[], None]) -> None:
        """Shows something above the line, now or when the next is begun; may be called from any thread."""
        self._above.append(show)
        self._in_the_loop(self._show_above)

    def _in_the_loop(self, call: Callable[[], None]) -> None:
        """Calls it in the thread of the prompt's loop: seen from another, the loop may end at any moment."""
        if (loop := self._session.app.loop) is not None:
            with suppress(RuntimeError):  # the line was sent just now
                loop.call_soon_threadsafe(call)

    def _show_above(self) -> None:
        app = self._session.app
        if app.is_running and self._above:
            with set_app(app):
                run_in_terminal(self._above.pop(0))

    @property
    def hint(self) -> str:
        """The hint of the moment: what the next Ctrl-C would do, or that a search finds nothing."""
        if sought := self._sought_in_vain():
            return tr("no earlier line contains {text}", text=sanitize_line(sought))
        return tr("Ctrl-C again or Ctrl-D leaves") if self._empty_interrupts and not self.text else ""

    def _sought_in_vain(self) -> str:
        control, line = self._session.layout.current_control, self._session.default_buffer
        if not isinstance(control, SearchBufferControl):
            return ""
        sought = control.buffer.text
        found = line.document_for_search(SearchState(sought, control.searcher_search_state.direction))
        return "" if sought in found.text else plain(sought)

    def _types_command(self) -> bool:
        return self.text.startswith("/") and not set(" \n/") & set(self.text[1:])

    def _begin(self) -> None:
        """A line is begun."""
        asyncio.get_running_loop().call_soon(self._show_above)
        self._watch_first_render()

    def _watch_first_render(self) -> None:
        ready, self._on_ready = self._on_ready, None
        if ready is None:
            return
        app = self._session.app

        def once(_: object) -> None:
            app.after_render -= once
            ready()

        app.after_render += once

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def send(event: KeyPressEvent) -> None:
            self._empty_interrupts = 0
            event.current_buffer.validate_and_handle()

        def break_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        def enter(event: KeyPressEvent) -> None:
            breaks = self.multiline and not vi_navigation_mode()
            if breaks and not event.current_buffer.text.startswith("/"):
                break_line(event)
            else:
                send(event)

        keys.add("enter", filter=~is_searching)(enter)  # which ends a search, as Ctrl-C does
        # Not with vi's keys, where Escape and Enter, one after the other, are the way to send.
        alt_enter = keys.add("escape", "enter", filter=emacs_mode & ~is_searching)
        alt_enter(lambda event: (send if self.multiline else break_line)(event))
        keys.add("c-j")(break_line)

        @keys.add("c-c", filter=~is_searching)
        def _(event: KeyPressEvent) -> None:
            self._on_clear()
            if event.current_buffer.text:
                self._empty_interrupts = 0
                event.current_buffer.reset()
            else:
                event.app.exit(exception=KeyboardInterrupt)

        @keys.add("c-z", filter=Condition(lending.can_suspend))
        def _(event: KeyPressEvent) -> None:
            run_in_terminal(lending.suspend)

        @keys.add("c-x", "c-e")
        @keys.add("v", filter=vi_navigation_mode)
        def _(event: KeyPressEvent) -> None:
            run_in_terminal(lambda: self._edit(event.current_buffer))

        @keys.add("~", filter=vi_navigation_mode)
        def _(event: KeyPressEvent) -> None:
            swap_case(event.current_buffer, event.arg)

        @keys.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            # Nothing in it is a key, so nothing in it sends.
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            event.current_buffer.insert_text(self._pastes.fold(text))

        return keys

    def _drawn(self, sign: str) -> str:
        shown = self._pastes.shown(sign)
        return drawn(shown) if isinstance(self._session.output, Display) else shown

    def _edit(self, buffer: Buffer) -> None:
        """Opens what is typed in the user's editor."""
        try:
            with lending.lent():
                text = editor.edit(self._pastes.unfold(buffer.text))
        except QwenchatError as error:
            console.say(told(error), "error")
            return
        if text is not None:
            text = self._pastes.refold(text)
            buffer.document = Document(text, len(text))


class _Session(PromptSession[str]):
    """A prompt whose text is a :class:`Line`."""

    def _create_default_buffer(self) -> Buffer:
        def accept(buffer: Buffer) -> bool:
            get_app().exit(result=buffer.text, style="class:accepted")
            return True

        return Line(
            name=DEFAULT_BUFFER,
            completer=self.completer,
            complete_while_typing=self.complete_while_typing,
            history=self.history,
            auto_suggest=self.auto_suggest,
            accept_handler=accept,
        )

    def _create_search_buffer(self) -> Buffer:
        return Line(name=SEARCH_BUFFER)


class PromptCompleter(Completer):
    """The completer of the prompt, which asks the caller."""

    def __init__(self, complete: Callable[[str], Iterable[Completion]]) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        typed = Pastes.hide(document.text_before_cursor)
        for found in self._complete(typed):
            replaced = typed[len(typed) + found.start_position :]
            yield Completion(
                whole(found.text),
                -len(whole(replaced)),
                found.display,
                found.display_meta,
                found.style,
                found.selected_style,
            )


def _keyboard() -> Input | None:
    """The input of keys; None for prompt_toolkit's choice: on Windows, and where stdin is no file."""
    if sys.platform == "win32":
        return None
    from qwenchat.terminal.input.keyboard import Keyboard

    try:
        return Keyboard(sys.stdin)
    except (AttributeError, OSError):
        return None


def _plain_where_dumb() -> AbstractContextManager[object]:
    """For making a session: on a terminal that obeys nothing, not even its first word is an escape."""
    return create_app_session(output=PlainDisplay(sys.stdout)) if is_dumb_terminal() else nullcontext()
