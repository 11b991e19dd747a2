"""``qwenchat agent``: tasks done by code that the model writes, with the tools of transformers.tools.

Owns the two commands, and what is said beside the result. The agent itself is ``tools.hf_agent``'s.

stdout gets the result and nothing else; what the model means to do, its code and the steps go to stderr. Code
that calls what the user named (a command, an address) runs after the user's word alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from qwenchat.cli import completion
from qwenchat.cli.context import Context, look_and_speak
from qwenchat.cli.flags import Device
from qwenchat.cli.output import print_lines, print_object
from qwenchat.cli.parser import App
from qwenchat.errors import Interrupted, QwenchatError, UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.chat.backend import Backend
    from qwenchat.tools.hf_agent.agent import Agent
    from qwenchat.tools.hf_agent.code import Outcome
    from qwenchat.tools.hf_agent.prompts import Answer

_SYSTEM = "You are a helpful assistant."
"""What Qwen's own wrapper asks with."""

_MOST_TOKENS = 512
"""Of a reply: what Qwen's checkpoints say, and more than any plan takes; a small model may repeat itself."""

_MOST_FILE_BYTES = 2**24


app = App(help="Do tasks by code that the model writes, with tools.")

_Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A checkpoint folder, a known name, 'demo', 'auto', a remote, or URL#MODEL.",
        show_default=False,
        autocompletion=completion.models_to_chat_with,
    ),
]


def _several(name: str, metavar: str, about: str) -> Any:
    """An option that may be repeated."""
    return typer.Option(name, metavar=metavar, help=about, show_default=False)


_Var = Annotated[
    Optional[list[str]],  # noqa: UP045
    _several("--var", "NAME=TEXT", "A variable that the code finds; may be repeated."),
]
_File = Annotated[
    Optional[list[str]],  # noqa: UP045
    _several("--file", "NAME=PATH", "A variable with the text of a file; may be repeated."),
]
_Tool = Annotated[
    Optional[list[str]],  # noqa: UP045
    _several("--tool", "NAME=COMMAND", "A command or an http address that answers a tool; may be repeated."),
]
_Yes = Annotated[
    bool,
    typer.Option("--yes", help="Run code that calls what --tool named without asking.", show_default=False),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def agent(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
    else:
        ctx.obj.read_settings()


@app.command("run")
def run(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="TASK", show_default=False)],
    model: _Model = None,
    var: _Var = None,
    file: _File = None,
    tool: _Tool = None,
    yes: _Yes = False,
    device: Device = None,
    as_json: _Json = False,
) -> None:
    """Do one task: the model explains which tools it will use, and its code is run.

    Of the fourteen tools the model itself is summarizer, text_classifier, text_qa and translator; the others
    are what --tool names.
    """
    context: Context = ctx.obj
    given = _variables(var or [], file or [])
    named = _pairs("--tool", tool or [])
    with closing(_load(context, model, device)) as backend:
        made = _agent(backend, given, named)
        answer = _planned(made, " ".join(words), "run", context)
        outcome = None if answer.code is None else _done(made, answer.code, named, yes, context)
    if context.wants_json(as_json):
        print_object(_as_object(answer, outcome))
    elif outcome is not None:
        _print_result(outcome)
    if answer.code is None:
        raise QwenchatError("the model wrote no code", "say the task in other words")
    if outcome is not None and outcome.error:
        raise QwenchatError("the code stopped: {reason}", "say the task in other words", reason=outcome.error)


@app.command("chat")
def chat(
    ctx: typer.Context,
    model: _Model = None,
    var: _Var = None,
    file: _File = None,
    tool: _Tool = None,
    yes: _Yes = False,
    device: Device = None,
) -> None:
    """Do one task after another: what the code before left in its variables is still there.

    An empty line after an error sends the error back to the model; /new begins anew, Ctrl-D ends.
    """
    context: Context = ctx.obj
    given = _variables(var or [], file or [])
    named = _pairs("--tool", tool or [])
    with closing(_load(context, model, device)) as backend:
        made = _agent(backend, dict(given), named)
        error: str | None = None
        for line in _tasks():
            if line == "/new":
                made.forget()
                made.state |= given
                context.say(tr("a new chat"))
                continue
            task = line or (f"I get an error: '{error}'" if error else "")
            error = None
            if not task:
                continue
            try:
                answer = _planned(made, task, "chat", context)
                if answer.code is not None:
                    outcome = _done(made, answer.code, named, yes, context)
                    error = outcome.error
                    _print_result(outcome)
                    if error:
                        context.say(tr("the code stopped: {reason}", reason=error))
                        context.say(tr("an empty line sends this to the model"))
            except Interrupted as interrupted:
                context.say(interrupted.message)


