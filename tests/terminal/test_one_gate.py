"""Nothing from elsewhere reaches a terminal but through the gate: who writes at all, and what comes out."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from qwenchat.chat.conversation import Conversation
from qwenchat.cli import app
from qwenchat.sessions.store import SessionStore
from qwenchat.terminal import console, theme
from qwenchat.terminal.render.live import LiveReply, Screen, render_markdown
from tests.callers import PACKAGE, callers, name_of
from tests.chats import user

# --- who writes ----------------------------------------------------------------------------------

# What can put text on a terminal, or make something that does.
WRITERS = {
    *("print", "pprint", "write", "writelines", "echo", "secho", "input", "print_formatted_text"),
    *("print_text", "print_exc", "print_exception", "print_stack", "print_tb", "print_json", "excepthook"),
    *("Console", "StreamHandler", "basicConfig", "create_output", "write_raw", "run_in_terminal"),
}

FILE = "a file, no terminal"
OWN = "what the program says of itself, no text from elsewhere"
# Every function that calls one of them, and why it may.
ALLOWED = {
    "__main__.main": OWN,
    "files.atomic._write_all": FILE,
    "backends.prompts.render_child.main": "a pipe",
    "backends.prompts.renderer._ask": "a pipe",
    "cli.agent._asker": "the user's own lines",
    "cli.agent.agent": OWN,
    "cli.app._print_version": OWN,
    "cli.config.group": OWN,
    "cli.doors.status": "sanitised there",
    "cli.models.models": OWN,
    "cli.output.confirm": "sanitised there",
    "cli.output.print_lines": "what print_tables and model_table have sanitised; JSON, escaped; exports",
    "engine.cpu.prepared.write": FILE,
    "evals.records.Records._write": FILE,
    "engine.cpu.reading.read_weights": FILE,
    "engine.cpu.ship.main": OWN,
    "engine.cpu.model.CPUModel._attention": "the KV cache",
    "engine.model.Attention.forward": "the KV cache",
    "models.export.gguf.write": FILE,
    "models.export.run.export": FILE,
    "models.writing.files._write": FILE,
    "models.quantize.layers.quantize_block": FILE,
    "models.quantize.layers.through_floats": FILE,
    "models.quantize.run._Run._embed": FILE,
    "server.connection.Connection._say": "a connection",
    "models.quantize.states.States.write": FILE,
    "models.builtin.wheel._extract": FILE,
    "sandbox.launcher._Watch._obey": "a pipe",
    "sandbox.launcher._tell": "a pipe",
    "sandbox.namespaces._write": FILE,
    "sandbox.start.run": "a pipe",
    "sandbox.trial.attempts.main": "a pipe",
    "sandbox.trial.files.write_a_file_outside": FILE,
    "sandbox.trial.files.write_by_a_symlink": FILE,
    "sandbox.trial.kernel.set_the_kernels_values": FILE,
    "tools.interpreter.Interpreter.put": FILE,
    "tools.interpreter._Worker.run": "a pipe",
    "tools.worker._Events.tell": "a pipe",
    "cli.reply.EventWriter.beside": "JSON, escaped",
    "cli.reply.EventWriter.delta": "JSON, escaped",
    "cli.reply.EventWriter.end": "JSON, escaped",
    "cli.reply.JsonWriter.end": "JSON, escaped",
    "cli.reply.EventWriter.thought": "JSON, escaped",
    "terminal.clipboard._write_osc52": "a sequence of ours; the text in it is base64",
    "terminal.clipboard._write_to_terminal": "a sequence of ours; the text in it is base64",
    "terminal.input.display.Display.erase_down": "a sequence of ours",
    "terminal.input.display.Display.write": "the prompt's text, sanitised there",
    "terminal.input.display.PlainDisplay.write": "the prompt's text, sanitised there",
    "terminal.pictures._ask": "a sequence of ours",
    "terminal.pictures.show": "sequences of ours; the picture in them is base64, or sixels made here",
    "terminal.render.live._Drawn._draw_now": "the answer, sanitised by Screen",
    "terminal.render.live._Drawn._pause": OWN,
    "terminal.render.live._Drawn._resume": OWN,
    "terminal.render.live._Drawn._run": OWN,
    "terminal.render.live.render_markdown": "the answer, sanitised by Screen",
    "terminal.input.prompt.Prompt._keys._": "the user's editor",
    "terminal.input.prompt.Prompt._show_above": "the chat, which says it there through the console",
    "terminal.console.PlainWriter._write": "the answer, sanitised there on a terminal",
    "terminal.console.blank_line": OWN,
    "terminal.console._print": "notices, sanitised by say and say_rows",
    "terminal.console._write_lines": "notices, sanitised by say and say_rows",
    "terminal.console.write": "what the others here hand it",
    "tools.child.Child.ask": "a pipe",
    "tools.files._edit": FILE,
    "tools.guard._pump": "a pipe",
    "tools.guard.main": "a pipe",
    "tools.files._write": FILE,
    "tools.function_child.main": "a pipe",
}


def test_nothing_writes_to_a_terminal_but_what_is_known_to_use_the_gate() -> None:
    writing = callers(PACKAGE.rglob("*.py"), lambda call: name_of(call) in WRITERS)
    unknown = sorted(writing - set(ALLOWED))
    assert not unknown, "say it through terminal.console or terminal.render.live, or write down here why not"
    assert sorted(set(ALLOWED) - writing) == [], "these are gone"


# --- what comes out ------------------------------------------------------------------------------

# One of each kind, none of them a sequence that is written here itself.
HOSTILE = [
    "\x1b[2J\x1b[31;5mred\x1b[1;1H",
    "\x1b[?1049h\x1b[6n\x1bc",
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1b]8;;http://evil.example\x1b\\text\x1b]8;;\x1b\\",
    "\x1bPq#0\x1b\\ \x1b_apc\x1b\\ \x1b^pm\x1b\\",
    "\x9b2J\x9d0;x\x9c\x90q\x9c\x85",
    "50 %\r100 %",
    "a\r\nb\x0bc\x0cd\u2028e\u2029f",
    "\x00\x07\x08\x7f\x1f",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f\u061c",
    "z\u200be\u2060r\ufeffo \u00ad \U000e0041\U000e007f",
    "caf\udce9 \ud83d",
    "&#27;[2J &#x9b;2J &#8238;x &#x200b; &#13; &#7;",
]

# What is written here itself: looks, but no blinking and no grounds; the live view's and Rich's cursor.
_SGR = r"\x1b\[(?:(?:[0-4]|9|39|3[0-7]|9[0-7]|38;5;\d+|38;2;\d+;\d+;\d+);?)*m"
_VIEW = r"\r\x1b\[K\x1b\[C\x1b\[J\r|\x1b\[\?7l|\r(?:\x1b\[\d+A)?\x1b\[\?7h"
_CURSOR = r"\x1b\[\?25h\r(?:\x1b\[1A)?\x1b\[2K|\x1b\[\?25l|\x1b\[\?25h\r?|\r(?:\x1b\[1A)?\x1b\[2K"
OURS = re.compile(f"{_SGR}|{_VIEW}|{_CURSOR}")
# Spelled out rather than taken from the gate.
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


class Terminal(io.StringIO):
    """A terminal that keeps what it is sent."""

    def isatty(self) -> bool:
        return True

    def assert_harmless(self) -> None:
        left = OURS.sub("", self.getvalue())
        assert not OBEYED.search(left), repr(left)
        assert left.strip()


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_the_check_would_notice(text: str) -> None:
    terminal = Terminal()
    terminal.write(text)
    with pytest.raises(AssertionError):
        terminal.assert_harmless()


@pytest.fixture(autouse=True)
def clever_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    console.stderr_console.cache_clear()
    yield
    theme.use_theme("terminal")
    console.stderr_console.cache_clear()


@pytest.mark.parametrize("columns", ["100", "20"])
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_notices_and_progress_are_harmless(
    columns: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": columns, **environment}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for text in HOSTILE:
        console.say(text, "error")
        console.say_rows([(text,), (text, text), (text, "b", text)])
        with console.progress_reporter() as report:
            report(text, None)
            report(text, 0.5)
    terminal.assert_harmless()
    if "TERM" in environment:  # where nothing wraps, a line is a line whatever is in it
        assert terminal.getvalue().count("\n") == 5 * len(HOSTILE)


def every_command() -> Iterator[list[str]]:
    """Each command by its words, with an option that names a model where it has one."""

    def visit(command: Any, words: list[str]) -> Iterator[list[str]]:
        for name, sub in getattr(command, "commands", {}).items():
            yield from visit(sub, [*words, name])
        if words and not getattr(command, "commands", {}):
            names_a_model = any("--model" in parameter.opts for parameter in command.params)
            yield words + ["--model", NAME] * names_a_model

    yield from visit(typer.main.get_command(app.app), [])


# What a path and a name can hold, in the user's own environment for one.
NAME = "".join(HOSTILE[:-1]).replace("/", "").replace("\0", "").encode("utf-8", "replace").decode()


@pytest.mark.parametrize("words", list(every_command()), ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("given", [0, 1, 2])
def test_no_command_writes_to_a_terminal_what_its_surroundings_spell(
    words: list[str], given: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / NAME[:80]
    for variable in ("QWENCHAT_HOME", "HF_HOME", "HF_HUB_CACHE", "MODELSCOPE_CACHE"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    session = SessionStore(home / "data" / "sessions").create(Conversation(NAME), model=NAME)
    session.conversation.ask(user(NAME), "2025-01-02T03:04:05+00:00")
    session.title = NAME
    session.save()
    session.close()
    terminal = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, terminal)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    console.stdout_console.cache_clear()
    app.run([*words, *[session.id, NAME][:given]] if words[0] == "sessions" else [*words, *[NAME] * given])
    terminal.assert_harmless()


BLOCKS = [
    *("{}", "# {}", "{}\n===", "- {}\n  - {}", "- [ ] {}", "1. {}", "> {}\n> > {}", "**{}** *{}* ~~{}~~"),
    *("`{}`", "[{}](http://x)", "[x]({})", "[x](<{}>)", '[x](http://y "{}")', "<http://{}>", "![{}]({})"),
    *("```{}\nx = 1\n```", "```python\n{}\n'''{}\n```", "~~~{} {}\n{}", "    {}", "- ```{}\n  {}\n  ```"),
    *("| {} | b |\n|---|---|\n| {} | `{}` |\n", "a|b\n-|-\n" + "{}|x\n" * 12, "<div>{}</div>"),
    *("[r]: {} '{}'", "\\({}\\) $${}$$", "{}" * 40, "https://example.com/{}"),
]


def console_on(file: Terminal) -> Console:
    return Console(file=file, force_terminal=True, color_system="truecolor", legacy_windows=False)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_answer_is_harmless_in_every_block(block: str) -> None:
    theme.use_theme("dark")
    for text in [*HOSTILE, "".join(HOSTILE)]:
        source = block.replace("{}", text)
        for width in (80, 12):
            terminal, screen, size = Terminal(), Screen(), os.terminal_size((width, 24))
            for start in range(0, len(source), 97):
                terminal.write(screen.draw(source[start : start + 97], size))
            terminal.write(screen.end(size))
            terminal.assert_harmless()
        terminal = Terminal()
        render_markdown(source, console=console_on(terminal))
        terminal.assert_harmless()


@pytest.mark.parametrize("plain", [True, False])
def test_a_reply_and_its_status_are_harmless(plain: bool) -> None:
    terminal = Terminal()
    with LiveReply(plain=plain, console=console_on(terminal)) as view:
        view.status("".join(HOSTILE))
        while not plain and "red" not in terminal.getvalue():
            time.sleep(0.01)
        for text in HOSTILE:
            view.push(text)
    terminal.assert_harmless()
    terminal = Terminal()
    render_markdown("".join(HOSTILE), plain=plain, console=console_on(terminal))
    terminal.assert_harmless()
