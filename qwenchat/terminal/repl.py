"""The chat on a terminal: read, dispatch, stream, save.

:class:`Chat` is what the commands act on. Tokens come from a backend that somebody else loads, and
sessions are somebody else's files; this module joins them with the prompt and the live view.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from qwenchat.backends.base import Backend
from qwenchat.chat.conversation import Conversation, Reply, ReplyStatus
from qwenchat.chat.messages import GenerationOptions, Message, PrefillProgress, ReplyEnd, Role, TextDelta
from qwenchat.chat.window import Fit, fit_window
from qwenchat.errors import ContextLengthError, Interrupted, QwenchatError, UsageError
from qwenchat.sessions import Session, SessionStore
from qwenchat.terminal import commands, theme
from qwenchat.terminal.live import LiveReply, render_markdown
from qwenchat.terminal.loading import BackgroundLoad, Load
from qwenchat.terminal.prompt import Leave, Prompt
from qwenchat.terminal.signals import cancel_on_interrupt, exit_on_hangup

CHECKPOINT_SECONDS = 1.0
"""How often a reply that is still coming is saved."""
REPLY_BUDGET = 1024
"""Tokens kept free for a reply, or a quarter of the context if that is less."""
MAX_FILE_BYTES = 256 * 1024
"""The largest file that ``@path`` puts into a message."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How a chat begins.

    Attributes:
        system: the system prompt.
        options: the sampling options.
        plain: no Markdown, no live view.
        vi: vi keys.
        save: whether sessions are kept.
        history: the file of typed lines.
        model: the model's name.
        model_names: what ``/model`` completes.
    """

    system: str
    options: GenerationOptions
    history: Path
    model: str
    model_names: tuple[str, ...] = ()
    plain: bool = False
    vi: bool = False
    save: bool = True


class Chat:
    """One running chat.

    Args:
        how: how it begins.
        store: the sessions.
        make_load: a model's name to what loads it.
        session: the session to go on with; None for a new one.
    """

    def __init__(
        self,
        how: ChatOptions,
        store: SessionStore,
        make_load: Callable[[str], Load],
        session: Session | None = None,
    ) -> None:
        self._how = how
        self._store = store
        self._make_load = make_load
        self.options = how.options
        self._last: ReplyEnd | None = None
        self._context_tokens = 0
        self._left_out: tuple[int, ...] = ()
        self._next_line = ""
        self._editing: int | None = None
        self._session = session
        self.conversation: Conversation = session.conversation if session else Conversation(how.system)
        self._model = how.model
        self._loading = BackgroundLoad(make_load(how.model), self._redraw)
        self._prompt = Prompt(
            how.history,
            complete=lambda before: commands.completions(self, before),
            toolbar=self._toolbar,
            on_ready=self._loading.start,
            vi=how.vi,
        )

    # --- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        """Reads and answers until the user leaves; the exit code."""
        with exit_on_hangup():
            try:
                while True:
                    line, self._next_line = self._next_line, ""
                    text = self._prompt.read(line)
                    self._say_notices()
                    if text.strip():
                        self._take(text)
            except Leave:
                return 0
            finally:
                if self._session is not None:
                    self._session.close()

    def _take(self, text: str) -> None:
        """One line of the user's: a command, a rewritten question, or a message."""
        try:
            called = commands.find(text) if self._editing is None else None
            if called is not None:
                found, rest = called
                found.run(self, rest)
                return
            editing, self._editing = self._editing, None
            message = self._with_files(text[1:] if text.startswith("//") else text)
            if editing is None:
                self.conversation.ask(message, _now())
            else:
                self.conversation.edit(editing, message, _now())
            self.answer()
        except Interrupted as error:
            self._take_back(text)
            self.say(error.message)
        except QwenchatError as error:
            theme.say(str(error), "error")

    def _take_back(self, text: str) -> None:
        """A message that was not answered goes back to the line that it was typed on."""
        if self.conversation.current is not None and self.conversation.current.role is Role.USER:
            self.conversation.undo()
            self._save()
        self._next_line = text

    # --- answering -----------------------------------------------------------------------------

    def answer(self) -> None:
        """Answers the question where the chat stands; it is on disk before the model runs."""
        self._save()
        with cancel_on_interrupt() as cancel:
            backend = self._wait_for_model(cancel)
            messages = self._fit(backend).messages
            self._stream(
                backend, messages, Reply("", "streaming", model=backend.name, options=self.options), cancel
            )

    def go_on(self) -> None:
        """Goes on with the last reply where it broke off.

        Raises:
            UsageError: it is complete, or there is none.
        """
        node = self.conversation.current
        if node is None or node.reply is None or node.reply.status not in ("interrupted", "length", "error"):
            raise UsageError("there is no reply that broke off", "/retry answers the question again")
        with cancel_on_interrupt() as cancel:
            backend = self._wait_for_model(cancel)
            self._stream(backend, self._fit(backend).messages, node.reply, cancel, node_id=node.id)

    def _stream(
        self,
        backend: Backend,
        messages: Iterable[Message],
        begun: Reply,
        cancel: Any,
        node_id: int | None = None,
    ) -> None:
        if node_id is None:
            node_id = self.conversation.reply(begun, _now()).id
        text, saved = begun.text, time.monotonic()
        end: ReplyEnd | None = None
        status: ReplyStatus = "interrupted"
        failure = ""
        try:
            # Above the reply stand at least the prompt's line and what was typed.
            with LiveReply(plain=self._how.plain, rows_above=1) as view:
                started = time.monotonic()
                for event in backend.stream(list(messages), self.options, cancel):
                    if isinstance(event, TextDelta):
                        text += event.text
                        view.push(event.text)
                        if time.monotonic() - saved > CHECKPOINT_SECONDS:
                            self.conversation.replace_reply(
                                node_id, replace(begun, text=text, status="streaming")
                            )
                            self._save()
                            saved = time.monotonic()
                    elif isinstance(event, PrefillProgress):
                        view.status(_prefill_line(event, time.monotonic() - started))
                    else:
                        end, status = event, _status(event)
        except QwenchatError as error:
            status, failure = "error", str(error)
            raise
        finally:
            self.conversation.replace_reply(node_id, _finished(begun, text, status, failure, end))
            self._last = end
            self._save()
        if status == "interrupted":
            self.say("interrupted; /continue goes on, /retry answers again")
        elif status == "length":
            self.say("the reply was cut by the limit; /continue goes on")
        self._context_tokens = end.usage.prompt_tokens + end.usage.completion_tokens if end else 0
        self._say_siblings(node_id)

    def _wait_for_model(self, cancel: Any) -> Backend:
        if not self._loading.started:
            self._loading.start()
        if self._loading.progress:
            with theme.progress_reporter() as report:
                while self._loading.progress and not cancel.wait(0.1):
                    report(self._loading.progress, None)
        backend = self._loading.wait(cancel)
        self._say_notices()
        return backend

    def _fit(self, backend: Backend) -> Fit:
        """The turns that fit; what is left out is said once, by turn."""
        budget = self.options.max_new_tokens or min(REPLY_BUDGET, backend.context // 4)
        fit = fit_window(
            self.conversation.messages(),
            backend.count_tokens,
            window=backend.context,
            reply_budget=budget,
            pinned=self.conversation.pinned_turns(),
        )
        new = [n for n in fit.left_out_turns if n not in self._left_out]
        if new:
            self.say(f"turn {_ranges(new)} no longer fits the context and is left out; /pin keeps a turn")
        self._left_out = fit.left_out_turns
        return fit

    def _with_files(self, text: str) -> str:
        """A message with the files that it names by ``@path`` behind it."""
        parts = [text]
        for word in text.split():
            path = Path(word[1:]).expanduser() if word.startswith("@") and len(word) > 1 else None
            if path is not None and path.is_file():
                content = _read_text(path)
                parts.append(f"{path}:\n\n{content}")
                self.say(f"{path}: {len(content.splitlines())} lines{self._tokens_of(content)}")
        return "\n\n".join(parts)

    def _tokens_of(self, text: str) -> str:
        backend = self._loading.backend
        if backend is None:
            return ""
        tokens = backend.count_tokens([Message(Role.USER, text)]) - backend.count_tokens(
            [Message(Role.USER, "")]
        )
        return f", {tokens:,} tokens"

    # --- saying --------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """One line for the user, beside the chat."""
        if line:
            theme.say(line)

    def show_last(self) -> None:
        """Prints the reply where the chat stands."""
        node = self.conversation.current
        if node is not None and node.reply is not None:
            render_markdown(node.reply.text, plain=self._how.plain)
            self._say_siblings(node.id)

    def show_history(self) -> None:
        """Prints the chat so far."""
        for node in self.conversation.path():
            if node.reply is None:
                self.say(f"> {node.text}")
            else:
                render_markdown(node.reply.text, plain=self._how.plain)

    def _say_siblings(self, node_id: int) -> None:
        index, count = self.conversation.siblings(node_id)
        if count > 1:
            self.say(f"‹{index}/{count}›")

    def _say_notices(self) -> None:
        self._tell(self._loading.notices)

    def _tell(self, lines: list[str]) -> None:
        """Says lines that were collected, once."""
        while lines:
            self.say(lines.pop(0))

    def _toolbar(self) -> str:
        loading = self._loading
        if self._prompt.hint:
            return self._prompt.hint
        if loading.progress:
            return f"{self._model}: {loading.progress}"
        if loading.error is not None:
            return f"{self._model}: {loading.error.message}; /model NAME tries another"
        assert loading.backend is not None
        backend = loading.backend
        parts = [
            f"{backend.name} ({backend.description})",
            f"context {self._context_tokens:,}/{backend.context:,}",
        ]
        if self._last is not None and self._last.timings.decode > 0:
            rate = self._last.usage.completion_tokens / self._last.timings.decode
            parts.append(f"{rate:.1f} tokens/s")
        return " · ".join(parts)

    def _redraw(self) -> None:
        prompt = getattr(self, "_prompt", None)
        if prompt is not None:
            prompt.redraw()

    # --- what commands do ----------------------------------------------------------------------

    def moved(self, line: str, *, did: bool = True) -> None:
        """Saves the place that a command went to, and says so."""
        self._save()
        self.say(line if did else "there is nothing that way")

    def edit(self, n: int) -> None:
        """Puts question ``n`` on the line, to be sent as an alternative of itself."""
        questions = self.conversation.questions()
        if not 1 <= n <= len(questions):
            raise UsageError(f"there is no question {n}", f"there are {len(questions)}")
        self._editing, self._next_line = n, questions[n - 1].text

    def load(self, name: str) -> None:
        """Loads another model in the background; the old one goes first."""
        if self._loading.backend is not None:
            self._loading.backend.close()
        self._model = name
        self._loading = BackgroundLoad(self._make_load(name), self._redraw)
        self._loading.start()

    def model_line(self) -> str:
        """The model and how it runs, in a line."""
        return self._toolbar()

    def model_names(self) -> Iterable[str]:
        """What ``/model`` can be followed by."""
        return self._how.model_names

    def option_names(self) -> list[str]:
        """What ``/set`` can be followed by."""
        return [field.name for field in fields(GenerationOptions)]

    def show_options(self, *names: str) -> None:
        """Says what the sampling options are."""
        for name in names or self.option_names():
            value = getattr(self.options, name)
            self.say(f"{name} = {'(the model decides)' if value is None else value}")

    def set_option(self, name: str, text: str) -> None:
        """Sets a sampling option from text; without text it is the model's to decide again."""
        from qwenchat.config import load_settings

        if name not in self.option_names():
            raise UsageError(f"there is no option {name}", f"there are {', '.join(self.option_names())}")
        # The settings know how to read and check each of them.
        environment = {f"QWENCHAT_{name.upper()}": text} if text else {}
        settings = load_settings({}, environment, path=Path("/nonexistent")).settings
        self.options = replace(self.options, **{name: getattr(settings, name)})
        self.show_options(name)

    def show_stats(self) -> None:
        """Says what the last reply took."""
        if self._last is None:
            raise UsageError("there was no reply yet")
        usage, timings = self._last.usage, self._last.timings
        new = usage.prompt_tokens - usage.reused_tokens
        self.say(f"prompt: reused {usage.reused_tokens:,} + new {new:,} tokens in {timings.prefill:.2f} s")
        rate = usage.completion_tokens / timings.decode if timings.decode else 0.0
        self.say(f"reply: {usage.completion_tokens:,} tokens, {rate:.1f} tokens/s")
        self.say(f"first token after {timings.first_token:.2f} s; seed {self._last.seed}")

    def show_context(self) -> None:
        """Says how many tokens each turn takes of the context."""
        backend = self._loading.backend
        if backend is None:
            raise UsageError("the model is not there yet")
        pinned = self.conversation.pinned_turns()
        messages = self.conversation.messages()
        total = backend.count_tokens(messages) if messages else 0
        for n, question in enumerate(self.conversation.questions(), 1):
            tokens = backend.count_tokens([question.message]) - backend.count_tokens([Message(Role.USER, "")])
            marks = [
                mark for mark, there in (("pinned", n in pinned), ("left out", n in self._left_out)) if there
            ]
            self.say(f"{n:>4}  {tokens:>6,} tokens  {question.text[:40]!r} {' '.join(marks)}")
        self.say(f"{total:,} of {backend.context:,} tokens")

    def new_session(self) -> None:
        """Begins a new chat."""
        self._go_to(None)
        self.say("a new chat")

    def resume(self, name: str) -> None:
        """Goes on with another session."""
        self._go_to(self._store.open(name, on_damaged="set_aside"))
        self.show_history()

    def rename(self, title: str) -> None:
        """Gives the session another title."""
        if self._session is None:
            raise UsageError("there is no session to rename yet", "say something first")
        self._session.rename(title)
        self._save()
        self.say(f"this session is called {self._session.title}")

    def list_sessions(self) -> None:
        """Lists the sessions."""
        for info in self._store.list():
            self.say(f"{info.id}  {info.updated[:16].replace('T', ' ')}  {info.problem or info.title}")

    def session_names(self) -> list[str]:
        """What ``/resume`` can be followed by."""
        return [info.id for info in self._store.list() if not info.problem]

    def search(self, text: str) -> None:
        """Lists the sessions that hold a text."""
        for hit in self._store.search(text):
            self.say(f"{hit.info.id}  {hit.info.title}: {hit.excerpt}")

    def leave(self) -> None:
        """Ends the chat."""
        raise Leave

    def _go_to(self, session: Session | None) -> None:
        if self._session is not None:
            self._session.close()
        self._session = session
        self.conversation = session.conversation if session else Conversation(self._how.system)
        self._last, self._context_tokens, self._left_out = None, 0, ()
        if session is not None:
            self._tell(session.notices)

    def _save(self) -> None:
        """Saves the session; what went wrong is said, and the chat goes on."""
        if not self._how.save or not self.conversation.nodes:
            return
        try:
            if self._session is None:
                self._session = self._store.create(self.conversation, model=self._model)
            if not self._session.read_only:  # that was told when it was opened
                self._session.save()
            self._tell(self._session.notices)
        except QwenchatError as error:
            theme.say(str(error), "error")


def _status(end: ReplyEnd) -> ReplyStatus:
    statuses: dict[str, ReplyStatus] = {"stop": "complete", "length": "length", "cancelled": "interrupted"}
    return statuses[end.finish_reason]


def _finished(begun: Reply, text: str, status: ReplyStatus, failure: str, end: ReplyEnd | None) -> Reply:
    """A reply as it is kept: with its tokens, if they are known from its beginning on."""
    known = end is not None and end.token_ids is not None and (begun.token_ids or not begun.text)
    return replace(
        begun,
        text=text,
        status=status,
        error=failure,
        token_ids=begun.token_ids + end.token_ids if end and end.token_ids is not None and known else (),
        seed=end.seed if end else begun.seed,
        usage=end.usage if end else None,
        timings=end.timings if end else None,
    )


def _prefill_line(progress: PrefillProgress, seconds: float) -> str:
    left = seconds / max(progress.done, 1) * (progress.total - progress.done)
    return f"reading {progress.done:,}/{progress.total:,} tokens, {left:.0f} s left"


def _ranges(numbers: list[int]) -> str:
    """Numbers for people: 1-3, 7."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][-1] == n - 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ContextLengthError(
                f"{path} is larger than {MAX_FILE_BYTES // 1024} KiB", "send a part of it"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8", "only text files can be sent") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