def _load(context: Context, model: str | None, device: str | None) -> Backend:
    from qwenchat.cli.backend import load

    settings = context.settings
    if device is not None:
        settings = replace(settings, device=device)
    look_and_speak(settings)
    return load(model or settings.model, settings, served=True)


def _agent(backend: Backend, given: dict[str, Any], named: dict[str, str]) -> Agent:
    from qwenchat.tools.hf_agent.agent import Agent
    from qwenchat.tools.hf_agent.providers import providers

    def complete(prompt: str, stops: tuple[str, ...]) -> str:
        return _reply(backend, prompt, stops)

    return Agent(complete, providers(lambda question: _reply(backend, question, ()), named), given)


def _reply(backend: Backend, question: str, stops: tuple[str, ...]) -> str:
    """What the model says to one user turn: greedy, as the benchmark asks."""
    from qwenchat.chat.messages import GenerationOptions, Message, TextDelta
    from qwenchat.chat.parts import Role
    from qwenchat.terminal.signals import cancel_on_interrupt

    messages = [Message.of_text(Role.SYSTEM, _SYSTEM), Message.of_text(Role.USER, question)]
    options = GenerationOptions(temperature=0.0, max_new_tokens=_MOST_TOKENS, stop=stops)
    with cancel_on_interrupt() as cancel, closing(backend.stream(messages, options, cancel)) as events:
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        if cancel.is_set():
            raise Interrupted(tr("interrupted"))
    return text


def _planned(made: Agent, task: str, mode: Literal["run", "chat"], context: Context) -> Answer:
    from qwenchat.terminal.sanitize import sanitize_line

    answer = made.plan(task, mode)
    for line in answer.explanation.splitlines():
        context.say(sanitize_line(line))
    for line in (answer.code or "").splitlines():
        context.say(f"    {sanitize_line(line)}")
    return answer


def _done(made: Agent, code: str, named: dict[str, str], yes: bool, context: Context) -> Outcome:
    """Runs the code; asks first where it calls what the user named."""
    from qwenchat.cli.output import confirm
    from qwenchat.tools.hf_agent.code import calls_in

    outside = sorted(set(calls_in(code)) & named.keys())
    if outside and not yes:
        for name in outside:
            context.say(tr("{name} is {command}", name=name, command=named[name]))
        confirm(
            tr("run this code?"),
            unasked=tr(
                "the code calls {names}, which runs after your word alone; --yes is your word",
                names=", ".join(outside),
            ),
            declined=tr("not run"),
        )
    return made.run(code, told=lambda name: context.say(tr("calling {name}", name=name)))


def _print_result(outcome: Outcome) -> None:
    from qwenchat.terminal.sanitize import sanitize

    for line in outcome.printed:
        print_lines(f"{sanitize(line)}\n")
    if outcome.value is not None:
        print_lines(f"{sanitize(str(outcome.value))}\n")


def _as_object(answer: Answer, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "explanation": answer.explanation,
        "code": answer.code,
        "called": outcome.called if outcome else [],
        "printed": outcome.printed if outcome else [],
        "result": _plain(outcome.value) if outcome else None,
        "error": outcome.error if outcome else None,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)


def _tasks() -> Iterator[str]:
    """The user's lines: from a terminal with a prompt, else as they are piped."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        yield from (line.strip() for line in sys.stdin)
        return
    ask = _asker()
    while True:
        try:
            yield ask().strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            continue


def _asker() -> Callable[[], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(output=create_output(sys.stderr))
    return lambda: session.prompt("> ")


def _variables(texts: list[str], files: list[str]) -> dict[str, Any]:
    from pathlib import Path

    from qwenchat.files.opening import read_file, reason_of
    from qwenchat.files.text import decode

    given: dict[str, Any] = dict(_pairs("--var", texts))
    for name, path in _pairs("--file", files).items():
        try:
            given[name] = decode(read_file(Path(path), _MOST_FILE_BYTES)[0], path)
        except OSError as error:
            raise UsageError("{path} cannot be read: {reason}", path=path, reason=reason_of(error)) from error
    for name in given:
        if not name.isidentifier():
            raise UsageError("{name} is no name of a variable", name=name)
    return given


def _pairs(option: str, values: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        name, equals, what = value.partition("=")
        if not (name and equals and what):
            raise UsageError("{option} is {value}, expected NAME=…", option=option, value=value)
        if name in found:
            raise UsageError("{option} names {name} twice", option=option, name=name)
        found[name] = what
    return found
