"""Whether our engine and llama.cpp say the same of the same GGUF file, and where not, which is right.

    python -m benchmarks.agreement FILE.gguf [--peer-python PATH]

On a page of plain prose: the share of positions after which both find the same token likeliest. On a few
questions: how many greedy replies begin with the same tokens, of the file as it is, for which llama.cpp
rounds what it multiplies to 8 bits, and of the same weights as float32, for which it does not. Ours is
computed as exactly as in float32. Of a plain Llama it is also told how far apart the two likeliest tokens are
where two replies part, in logits computed in float64, and how far those of either engine are off there.

A table and, as the last line, one JSON object go to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qwenchat
from benchmarks import llama_cpp_server
from benchmarks.child import Child
from benchmarks.exact import Exact
from benchmarks.fidelity import TEXT
from qwenchat.errors import QwenchatError, UsageError

POSITIONS, TOKENS = 200, 16
_CONTEXT = 1024
QUESTIONS = (
    "What is the capital of France?",
    "How many legs does a spider have?",
    "Write a Python function that adds two numbers.",
    "Who wrote Romeo and Juliet?",
    "What is the boiling point of water?",
    "Name three colours.",
)


@dataclass(frozen=True)
class Parting:
    """Where two replies to a question part.

    Attributes:
        question: that was asked.
        tokens: that both begin with.
        gap: of the two likeliest tokens in exact logits; None, as the rest, where none are computed.
        ours: the largest error of our logits there.
        theirs: that of llama.cpp's.
        right: whether our token is the likeliest in exact logits.
    """

    question: str
    tokens: int
    gap: float | None = None
    ours: float | None = None
    theirs: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Agreement:
    """What both said.

    Attributes:
        positions: of the prose.
        same: of these, those after which both find the same token likeliest.
        questions: that were asked.
        replies: of these, those whose replies begin with the same tokens.
        in_floats: those of the same weights as float32.
        partings: where the others part.
    """

    positions: int
    same: int
    questions: int
    replies: int
    in_floats: int
    partings: list[Parting]


def measure(path: Path, peer: Child) -> Agreement:
    """Compares both.

    Raises:
        QwenchatError: one of them cannot read the file.
    """
    # One thread each: nothing is timed, and on a busy machine several wait for one another.
    model: Any = qwenchat.load(
        path, backend="native", device="cpu", dtype="float32", context=_CONTEXT, threads=1
    )
    prompts = [model.prompt_ids([{"role": "user", "content": question}]) for question in QUESTIONS]
    ours = [list(model.generate(p, temperature=0, max_new_tokens=TOKENS, ignore_eos=True)) for p in prompts]

    def replies() -> list[list[int]]:
        return [peer.ask("continue", ids=prompt, tokens=TOKENS)["tokens"] for prompt in prompts]

    peer.ask("load", model=str(path), context=_CONTEXT, threads=1)
    ids = model.tokenizer.encode(TEXT.read_text("utf-8"))[:POSITIONS]
    likeliest = peer.ask("likeliest", ids=ids)["tokens"]
    same = sum(a == b for a, b in zip(model.logits(ids).argmax(-1).tolist(), likeliest, strict=True))
    theirs, partings = replies(), []
    exact = _exact(path)
    for question, prompt, a, b in zip(QUESTIONS, prompts, ours, theirs, strict=True):
        if a != b:
            at = next(i for i, (one, other) in enumerate(zip(a, b, strict=True)) if one != other)
            partings.append(_parting(question, at, [*prompt, *a[:at]], model, peer, exact))
    with tempfile.TemporaryDirectory(prefix="qwenchat-bench-") as folder:
        floats = Path(folder) / "f32.gguf"
        peer.ask("requantise", source=str(path), target=str(floats), threads=1, floats=True)
        peer.ask("load", model=str(floats), context=_CONTEXT, threads=1)
        in_floats = sum(a == b for a, b in zip(ours, replies(), strict=True))
    return Agreement(len(ids), same, len(QUESTIONS), len(QUESTIONS) - len(partings), in_floats, partings)


def _exact(path: Path) -> Exact | None:
    try:
        return Exact(path)
    except UsageError:
        return None


def _parting(
    question: str, tokens: int, ids: list[int], model: Any, peer: Child, exact: Exact | None
) -> Parting:
    """What is after these ids, where the next token of both is another."""
    if exact is None:
        return Parting(question, tokens)
    right = exact.logits(ids)[-1]
    ours, theirs = np.asarray(model.logits(ids))[-1], np.asarray(peer.ask("logits", ids=ids)["logits"])
    second, first = np.sort(right)[-2:]
    return Parting(
        question,
        tokens,
        gap=round(float(first - second), 3),
        ours=round(float(np.abs(ours - right).max()), 5),
        theirs=round(float(np.abs(theirs - right).max()), 3),
        right=bool(ours.argmax() == right.argmax()),
    )


def lines(found: Agreement) -> Iterator[str]:
    """The same for people."""
    yield f"the same token likeliest after {found.same} of {found.positions} positions"
    yield f"the same first {TOKENS} tokens in {found.replies} of {found.questions} replies"
    yield f"... and where llama.cpp computes the same weights in float32, in {found.in_floats}"
    for parting in found.partings:
        yield f"{parting.question} They part after {parting.tokens} tokens" + (
            ""
            if parting.gap is None
            else f", where two are {parting.gap} apart; our logits are off by {parting.ours}, "
            f"llama.cpp's by {parting.theirs}; " + ("ours is right" if parting.right else "ours is wrong")
        )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    options = parser.parse_args()
    command = [options.peer_python, str(Path(llama_cpp_server.__file__))]
    try:
        with Child("llama.cpp", command, tell=lambda line: print(line, file=sys.stderr)) as peer:
            found = measure(options.file.absolute(), peer)
    except QwenchatError as error:
        print(f"benchmarks.agreement: {error}", file=sys.stderr)
        return error.exit_code
    print(*lines(found), sep="\n")
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
