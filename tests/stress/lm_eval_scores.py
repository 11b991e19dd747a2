"""Scores of lm-eval through the server, beside those of the model in this process: they must be the same.

    python -m tests.stress.lm_eval_scores --lm-eval /path/to/bin/lm-eval [MODEL]

lm-eval (``pip install "lm-eval[api]"``) may lie in an environment of its own. A task of twelve questions
with three choices is made in a temporary folder; lm-eval asks them by its ``local-completions``, with token
ids and the server's tokenizer, and the log-likelihood of each choice is compared, to the bit, with
``Model.score``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import qwenchat
from qwenchat.backends.local import Model
from tests.server.serving import serving

QUESTIONS = [
    ("The capital of France is", ["Paris", "London", "Rome"]),
    ("Two and two make", ["four", "five", "three"]),
    ("The opposite of hot is", ["cold", "warm", "blue"]),
    ("Water freezes at zero degrees", ["Celsius", "Kelvin", "Fahrenheit"]),
    ("The sun rises in the", ["east", "west", "north"]),
    ("A dog is an", ["animal", "engine", "island"]),
    ("天空是", ["蓝色的", "方的", "木头"]),
    ("一年有十二个", ["月", "天", "人"]),
    ("Grass is usually", ["green", "purple", "loud"]),
    ("The first month of the year is", ["January", "June", "October"]),
    ("Ice is frozen", ["water", "sand", "air"]),
    ("Fish live in", ["water", "trees", "books"]),
]
TASK = """task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: 0
metric_list: [{metric: acc}]
"""


def main() -> int:
    """Compares; returns 1 if a score differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--lm-eval", default="lm-eval")
    asked = parser.parse_args()
    model = qwenchat.load(asked.model)
    with tempfile.TemporaryDirectory() as folder, serving(model) as server:
        samples = evaluate(Path(folder), asked.lm_eval, f"{server.url}/v1/completions", model.name)
        wrong = 0
        for sample in samples:
            question, choices = sample["doc"]["question"], sample["doc"]["choices"]
            for choice, answer in zip(choices, sample["filtered_resps"], strict=True):
                told, own = float(answer[0]), scored(model, question, f" {choice}")
                wrong += told != own
                print(f"{told:>12.6f} {own:>12.6f} {question} {choice}")
    print(f"{len(samples)} questions, {wrong} scores differ")
    return 1 if wrong or len(samples) != len(QUESTIONS) else 0


def scored(model: Model, question: str, choice: str) -> float:
    """The log-likelihood of a choice, the text cut into tokens as lm-eval does."""
    encode = model.tokenizer.encode
    whole = encode(question + choice)
    return sum(token.token.logprob for token in model.score(whole, 1)[len(encode(question)) - 1 :])


def evaluate(folder: Path, program: str, url: str, model: str) -> list[Any]:
    """What lm-eval found, a sample a question."""
    data = folder / "tiny.jsonl"
    lines = [json.dumps({"question": question, "choices": choices}) for question, choices in QUESTIONS]
    data.write_text("\n".join(lines), encoding="utf-8")
    (folder / "tiny.yaml").write_text(TASK.replace("DATA", json.dumps(str(data))), encoding="utf-8")
    options = f"model={model},base_url={url},num_concurrent=1,max_retries=1,tokenized_requests=True"
    command = [program, "--model", "local-completions", "--model_args", options, "--tasks", "tiny"]
    command += ["--include_path", str(folder), "--output_path", str(folder / "out"), "--log_samples"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        command, check=True, env={**environment, "HF_HOME": str(folder / "hub")}, stdout=sys.stderr
    )
    (found,) = folder.glob("out/**/samples_tiny_*.jsonl")
    return [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
