"""Whether our engine and llama.cpp say the same of the same GGUF file.

    python -m benchmarks.agreement FILE.gguf [--peer-python PATH]

On a page of plain prose: the share of positions after which both find the same token likeliest. On a few
questions: how many greedy replies begin with the same tokens. Ours is computed in float32; llama.cpp rounds
what it multiplies to 8 bits, so the two part where tokens are about as likely, which is told. One JSON object
goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import qwenchat
from benchmarks import llama_cpp_server
from benchmarks.child import Child
from benchmarks.fidelity import TEXT
from qwenchat.errors import QwenchatError

POSITIONS, TOKENS = 200, 16
_CONTEXT = 1024
_ROUNDED = 0.5
"""By so much llama.cpp's logits are off at the most, with activations of 8 bits."""
QUESTIONS = (
    "What is the capital of France?",
    "How many legs does a spider have?",
    "Write a Python function that adds two numbers.",
    "Who wrote Romeo and Juliet?",
    "What is the boiling point of water?",
    "Name three colours.",
)


@dataclass(frozen=True)
class Agreement:
    """What both said.

    Attributes:
        positions: of the prose.
        same: of these, those after which both find the same token likeliest.
        questions: that were asked.
        replies: of these, those whose replies begin with the same tokens.
        as_likely: those, and others that part where both tokens are as likely but for llama.cpp's rounding.
    """

    positions: int
    same: int
    questions: int
    replies: int
    as_likely: int


def measure(path: Path, peer: Child) -> Agreement:
    """Compares both.

    Raises:
        QwenchatError: one of them cannot read the file.
    """
    # One thread each: nothing is timed, and on a busy machine several wait for one another.
    model: Any = qwenchat.load(
        path, backend="native", device="cpu", dtype="float32", context=_CONTEXT, threads=1
    )
    peer.ask("load", model=str(path), context=_CONTEXT, threads=1)
    ids = model.tokenizer.encode(TEXT.read_text("utf-8"))[:POSITIONS]
    ours = model.logits(ids).argmax(-1).tolist()
    theirs = peer.ask("likeliest", ids=ids)["tokens"]
    replies = as_likely = 0
    for question in QUESTIONS:
        prompt = model.prompt_ids([{"role": "user", "content": question}])
        said = list(model.generate(prompt, temperature=0, max_new_tokens=TOKENS, ignore_eos=True))
        others = peer.ask("continue", ids=prompt, tokens=TOKENS)["tokens"]
        replies += said == others
        as_likely += said == others or _margin(model, prompt, said, others) < _ROUNDED
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Agreement(len(ids), same, len(QUESTIONS), replies, as_likely)


def _margin(model: Any, prompt: list[int], said: list[int], others: list[int]) -> float:
    """How much likelier we find our token than llama.cpp's where the two part, in logits."""
    at = next(i for i, (a, b) in enumerate(zip(said, others, strict=True)) if a != b)
    logits = model.logits([*prompt, *said[:at]])[-1]
    return float(logits[said[at]] - logits[others[at]])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    options = parser.parse_args()
    command = [options.peer_python, str(Path(llama_cpp_server.__file__))]
    try:
        with Child("llama.cpp", command, tell=lambda line: print(line, file=sys.stderr)) as peer:
            print(json.dumps(asdict(measure(options.file.absolute(), peer))))
    except QwenchatError as error:
        print(f"benchmarks.agreement: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
