"""Whether lm-evaluation-harness scores our engine as it scores transformers, on the built-in model's floats.

    python -m benchmarks.harness FLOATS

``qwenchat models export demo FLOATS --to float`` makes the folder; ``pip install 'qwenchat[eval]'`` brings
the harness. Three tiny tasks are made: one of choices, one that generates, one that scores texts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROWS = (
    ("The capital of France is", (" Paris", " Rome", " London"), 0),
    ("Water freezes at zero degrees", (" Celsius", " kilograms", " miles per hour"), 0),
    ("Two plus two equals", (" four", " five", " eleven"), 0),
    ("The opposite of hot is", (" cold", " warm milk", " fire"), 0),
    ("A triangle has", (" seven sides", " three sides", " no sides"), 1),
    ("Dogs like to chase", (" integrals", " cats", " mountains"), 1),
)
TASKS: dict[str, dict[str, Any]] = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "tiny_generate": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
    "tiny_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{choices[gold]}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}
CLOSE = 1e-3
"""Nats of a whole continuation; both compute in float32."""


def write_tasks(folder: Path) -> None:
    """Writes the data, and the tasks as the harness reads them: JSON is YAML."""
    data = folder / "tiny.jsonl"
    rows = ({"question": text, "choices": list(choices), "gold": gold} for text, choices, gold in ROWS)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, task in TASKS.items():
        whole = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "metadata": {"version": 1},
            **task,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(whole), encoding="utf-8")


def agree(one: Any, other: Any) -> bool:
    """Whether two answers are the same: numbers to :data:`CLOSE`, all else exactly."""
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(agree, one, other))
    if isinstance(one, float):
        return abs(one - float(other)) < CLOSE
    return bool(one == other)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness")
    parser.add_argument("floats", type=Path, metavar="FLOATS", help="a float checkpoint that both read")
    floats = str(parser.parse_args().floats)
    with tempfile.TemporaryDirectory(prefix="qwenchat-harness-") as name:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_CACHE=f"{name}/cache")
        import lm_eval
        import lm_eval.models  # which makes its own models known
        from lm_eval.tasks import TaskManager

        from qwenchat.evals.harness_model import HarnessModel

        write_tasks(Path(name))
        manager = TaskManager(include_path=name, include_defaults=False)
        asked = {"tasks": list(TASKS), "task_manager": manager, "log_samples": True}
        ours = lm_eval.simple_evaluate(model=HarnessModel(floats, device="cpu", dtype="float32"), **asked)
        pretrained = {"pretrained": floats, "dtype": "float32"}
        theirs = lm_eval.simple_evaluate(model="hf", model_args=pretrained, device="cpu", **asked)
    same = True
    for task in TASKS:
        pairs = zip(ours["samples"][task], theirs["samples"][task], strict=True)
        answers = [agree(a["resps"], b["resps"]) for a, b in pairs]
        same = same and all(answers)
        print(f"{task}: {sum(answers)} of {len(answers)} the same")
        for name, value in theirs["results"][task].items():
            if isinstance(value, float):
                print(f"  {name}  {ours['results'][task][name]:.6f}  transformers {value:.6f}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
