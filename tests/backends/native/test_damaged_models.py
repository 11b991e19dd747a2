"""Damaged GGUF, GPTQ and AWQ models by the thousand: loaded, or refused in a line, at no great cost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from qwenchat.backends.native.codes import survey_in_codes
from qwenchat.backends.native.place import look
from qwenchat.backends.request import LoadRequest
from qwenchat.engine.cpu.gguf_reading import GGUFSurvey, read_gguf_weights
from qwenchat.engine.weights.loader import load_model
from tests.backends.native.test_damaged_tokenizers import outcomes
from tests.backends.native.test_family import keys
from tests.engine import gguf_models, llama_checkpoint
from tests.stress.damaged_files import bytes_changed, json_changed

pytestmark = pytest.mark.slow


def test_gguf_files(tmp_path: Path) -> None:
    kinds = {"": "Q4_K", "attn_v": "Q6_K", "ffn_down": "Q5_0", "token_embd": "Q8_0"}
    made = gguf_models.write(tmp_path / "m.gguf", "llama", kinds, keys=keys(), factors=[1.0] * 32)
    content, damaged = made.path.read_bytes(), tmp_path / "damaged.gguf"
    head = content.index(b"output_norm.weight") + 2000  # the metadata and the directory

    def spoil(rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return bytes_changed(content[:head], rng) + content[head:]
        flipped = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            flipped[rng.randrange(head)] ^= 1 << rng.randrange(8)
        return bytes(flipped)

    def read() -> None:
        request = LoadRequest(damaged, device="cpu", dtype="float32", complete=True)
        place = look(damaged)
        place.prompt(request)
        found = survey_in_codes(place, request, 64)
        if isinstance(found, GGUFSurvey):
            read_gguf_weights(found, lambda fraction: None)
        elif place.config.num_layers <= 4:
            load_model(place.checkpoint(), device=torch.device("cpu"), dtype=torch.float32, context=64)

    counted = outcomes(damaged, spoil, read)
    assert min(counted["read"], counted["CheckpointError"]) > 50, counted


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_configurations_of_quantised_models(tmp_path: Path, method: str) -> None:
    llama_checkpoint.write(tmp_path, hidden=128, head_dim=32, heads=4, key_value_heads=2, bits=4)
    config = json.loads((tmp_path / "config.json").read_text())
    quantization: dict[str, Any] = config["quantization_config"] | {"quant_method": method}
    quantization |= {"dynamic": {"+:.*": {"bits": 4}}, "lm_head": True, "version": "gemm", "zero_point": True}
    content = json.dumps(config | {"quantization_config": quantization}).encode()

    def spoil(rng: random.Random) -> bytes:
        changed = json_changed if rng.random() < 0.6 else lambda _, data, rng: bytes_changed(data, rng)
        return changed("config.json", content, rng)

    def read() -> None:
        place = look(tmp_path)
        survey_in_codes(place, LoadRequest(tmp_path, device="cpu", dtype="float32"), 64)

    counted = outcomes(tmp_path / "config.json", spoil, read)
    assert counted["CheckpointError"] > 50, counted
