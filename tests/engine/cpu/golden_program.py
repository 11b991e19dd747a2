"""A program for the tests: decodes the golden checkpoints on the CPU kernels, and writes down how it went.

``golden_program.py FILE``, to the JSON file: of each checkpoint what it was loaded as, the worst error of its
logits, and whether its tokens were the original's; then the stages and notices of all loads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from qwenchat.backends.load import load

GOLDEN = Path(__file__).parents[2] / "data" / "golden"

NAMES = ("fp16", "gptq_int8", "gptq_int4_asym_g32", "gptq_int8_act_order")


def main(result: Path) -> None:
    stages: list[str] = []
    notices: list[str] = []
    told: dict[str, Any] = {}
    for name in NAMES:
        model = load(
            GOLDEN / name,
            device="cpu",
            dtype="float32",
            progress=lambda stage, fraction: stages.append(stage),
            notice=notices.append,
        )
        expected = load_file(GOLDEN / name / "expected.safetensors")
        ids, tokens = expected["decode.26.ids"].tolist(), expected["decode.26.tokens"].tolist()
        decoded = list(model.generate(ids, temperature=0, max_new_tokens=len(tokens), ignore_eos=True))
        # One by one, so that the kernels are what is looked at.
        rows: list[torch.Tensor] = []
        runner = model.engine.runner
        cache = runner.new_cache(64)
        for token in ids + tokens:
            rows.append(torch.as_tensor(runner.prefill(cache, [token])))
        logits, reference = torch.stack(rows[len(ids) - 1 :]), expected["decode.26.logits"]
        error = ((logits - reference).norm(dim=-1) / reference.norm(dim=-1)).max()
        told[name] = {"as": model.description, "error": float(error), "same_tokens": decoded == tokens}
    result.write_text(json.dumps({"models": told, "stages": stages, "notices": notices}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
