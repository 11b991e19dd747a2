"""The chat on a terminal: read, dispatch, stream, save.

:class:`Chat` is what the commands act on. Tokens come from a backend that somebody else loads, what
becomes of a reply is ``turn.py``'s, sessions are somebody else's files; this module joins them with
the prompt and the live view.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Event, PrefillProgress, ReplyEnd, Role, TextDelta
from qwenchat.chat.nodes import Node
from qwenchat.chat.turn import broke_off, fit_turns, now, stream_reply
from qwenchat.errors import Interrupted, ModelError, Phrase, QwenchatError, SessionError, UsageError
from qwenchat.humanize import ranges
from qwenchat.i18n.language import plural, told, tr
from qwenchat.sessions.autosave import Autosave
from qwenchat.sessions.resume import Start, options_for, remember
from qwenchat.sessions.store import Session, SessionStore
from qwenchat.settings.schema import Settings
from qwenchat.terminal import console, status, transcript
from qwenchat.terminal.background_load import BackgroundLoad, Load
from qwenchat.terminal.commands import registry
from qwenchat.terminal.echo import quiet_keyboard
from qwenchat.terminal.input import attachments
from qwenchat.terminal.input.draft import Draft
from qwenchat.terminal.input.prompt import Leave, Prompt
from qwenchat.terminal.lending import suspendable
from qwenchat.terminal.signals import cancel_on_interrupt, exit_on_hangup, interrupts_kept

if TYPE_CHECKING:
    from qwenchat.terminal.columns import Table

log = logging.getLogger("qwenchat")

TURNS_SHOWN = 3
"""Turns that are printed when a chat goes on with a session."""


class Chat:
    """One running chat.

    Args:
        settings: the settings in force.
        start: what it begins with.
        store: the sessions.
        make_load: a model's name to what loads it.
        check_model: raises where nothing has a name; asked before another model is loaded.
        history: the file of typed lines; None keeps none of them.
        model_names: gives the names that ``/model`` completes.

    Attributes:
        settings, store, model_names: as given.
        prompt: the line that the user types on.
        autosave: saves the session.
        options: what is asked of the next reply.
        last: the end of the last reply; None before there is one.
        left_out: the ids of the questions whose turns no longer fitted.
        draft: the files that go with the next message.
    """

    def __init__(
        self,
        settings: Settings,
        start: Start,
        store: SessionStore,
        make_load: Callable[[str], Load],
        *,
        check_model: Callable[[str], None] = lambda name: None,
        history: Path | None,
        model_names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.settings = settings
        self.store = store
        self.model_names = model_names
        self._base, self._given = start.base, dict(start.given)
        self.options = options_for(start.base, start.session, start.given)
        self._warnings: list[str] = []
        self.autosave = Autosave(start.session, self._warnings.append, settings.save)
        self.last: ReplyEnd | None = None
        self.left_out: frozenset[int] = frozenset()
        self.draft = Draft()
        self._start = start
        self._make_load, self._check_model = make_load, check_model
        self._next_line = ""
        self._editing: int | None = None
        self._meter = status.Meter()
        self._loading = BackgroundLoad(start.model, make_load(start.model), self._redraw)
        self.prompt = Prompt(
            history,
            complete=self._completions,
            toolbar=self._toolbar,
            on_ready=self._loading.start,
            on_clear=self._give_up_edit,
            placeholder=tr("say something, or /help"),
            vi=settings.keys == "vi",
        )

    @property
    def session(self) -> Session:
        """The session; nothing of it is on the disk before the first question."""
        return self.autosave.session

    @property
    def conversation(self) -> Conversation:
        """The tree of turns."""
        return self.session.conversation

    @property
    def model(self) -> str:
        """The name of the model that is, or is to be, loaded."""
        return self._loading.name

    @property
    def backend(self) -> Backend | None:
        """The model, if it is there."""
        return self._loading.backend

    # --- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        """Reads and answers until the user leaves; the exit code."""
        with exit_on_hangup(), interrupts_kept(), suspendable(), self.prompt.pastes_marked():
            try:
                if self._start.resumed:
                    self.tell_session()
                while True:
                    line, self._next_line = self._next_line, ""
                    text = self.prompt.read(line)
                    self._tell_what_waits()
                    if text.strip():
                        self._take(text)
                    else:
                        self._give_up_edit()
            except Leave:
                return 0
            finally:
                self.autosave.close()
                self._tell_what_waits()

    def _take(self, text: str) -> None:
        """One line of the user's: a command, a rewritten question, or a message."""
        try:
            called = registry.find(text)
            if called is None:
                self.send(text)
            else:
                self._editing = None
                found, rest = called
                found.run(self, rest)
        except Leave:
            raise
        except KeyboardInterrupt:  # what ran did not end by itself
            self.save()
            self.say(transcript.how_it_ended(self.conversation) or tr("interrupted"))
        except Interrupted as error:
            self.say(told(error))
        except QwenchatError as error:
            self.say(told(error, in_chat=True), "error")
            if isinstance(error, ModelError) and self._loading.error is error:
                self.say(tr("/model NAME tries another; /retry then asks again"))
            elif isinstance(error, ModelError) and self._loading.failure is error:
                self.say(tr("{model} stays; /retry asks it", model=self.model))
        except Exception as error:
            log.debug("a mistake of the program", exc_info=True)
            self.say(tr("internal error: {error}", error=f"{type(error).__name__}: {error}"), "error")

    # --- answering -----------------------------------------------------------------------------

    def send(self, typed: str) -> None:
        """Sends a message, or the question that was rewritten, and answers it.

        What cannot be answered, because a file is missing, it is too long, or the user took it back, goes
        back to the line that it was typed on.
        """
        editing, self._editing = self._editing, None
        attached, nodes = list(self.draft.attached), len(self.conversation.nodes)
        try:
            text = (typed[1:] if typed.startswith("//") else typed).rstrip("\n")
            message, files, missing = self.draft.message(text)
            for file in files:
                self.say(self.draft.describe(file, self.backend))
            for path in missing:
                self.say(attachments.sent_as_text(path))
            self.draft.attached.clear()
            if editing is None:
                self.answer_to(lambda: self.conversation.ask(message, now()))
            else:
                self.answer_to(lambda: self.conversation.edit(editing, message, now()))
        except (QwenchatError, KeyboardInterrupt):
            if len(self.conversation.nodes) == nodes:
                self.put_on_line(typed)
                self._editing, self.draft.attached = editing, attached
            raise

    def answer_to(self, change: Callable[[], object]) -> None:
        """Makes a change that asks for a reply, and answers; where no reply begins, there was no change.

        But a question that only lacks a model stays, for /retry.
        """
        session, before, title = self.session, self.conversation.fork(), self.session.title
        try:
            change()
            self.answer()
        except (QwenchatError, KeyboardInterrupt) as error:
            here = session.conversation.current
            if here is not None and here.role is Role.USER and not isinstance(error, ModelError):
                session.conversation, session.title = before, title
                self.save()
            raise

    def answer(self) -> None:
        """Answers the question where the chat stands, or goes on with its reply that broke off."""
        self.save()
        with ExitStack() as stack:
            stack.callback(quiet_keyboard())
            cancel = stack.enter_context(cancel_on_interrupt())
            backend = self._wait_for_model(cancel)
            self._tell_if_greedy(backend)
            fit = fit_turns(self.conversation, backend, self.options, self.settings.overflow)
            self._tell_left_out(fit.left_out_turns)
            self._show(
                stream_reply(
                    self.conversation, fit.messages, backend, self.options, self.autosave.save, cancel
                )
            )
        self._tell_what_waits()
        self.say(transcript.how_it_ended(self.conversation))
        self.say(transcript.place_among_siblings(self.conversation))
        console.blank_line()

    def go_on(self) -> None:
        """Goes on with the last reply where it broke off.

        Raises:
            UsageError: it is complete, or there is none.
        """
        if not broke_off(self.conversation):
            raise UsageError("there is no reply that broke off", "/retry answers the question again")
        self.answer()

    def _tell_if_greedy(self, backend: Backend) -> None:
        """Says before a question is answered again that the answer will be the same."""
        here = self.conversation.current
        again = here is not None and here.role is Role.USER and self.conversation.replies(here.id)
        if again and backend.effective(self.options).temperature == 0:
            self.say(
                tr("temperature is 0: the same model answers the same; /set temperature 0.7 lets it differ")
            )

    def _show(self, events: Generator[Event, None, None]) -> None:
        from qwenchat.terminal.render.live import LiveReply  # the prompt need not wait for Markdown

        self.last = None
        # Above the reply stands at least the prompt's line.
        with closing(events), LiveReply(plain=self.settings.plain, rows_above=1) as view:
            prefill = status.PrefillLine()
            for event in events:
                if isinstance(event, TextDelta):
                    view.push(event.text)
                elif isinstance(event, PrefillProgress):
                    view.status(prefill.at(event))
                else:
                    self.last = event
        if self.last is not None:
            self.say(status.why_nothing_was_reused(self.last))

    def _wait_for_model(self, cancel: threading.Event) -> Backend:
        if not self._loading.started:
            self._loading.start()
        if self._loading.progress:
            with console.progress_reporter(quiet=self.settings.quiet) as report:
                while self._loading.progress and not cancel.wait(0.05):
                    report(self._loading.progress, None)
        backend = self._loading.wait(cancel)
        self.session.model = backend.name
        self._tell_what_waits()
        return backend

    # --- saying --------------------------------------------------------------------------------

    def say(self, line: str, style: console.Style = "notice") -> None:
        """One line for the user, beside the chat."""
        if line:
            console.say(line, style)

    def say_rows(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Lines in columns."""
        console.say_rows(rows)

    def say_table(self, table: Table) -> None:
        """A table beside the chat."""
        console.say_table(table)

    def context_tokens(self) -> int:
        """Tokens of the context that are taken; 0 while there is no model to count them."""
        return self._meter.tokens(self.conversation, self.backend) if self.backend is not None else 0

    def show_last(self) -> None:
        """Prints the turn where the chat stands."""
        transcript.show(self.conversation, plain=self.settings.plain, turns=1, rest=False)

    def show_from(self, node: Node) -> None:
        """Prints the turns from a node of the path on."""
        turns = sum(question.id >= node.id for question in self.conversation.questions())
        transcript.show(self.conversation, plain=self.settings.plain, turns=max(turns, 1), rest=False)

    def show_history(self) -> None:
        """Prints the chat so far."""
        transcript.show(self.conversation, plain=self.settings.plain)

    def tell_session(self) -> None:
        """Shows the session that the chat goes on with, and where it stands."""
        self._tell_what_waits()
        transcript.show(self.conversation, plain=self.settings.plain, turns=TURNS_SHOWN, whole=False)
        self.say(transcript.summary(self.session))
        model = self.session.model
        if self.backend is not None and model not in ("", self.model, self.backend.name):
            self.say(tr("{model} answered in it last; /model {model} loads that", model=model))

    def _tell_left_out(self, turns: Sequence[int]) -> None:
        """What no longer fits is said once, by turn."""
        questions = self.conversation.questions()
        new = [n for n in turns if questions[n - 1].id not in self.left_out]
        self.left_out = frozenset(questions[n - 1].id for n in turns)
        if len(new) == 1:
            self.say(tr("turn {n} no longer fits the context and is left out; /pin keeps a turn", n=new[0]))
        elif new:
            numbers = ranges(new)
            self.say(
                tr(
                    "turns {turns} no longer fit the context and are left out; /pin keeps a turn",
                    turns=numbers,
                )
            )

    def _tell_failed_load(self) -> None:
        """Says that another model could not be loaded, where the user reads it before the next question."""
        if (failure := self._loading.take_failure()) is not None:
            self.say(told(failure, in_chat=True), "error")
            self.say(tr("{model} stays", model=self.model))

    def _tell_what_waits(self) -> None:
        """Says what was collected by those who cannot say it themselves."""
        for lines in (self._loading.notices, self._warnings, self.prompt.untold):
            while lines:
                self.say(lines.pop(0), "warning" if lines is self._warnings else "notice")

    # --- the prompt's surroundings -------------------------------------------------------------

    def _completions(self, before: str) -> Iterable[Any]:
        from prompt_toolkit.completion import Completion

        try:
            yield from registry.completions(self, before)
            prefix = attachments.mention_prefix(before)
            if prefix is not None:
                for path in attachments.complete_path(prefix):
                    yield Completion(path, start_position=-len(prefix))
        except Exception:  # a press of Tab is no place to say what is broken
            log.debug("completing failed", exc_info=True)

    def _toolbar(self) -> str:
        try:
            return self._toolbar_line()
        except Exception:  # the line below must never cost the line above
            log.debug("the toolbar failed", exc_info=True)
            return status.fitted([self.model])

    def _toolbar_line(self) -> str:
        loading, columns = self._loading, shutil.get_terminal_size().columns
        if self.prompt.hint:
            return self.prompt.hint
        if loading.progress:
            return status.fitted([tr("{path}: {reason}", path=self.model, reason=loading.progress)])
        if loading.error is not None:
            return status.failure(self.model, loading.error.message, columns)
        if loading.backend is None:
            return status.fitted([self.model])
        extras = list(self._extras())
        return status.toolbar(loading.backend, self.context_tokens(), self.last, extras, columns)

    def _extras(self) -> Iterator[str]:
        """What else the toolbar says."""
        if self._editing is not None:
            yield tr("question {n} in other words", n=self._editing)
        if self.backend is not None:
            yield from self.draft.marks(self.prompt.text, self.backend)
        if self.prompt.multiline:
            yield tr("Alt-Enter sends")
        if not self.settings.save or self.session.read_only or self.autosave.last_error:
            yield tr("not saved")

    def _redraw(self) -> None:
        prompt = getattr(self, "prompt", None)
        if prompt is not None:
            prompt.redraw()
            if self._loading.failure is not None:
                prompt.above(self._tell_failed_load)

    # --- what commands do ----------------------------------------------------------------------

    def save(self) -> None:
        """Saves the session; what went wrong is said, and the chat goes on."""
        self.autosave.save()
        self._tell_what_waits()

    def moved(self, line: str) -> None:
        """Saves the place that a command went to, and says so."""
        self.save()
        self.say(line)

    def edit(self, n: int) -> None:
        """Puts question ``n`` on the line, to be sent as an alternative of itself."""
        questions = self.conversation.questions()
        if not 1 <= n <= len(questions):
            count = plural(len(questions), "there is only one question", "there are {count} questions")
            raise UsageError(Phrase("there is no question {n}", n=n), count)
        text = questions[n - 1].text
        self.put_on_line(f"/{text}" if text.startswith("/") else text)
        self._editing = n

    def _give_up_edit(self) -> None:
        self._editing = None

    def put_on_line(self, text: str) -> None:
        """Lets the next line begin with a text, to be edited and sent."""
        self._next_line = text

    def load(self, name: str) -> None:
        """Loads another model in the background, in place of the one that is there.

        Raises:
            ModelNotFoundError: nothing has that name.
        """
        self._check_model(name)
        self._loading = BackgroundLoad(name, self._make_load(name), self._redraw, after=self._loading)
        self._loading.start()

    def set_option(self, name: str, value: object) -> None:
        """Asks for the next reply so; the session remembers it."""
        remember(self.session, name, value)
        self._given.pop(name, None)  # what is said last holds
        self.options = options_for(self._base, self.session, self._given)
        self.save()

    def origin(self, name: str) -> str:
        """Who said what an option is; empty if nobody did, so that the model decides."""
        if getattr(self.options, name) in (None, ()):
            return ""
        if name in self._given:
            return tr("command line")
        return tr("this chat") if name in self.session.settings else tr("settings")

    def go_to(self, session: Session | None) -> None:
        """Leaves this session for another, or for a new one."""
        if self.autosave.last_error:
            self.save()
        if self.autosave.last_error:
            raise SessionError(
                "this chat is not on the disk yet: {reason}",
                "/export writes it elsewhere, /quit leaves it",
                reason=self.autosave.last_error,
            )
        self.autosave.close()
        new = session or self._new_session(self.conversation.system)
        self.autosave = Autosave(new, self._warnings.append, self.settings.save)
        self.options = options_for(self._base, self.session, self._given)
        self.draft = Draft()
        self.last, self.left_out, self._editing = None, frozenset(), None

    def leave(self) -> None:
        """Ends the chat."""
        raise Leave

    def _new_session(self, system: str | None) -> Session:
        return self.store.create(Conversation(system), model=self.model)
