"""What a question costs from the start of a process: through a warm server, loaded here, and by llama.cpp.

    python -m benchmarks.warm_ask [--pairs 10] [--gguf FILE]

Each round starts a process for each way, one after another, and takes the time until the first token stands
on its stdout. Besides, how long after the end of `qwenchat --version` a request arrives at a door. Prints
medians, of differences and quotients those within rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from threading import Event

from qwenchat.backends.door.client import about
from qwenchat.backends.door.wanted import wanted
from qwenchat.chat.messages import Event as Told
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd, TextDelta, Timings, Usage
from qwenchat.server import background
from qwenchat.server.door import Door
from qwenchat.settings.sources import load_settings

QUESTION = "Say hello."
COMMAND = [sys.executable, "-m", "qwenchat"]
ASK = [*COMMAND, "ask", QUESTION, "-m", "demo", "--no-save", "--quiet", "--max-new-tokens", "4"]
THEIRS = """
import sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=2048, verbose=False)
messages = [{"role": "user", "content": sys.argv[2]}]
for part in model.create_chat_completion(messages, max_tokens=4, stream=True, temperature=0):
    print(part["choices"][0]["delta"].get("content", ""), end="", flush=True)
"""


class Arrival:
    """A model that notes when it is asked."""

    name, description, context, system = "arrival", "", 2048, ""
    call_form, thinks = "hermes", "never"
    constrains = estimates = False
    continues = True
    at = 0.0

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: Event | None = None
    ) -> Generator[Told, None, None]:
        """Notes it, and says a word."""
        self.at = time.perf_counter()
        yield TextDelta("hello")
        yield ReplyEnd("stop", Usage(1, 0, 1), Timings(0, 0, 0))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """None."""
        return 0

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """As asked."""
        return options

    def close(self) -> None:
        """There is nothing."""


def to_first_token(command: Sequence[str]) -> float:
    """Seconds from the start of a process to the first byte on its stdout."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - started


def to_end(command: Sequence[str]) -> float:
    """Seconds that a process takes."""
    started = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def to_arrival() -> tuple[float, float]:
    """Seconds that ``--version`` takes, and from the start of an ``ask`` to its request at a door."""
    model = Arrival()
    with Door(model, wanted("demo", load_settings({}).settings)):  # type: ignore[arg-type]
        version = to_end([*COMMAND, "--version"])
        started = time.perf_counter()
        to_end(ASK)
        return version, model.at - started


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--gguf", help="the file that llama-cpp-python loads; without it is left out")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    asked = parser.parse_args()
    pairs = asked.pairs
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    if about():
        sys.exit("a server is running; qwenchat serve --stop ends it")
    ways: dict[str, Callable[[], float]] = {
        "through a warm server": lambda: to_first_token(ASK),
        "loaded here": lambda: to_first_token([*ASK, "--no-server"]),
    }
    if asked.gguf:
        theirs = [asked.peer_python, "-c", THEIRS, asked.gguf, QUESTION]
        ways["llama-cpp-python"] = lambda: to_first_token(theirs)
    to_end([*ASK, "--no-server"])  # from here on all is in the system's cache
    arrivals = [to_arrival() for _ in range(pairs)]
    background.start(["serve", "-m", "demo", "--port", "0"])
    try:
        to_end(ASK)
        rounds = [{name: way() for name, way in ways.items()} for _ in range(pairs)]
    finally:
        background.stop()
    versions = [version for version, _ in arrivals]
    later = [arrived - version for version, arrived in arrivals]
    print(f"qwenchat --version: {statistics.median(versions):.3f} s")
    print(f"the request arrives {statistics.median(later):.3f} s after it would have ended")
    for name in ways:
        median = statistics.median(each[name] for each in rounds)
        times = statistics.median(each[name] / each["through a warm server"] for each in rounds)
        print(f"{name}: first token after {median:.3f} s, {times:.1f} times the first")
    print(f"load {os.getloadavg()[0]:.1f}, {pairs} rounds")


if __name__ == "__main__":
    main()
