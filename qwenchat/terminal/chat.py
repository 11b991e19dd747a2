"""The chat that the commands act on: its session, its model, its next message; answers and saves.

Tokens come from a backend that somebody else loads, what becomes of a reply is ``chat/turn.py``'s,
sessions are somebody else's files; this module joins them with the prompt and the live view. Does not
know what is typed, or which commands there are: that is ``loop.py``'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, ReplyEnd
from qwenchat.chat.nodes import Node
from qwenchat.chat.parts import Role
from qwenchat.chat.turn import now, resumable
from qwenchat.errors import ModelError, QwenchatError, SessionError, UsageError
from qwenchat.i18n.language import told, tr
from qwenchat.sessions.autosave import Autosave
from qwenchat.sessions.resume import Start, options_for, remember
from qwenchat.sessions.store import Session, SessionStore
from qwenchat.settings.schema import Settings
from qwenchat.terminal import answering, console, transcript
from qwenchat.terminal.background_load import BackgroundLoad, Load
from qwenchat.terminal.code_runner import CodeRunner
from qwenchat.terminal.input import attachments
from qwenchat.terminal.input.draft import Draft
from qwenchat.terminal.input.prompt import Prompt
from qwenchat.terminal.notices import Notices
from qwenchat.terminal.theme import Look
from qwenchat.terminal.token_counter import TokenCounter
from qwenchat.terminal.tools import ChatTools

TURNS_SHOWN = 3
"""Turns that are printed when a chat goes on with a session."""


class Chat:
    """One running chat.

    Args:
        settings: the settings in force.
        start: what it begins with.
        store: the sessions.
        make_load: a model's name to what loads it.
        notices: what the user is to know once the terminal is free; also told by the store.
        check_model: raises where nothing has a name; asked before another model is loaded.
        history: the file of typed lines; None keeps none of them.
        model_names: gives the names that ``/model`` completes.

    Attributes:
        settings, store, notices, check_model, model_names: as given.
        resumed: whether it goes on with a session that was there.
        prompt: the line that the user types on.
        next_line: what that begins with, to be edited and sent.
        editing: the number of the question that it has in other words; None for a new one.
        loading: the model that is, or is to be, loaded.
        autosave: saves the session.
        options: what is asked of the next reply.
        tools: what the model may call.
        steps: the ends of the last answer's steps: one, or with tools several.
        left_out: the ids of the questions whose turns no longer fitted.
        draft: the next message, with its files.
        code: runs Python for it.
    """

    def __init__(
        self,
        settings: Settings,
        start: Start,
        store: SessionStore,
        make_load: Callable[[str], Load],
        *,
        notices: Notices,
        check_model: Callable[[str], None] = lambda name: None,
        history: Path | None,
        model_names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.settings = settings
        self.store = store
        self.model_names = model_names
        self._base, self._overrides = start.base, dict(start.overrides)
        self.notices = notices
        self.options = self._options_of(start.session)
        self.autosave = Autosave(start.session, self.notices.warn, settings.save)
        self.steps: list[ReplyEnd] = []
        self.tools = ChatTools.of(settings, self._run_python, self._run_unconfined)
        self.left_out: frozenset[int] = frozenset()
        self.draft = Draft()
        self.code = CodeRunner(settings.tools_python or "")
        self.resumed = start.resumed
        self.next_line = ""
        self.editing: int | None = None
        self.check_model = check_model
        self._make_load = make_load
        self._counter = TokenCounter()
        self.prompt = Prompt(
            history,
            notice=self.notices.add,
            on_ready=lambda: self.loading.start(),
            on_clear=self.give_up_edit,
            placeholder=tr("say something, or /help"),
            vi=settings.keys == "vi",
        )
        self.loading = self._load_of(start.model)

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
        return self.loading.name

    @property
    def backend(self) -> Backend | None:
        """The model, if it is there."""
        backend = self.loading.backend
        return None if backend is None else self.tools.seen_through(backend)

    @property
    def last(self) -> ReplyEnd | None:
        """The end of the last reply; None before there is one."""
        return self.steps[-1] if self.steps else None

    # --- answering -----------------------------------------------------------------------------

    def send(self, typed: str) -> None:
        """Sends a message, or the question that was rewritten, and answers it.

        What cannot be answered, because a file is missing, it is too long, or the user took it back, goes
        back to the line that it was typed on.
        """
        editing, self.editing = self.editing, None
        draft, nodes = self.draft, len(self.conversation.nodes)
        try:
            text = (typed[1:] if typed.startswith("//") else typed).rstrip("\n")
            message, files, missing = draft.message(text)
            for file in files:
                self.say(draft.describe(file, self.backend))
            for path in missing:
                self.say(attachments.sent_as_text(path))
            self.draft = Draft()
            if editing is None:
                self.answer_to(lambda: self.conversation.ask(message, now()))
            else:
                self.answer_to(lambda: self.conversation.edit(editing, message, now()))
        except (QwenchatError, KeyboardInterrupt):
            if len(self.conversation.nodes) == nodes:
                self.put_on_line(typed)
                self.editing, self.draft = editing, draft
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
        self.steps = []
        self.steps = answering.answer(self)
        self.say(transcript.how_it_ended(self.conversation))
        self.say(transcript.place_among_siblings(self.conversation))
        console.blank_line()

    def _run_python(self, code: str, cancel: threading.Event) -> str:
        """Runs Python of the model's in the worker that ``/python`` has, too."""
        return self.code.run(self.session, code, cancel).observation

    def _run_unconfined(self, code: str, cancel: threading.Event) -> str:
        """As that, after the user's yes to a run that nothing confines."""
        return self.code.run_unconfined(self.session, code, cancel).observation

    def continue_reply(self) -> None:
        """Goes on with the last reply where it broke off.

        Raises:
            UsageError: it is complete, or there is none.
        """
        if not resumable(self.conversation):
            raise UsageError("no reply was interrupted or cut", "/retry answers the question again")
        self.answer()

    def _tell_if_greedy(self, backend: Backend) -> None:
        """Says before a question is answered again that the answer will be the same."""
        here = self.conversation.current
        again = here is not None and here.role is Role.USER and self.conversation.replies(here.id)
        if again and backend.effective(self.options).temperature == 0:
            self.say(
                tr("temperature is 0: the same model answers the same; /set temperature 0.7 lets it differ")
            )

    def wait_for_model(self, cancel: threading.Event) -> Backend:
        """The model, once it is there, seen through the tools.

        Raises:
            ModelError: it cannot be loaded.
            Interrupted: the user did not want to wait.
        """
        if not self.loading.started:
            self.loading.start()
        if self.loading.progress:
            with console.progress_reporter(quiet=self.settings.quiet) as report:
                while self.loading.progress and not cancel.wait(0.05):
                    report(self.loading.progress, None)
        backend = self.loading.wait(cancel)
        self.session.model = backend.name
        self.notices.show()
        self._tell_if_greedy(backend)
        return self.tools.seen_through(backend)

    def way_out(self, error: QwenchatError) -> str:
        """What to do about a model that could not be loaded; empty for any other error."""
        if error is self.loading.error:
            return tr("/model NAME tries another; /retry then asks again")
        if error is self.loading.failure:
            return tr("keeping {model}; /retry asks it", model=self.model)
        return ""

    # --- saying --------------------------------------------------------------------------------

    def say(self, line: str, look: Look = "notice") -> None:
        """One line for the user, beside the chat."""
        if line:
            console.say(line, look)

    def context_tokens(self) -> int:
        """Tokens of the context that are taken; 0 while there is no model to count them."""
        return self._counter.tokens(self.conversation, self.backend) if self.backend is not None else 0

    def show_last(self) -> None:
        """Prints the turn where the chat stands."""
        transcript.show(self.conversation, plain=self.settings.plain, turns=1, rest=False)

    def show_from(self, node: Node) -> None:
        """Prints the turns from a node of the path on."""
        turns = self.conversation.turns()
        n = next(turn.n for turn in turns if node in turn.nodes)
        transcript.show(self.conversation, plain=self.settings.plain, turns=len(turns) - n + 1, rest=False)

    def show_history(self) -> None:
        """Prints the chat so far."""
        transcript.show(self.conversation, plain=self.settings.plain)

    def tell_session(self) -> None:
        """Shows the session that the chat goes on with, and where it stands."""
        self.notices.show()
        transcript.show(self.conversation, plain=self.settings.plain, turns=TURNS_SHOWN, whole=False)
        self.say(transcript.summary(self.session))
        model = self.session.model
        if self.backend is not None and model not in ("", self.model, self.backend.name):
            self.say(tr("{model} answered last; /model {model} loads it", model=model))

    def tell_left_out(self, turns: Sequence[int]) -> None:
        """Tell each turn that no longer fits, once."""
        questions = self.conversation.questions()
        new = [n for n in turns if questions[n - 1].id not in self.left_out]
        self.left_out = frozenset(questions[n - 1].id for n in turns)
        self.say(transcript.left_out(new))

    def _tell_failed_load(self) -> None:
        """Says that another model could not be loaded, where the user reads it before the next question."""
        if (failure := self.loading.take_failure()) is not None:
            self.say(told(failure, in_chat=True), "error")
            self.say(tr("keeping {model}", model=self.model))

    def _loading_changed(self) -> None:
        """Called by the thread that loads."""
        self.prompt.redraw()
        if self.loading.failure is not None:
            self.prompt.above(self._tell_failed_load)

    # --- what commands do ----------------------------------------------------------------------

    def save(self) -> None:
        """Saves the session; what went wrong is said, and the chat goes on."""
        self.autosave.save()
        self.notices.show()

    def unsaved_reason(self) -> str:
        """Tries once more to save what could not be saved. Returns why it still cannot, empty if it can."""
        if self.autosave.last_error:
            self.save()
        return self.autosave.last_error

    @property
    def is_saved(self) -> bool:
        """True if what is said is kept on the disk, as far as is known."""
        return self.settings.save and not self.session.read_only and not self.autosave.last_error

    def close(self) -> None:
        """Ends the chat: lets others write its session."""
        self.tools.close()
        self.code.leave(self.session)
        self.autosave.close()
        self.notices.show()

    def save_and_say(self, line: str) -> None:
        """Saves the place that a command went to, and says so."""
        self.save()
        self.say(line)

    def edit(self, n: int) -> None:
        """Puts question ``n`` on the line, to be sent as an alternative of itself."""
        question = self.conversation.question(n).message
        self.put_on_line(f"/{question.text}" if question.text.startswith("/") else question.text)
        self.editing, self.draft.edited = n, question
        for file in question.files:
            self.say(self.draft.describe(file, self.backend))

    def give_up_edit(self) -> None:
        """Lets what is typed next be a new question."""
        self.editing = self.draft.edited = None

    def put_on_line(self, text: str) -> None:
        """Lets the next line begin with a text, to be edited and sent."""
        self.next_line = text

    def take_next_line(self) -> str:
        """What the next line begins with; the one after it begins with nothing."""
        line, self.next_line = self.next_line, ""
        return line

    def load(self, name: str) -> None:
        """Loads another model in the background, in place of the one that is there.

        Raises:
            ModelNotFoundError: nothing has that name.
        """
        self.check_model(name)
        self.loading = self._load_of(name, after=self.loading)
        self.loading.start()

    def _load_of(self, name: str, after: BackgroundLoad | None = None) -> BackgroundLoad:
        return BackgroundLoad(
            name,
            self._make_load(name),
            on_change=self._loading_changed,
            notice=self.notices.add,
            after=after,
        )

    def set_option(self, name: str, value: object) -> None:
        """Asks for the next reply so; the session remembers it."""
        remember(self.session, name, value)
        self._overrides.pop(name, None)  # what is said last holds
        self.options = self._options_of(self.session)
        self.save()

    def _options_of(self, session: Session) -> GenerationOptions:
        return options_for(self._base, session, self._overrides, self.notices.warn)

    def origin(self, name: str) -> str:
        """The origin of an option's value; empty where the model decides."""
        if getattr(self.options, name) in (None, ()):
            return ""
        if name in self._overrides:
            return tr("command line")
        return tr("this chat") if name in self.session.settings else tr("settings")

    def go_to(self, begin: Callable[[], Session] | None = None) -> None:
        """Leaves this session, unless it is not saved, for the one that ``begin`` opens, or for a new one."""
        if reason := self.unsaved_reason():
            raise SessionError(
                "this chat is not saved yet: {reason}",
                "/export writes it elsewhere, /quit leaves it",
                reason=reason,
            )
        system = self.conversation.system
        new = begin() if begin else self.store.create(Conversation(system), model=self.model)
        self.code.leave(self.session)
        self.autosave.close()
        self.autosave = Autosave(new, self.notices.warn, self.settings.save)
        self.options = self._options_of(new)
        self.draft, self.steps, self.left_out, self.editing = Draft(), [], frozenset(), None
