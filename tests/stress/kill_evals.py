"""Kills an evaluation at random moments: it must go on to the same total, and count nothing twice.

    python -m tests.stress.kill_evals [--kills N] [-m MODEL --data FILE [--limit N]]

Without a model it asks one that answers by rule, a few hundredths of a second a reply, so that a kill often
comes while a line is written; with one, ``qwenchat eval gsm8k`` itself is killed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ITEMS = 200
PROGRAM = """
import sys, threading, time
from pathlib import Path
from qwenchat.evals.evaluate import Request, Subject, evaluate
from qwenchat.evals.gsm8k import GSM8K
from qwenchat.evals.task import Dataset, Item
from tests.fakes import Scripted

class Rule(Scripted):
    def stream(self, messages, options, cancel=None):
        time.sleep(0.01)
        number = int(messages[-1].text.split()[0])
        filler = "It goes on and on. " * (number %% 40 * 20)  # long lines take long to write
        answer = number * 2 if number %% 3 else number
        yield from Scripted(f"{filler}It is {answer}.").stream(messages, options)

items = tuple(Item(str(n), "", {"question": f"{n} plus {n}?", "answer": f"#### {2 * n}"}) for n in range(%d))
print("ready", flush=True)
report = evaluate(
    GSM8K(), Dataset(items, "a test"), Subject(Rule(""), "rule", "0" * 64), Request(Path(sys.argv[1])),
    threading.Event(),
)
print(report["done"], sum(score["right"] for score in report["scores"].values()), flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.kill_evals")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "-m", dest="model", help="a model that is asked; one that answers by rule if not given"
    )
    parser.add_argument("--data", type=Path, help="GSM8K's test.jsonl, for a model")
    parser.add_argument("--limit", type=int, default=20, help="questions, for a model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="qwenchat-stress-") as folder:
        command = (
            [sys.executable, "-c", PROGRAM % ITEMS]
            if arguments.model is None
            else [
                *("qwenchat", "-q", "eval", "gsm8k", "-m", arguments.model, "--json", "--data"),
                *(str(arguments.data), "--limit", str(arguments.limit), "--max-new-tokens", "48"),
            ]
        )
        return killed(command, arguments.kills, rng, Path(folder), by_rule=arguments.model is None)


def killed(command: list[str], kills: int, rng: random.Random, folder: Path, *, by_rule: bool) -> int:
    """Runs it whole, then again and again with kills, and compares."""
    begin = time.monotonic()
    whole = ended([*command, *place(folder / "whole", by_rule)], by_rule)
    longest = time.monotonic() - begin
    print(f"without a kill: {whole}, {longest:.1f} s")
    done = trials = 0
    while done < kills:
        trials += 1
        where = place(folder / f"trial-{trials}", by_rule)
        while done < kills:
            process = subprocess.Popen([*command, *where], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            if by_rule:
                process.stdout.readline()
            try:
                process.wait(rng.uniform(0, 0.3 if by_rule else longest / 2))
                process.stdout.close()
                break  # it came to its end
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                process.stdout.close()
                done += 1
        found = ended([*command, *where], by_rule)
        print(f"trial {trials}, {done} kills so far: {found}")
        if found != whole:
            print("not the same total", file=sys.stderr)
            return 1
    print(f"{done} kills, {trials} trials, all to the same total")
    return 0


def place(folder: Path, by_rule: bool) -> list[str]:
    """The arguments that say where the record is."""
    return [str(folder)] if by_rule else ["--out", str(folder)]


def ended(command: list[str], by_rule: bool) -> str:
    """What a run that is not killed comes to."""
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if by_rule:
        return out.splitlines()[-1]
    (report,) = json.loads(out)["reports"]
    return json.dumps([report["done"], report["scores"]], sort_keys=True)


if __name__ == "__main__":
    sys.exit(main())
