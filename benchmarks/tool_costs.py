"""What tools cost: the sandbox and its worker, the mask of a constrained token, the prefill between steps.

    python -m benchmarks.tool_costs [--times N] [--model demo]

To be run at rest. Prints a table: best and median, in milliseconds where nothing else is said. The built-in
model calls a tool only because a grammar leaves it no choice; what is counted is the same with any.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np

import qwenchat
from qwenchat.backends.constraint import GrammarConstraint, Vocabulary
from qwenchat.backends.local import Model
from qwenchat.chat.messages import CallMade, GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.sandbox import start
from qwenchat.sandbox.policy import Policy
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.child import guarded
from qwenchat.tools.forms import Definition
from qwenchat.tools.interpreter import Interpreter
from qwenchat.tools.react import ReAct

_CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
_TOOL = Definition("weather", "Tells the weather.", {**_CITY, "required": ["city", "days"]})
_NEVER = threading.Event()


def told(what: str, seconds: list[float], unit: str = "ms") -> None:
    """Prints a row."""
    scale = {"ms": 1e3, "µs": 1e6}[unit]
    best, median = min(seconds) * scale, statistics.median(seconds) * scale
    print(f"{what:<52}{best:>10.1f}{median:>10.1f} {unit}", flush=True)


def timed(times: int, work: Callable[[], object]) -> list[float]:
    """The seconds that something takes, so many times."""
    found = []
    for _ in range(times):
        started = perf_counter()
        work()
        found.append(perf_counter() - started)
    return found


def processes(times: int) -> None:
    """Starting code, bare and confined."""
    bare = [sys.executable, "-I", "-c", "pass"]
    told("python -I", timed(times, lambda: subprocess.run(bare, check=True)))
    told("the same, guarded as tools are", timed(times, lambda: subprocess.run(guarded(bare), check=True)))
    with tempfile.TemporaryDirectory() as folder:
        numbers = count()

        def confined() -> None:
            start.run(Policy(write=(Path(folder, str(next(numbers))),)), bare)

        def worker() -> None:
            interpreter = Interpreter(Path(folder, str(next(numbers))))
            interpreter.run("1 + 1", _NEVER)
            interpreter.close()

        told("the same in the sandbox", timed(times, confined))
        told("a worker: started, its first run, ended", timed(times, worker))
        interpreter = Interpreter(Path(folder, "one"))
        interpreter.run("1 + 1", _NEVER)
        told("a run in a worker", timed(times * 4, lambda: interpreter.run("1 + 1", _NEVER)))
        interpreter.close()


def masks(model: Model, times: int) -> None:
    """What a constrained token costs beside the model's step."""
    size, ends = model.engine.runner.vocab_size, {0}
    told("the vocabulary, once", timed(3, lambda: Vocabulary(model.tokenizer, size, ends)))
    vocabulary = Vocabulary.later(model.tokenizer, size, ends)
    vocabulary.result()
    grammar, trigger = ReAct().grammar([_TOOL], must=False, begun="")
    written = model.tokenizer.encode(' weather\nAction Input: {"city": "Paris, in France", "days": 3}')
    row = np.zeros(size, np.float32)
    matchers, made, bare = list[float](), list[float](), list[float]()
    for _ in range(times):
        constraint = GrammarConstraint(vocabulary, model.tokenizer, grammar, trigger)
        constraint.holds = True
        matchers += timed(1, constraint._matcher)
        for token in written:
            if constraint.holds:
                bare += timed(1, constraint._matcher().compute_bitmask)
                made += timed(1, lambda held=constraint: held.masked(row))  # type: ignore[misc]
                constraint.takes(token)
    told("a call's grammar, once a call", matchers)
    told("a mask of llguidance's", bare, "µs")
    told(f"a mask put over a row of {size:,} logits", made, "µs")


def steps(model: Model, times: int) -> None:
    """A question with a call, twice: what each step reads, and how fast tokens come."""
    backend = ToolBackend(model, [_TOOL])
    free, held = list[float](), list[float]()
    for n in range(times):
        chat = [Message.of_text(Role.USER, f"How warm is it in Paris? ({n})")]
        backend.must_call = True
        *events, end = backend.stream(chat, GenerationOptions(temperature=0))
        assert isinstance(end, ReplyEnd)
        held.append(end.timings.decode / end.usage.completion_tokens)
        (call,) = [event.call for event in events if isinstance(event, CallMade)]
        chat += [_reply(events, call), Message(Role.TOOL, (ToolResult(call.id, call.name, "21 °C"),))]
        backend.must_call = False
        *_, second = backend.stream(chat, GenerationOptions(temperature=0, max_new_tokens=40))
        assert isinstance(second, ReplyEnd)
        free.append(second.timings.decode / second.usage.completion_tokens)
    told("a token of a step that is held to a call", held)
    told("a token of one that is free up to a call", free)
    usage = second.usage
    print(
        f"the first step's prompt: {end.usage.prompt_tokens} tokens, {end.timings.prefill * 1e3:.0f} ms; the "
        f"second's: {usage.prompt_tokens}, of which {usage.reused_tokens} were there, "
        f"{second.timings.prefill * 1e3:.0f} ms"
    )


def _reply(events: list[object], call: ToolCall) -> Message:
    from qwenchat.chat.messages import TextDelta, ThoughtDelta
    from qwenchat.chat.parts import Text, Thought

    thought = "".join(event.thought for event in events if isinstance(event, ThoughtDelta))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return Message(Role.ASSISTANT, (Thought(thought), Text(text), call))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=25)
    parser.add_argument("--model", default="demo")
    given = parser.parse_args()
    print(f"{'':<52}{'best':>10}{'median':>10}")
    processes(given.times)
    model = qwenchat.load(given.model, device="cpu")
    masks(model, given.times)
    steps(model, max(given.times // 5, 2))


if __name__ == "__main__":
    main()
