"""What an evaluation takes beyond the model: prompts, extraction, verdicts, the record on the disk.

    python -m benchmarks.eval_overhead [-m MODEL] [--items N] [--tokens N]

Made-up sums are asked as GSM8K is, by the run of ``qwenchat eval``. The model's seconds are counted where its
events are asked for, and all others are the evaluation's: a machine that does other work too slows both down.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from qwenchat.errors import QwenchatError
from qwenchat.evals.evaluate import Request, Subject, evaluate
from qwenchat.evals.gsm8k import GSM8K
from qwenchat.evals.task import Dataset, Item


class Timed:
    """A backend that counts the seconds in which its events are made."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def stream(self, *given: Any) -> Generator[Any, None, None]:
        """The events."""
        with closing(self._backend.stream(*given)) as events:
            while True:
                begin = time.perf_counter()
                event = next(events, None)
                self.seconds += time.perf_counter() - begin
                if event is None:
                    return
                yield event


def made(count: int) -> Dataset:
    """Sums, no two of which begin alike."""
    items = [
        Item(str(n), "", {"question": f"{n} and {n * 7} make how many?", "answer": f"#### {n * 8}"})
        for n in range(1, count + 1)
    ]
    return Dataset(tuple(items), "made up")


def overhead(backend: Any, dataset: Dataset, tokens: int) -> tuple[float, float]:
    """The seconds of the model, and those of the evaluation beside it."""
    timed = Timed(backend)
    subject: Any = Subject(timed, backend.name, "")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="qwenchat-overhead-") as folder:
        begin = time.perf_counter()
        evaluate(GSM8K(), dataset, subject, Request(Path(folder), most_tokens=tokens), threading.Event())
        return timed.seconds, time.perf_counter() - begin - timed.seconds


def main() -> int:
    import qwenchat

    parser = argparse.ArgumentParser(prog="python -m benchmarks.eval_overhead")
    parser.add_argument("-m", dest="model", default="demo", help="the model; demo if not given")
    parser.add_argument("--items", type=int, default=20, help="prompts of a run")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply at most")
    arguments = parser.parse_args()
    try:
        model = qwenchat.load(arguments.model)
    except QwenchatError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    overhead(model, made(1), 8)  # kernels are prepared
    seconds, beside = overhead(model, made(arguments.items), arguments.tokens)
    print(f"{arguments.items} replies: the model {seconds:.2f} s, all else {beside:.3f} s")
    print(f"overhead {beside / seconds:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
