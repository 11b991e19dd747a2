"""Renders one chat template, in a process of its own that ends whatever does not end by itself.

Reads lines of JSON, writes a line of JSON for each: the first has the template, every other one a chat. What
a template may cost is counted in the sandbox; the operating system has the last word, for what nobody thought
of is counted by nobody.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError

from qwenchat.backends.prompts.said import Said
from qwenchat.backends.prompts.sandbox import BoundedSandbox, TooMuch
from qwenchat.backends.prompts.wire import decode, encode

SECONDS, SECONDS_PER_MEBIBYTE = 2.0, 1.0
MEMORY, MEMORY_PER_BYTE = 400 * 2**20, 32
"""For one template and a short chat, and for each byte of a long one."""


def main() -> None:
    """Answers until nobody asks any more."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sandbox: BoundedSandbox | None = None
    for line in requests:
        _limit_memory(MEMORY + MEMORY_PER_BYTE * len(line))
        _limit_time(SECONDS + SECONDS_PER_MEBIBYTE * len(line) / 2**20)
        try:
            request = decode(line)
            if sandbox is None:
                sandbox = BoundedSandbox(request["template"])
                reply: dict[str, Any] = {}
            else:
                reply = {"pieces": _pieces(sandbox, request)}
        except TemplateError as error:
            reply = {"error": " ".join(str(error).split())[:200], "ended": isinstance(error, TooMuch)}
        replies.write(encode(reply))
        replies.flush()
        _limit_time(0)


def _pieces(sandbox: BoundedSandbox, values: dict[str, Any]) -> list[tuple[str, int | None, int | None]]:
    messages = values["messages"]
    for number, message in enumerate(messages):
        message["content"] = Said.by(number, message["content"])
        for call in message.get("tool_calls", ()):
            call["function"] = _said(call["function"], number)
    if values.get("tools"):  # they are nobody's message: one more than there are
        values["tools"] = [
            {**tool, "function": _said(tool["function"], len(messages))} for tool in values["tools"]
        ]
    text = sandbox.render(datetime.now(), values)
    pieces, at = [], 0
    for run in text.runs:
        pieces.append((str.__getitem__(text, slice(at, at + run.length)), run.message, run.start))
        at += run.length
    return pieces


def _said(value: Any, number: int) -> Any:
    """A value in which all texts are said by a message; the names of an outermost object are ours."""
    return {name: _all_said(inner, number) for name, inner in value.items()}


def _all_said(value: Any, number: int) -> Any:
    if isinstance(value, str):
        return Said.by(number, value, None)
    if isinstance(value, dict):
        return {Said.by(number, name, None): _all_said(inner, number) for name, inner in value.items()}
    return [_all_said(inner, number) for inner in value] if isinstance(value, list) else value


def _limit_time(seconds: float) -> None:
    """Has the process ended after so much time, whatever it is at; 0 takes that back."""
    if hasattr(signal, "setitimer"):  # of its own time, whatever else the machine has to do
        signal.setitimer(signal.ITIMER_PROF, seconds)
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def _limit_memory(size: int) -> None:
    """Limit the process's memory where the system can: Linux counts all that a process writes to."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most)
    )


if __name__ == "__main__":
    main()
