"""Qwen2, Qwen3, Llama and Mistral, from folders of the Hub and GGUF files, chat on our own engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwenchat
from qwenchat.backends.huggingface.backend import HuggingFaceBackend
from qwenchat.backends.load import check_folder
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.backends.request import LoadRequest
from qwenchat.engine import memory
from qwenchat.engine.cpu.compiled import CannotCompile
from qwenchat.errors import CheckpointError, InsufficientMemoryError
from qwenchat.text.byte_characters import bytes_of_characters
from tests.engine import gguf_models

CHAT = [
    {"role": "user", "content": "hello 你好世界 <|im_end|>"},
    {"role": "assistant", "content": "Größe\n\n"},
    {"role": "user", "content": "\n two  three"},
]
SHAPE = {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
CONTROL, DEFINED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<think>",)
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


def load(place: Path, **options: Any) -> Any:
    return qwenchat.load(place, **{"device": "cpu", "dtype": "float32", **options})


def keys(**more: Any) -> dict[str, Any]:
    """What a GGUF file says of its tokens."""
    tokens = [*sorted(bytes_of_characters()), "he", "hel", *CONTROL, *DEFINED]
    types = [1] * (len(tokens) - 4) + [3] * 3 + [4]
    unused = gguf_models.VOCABULARY - len(tokens)
    return {
        "tokenizer.ggml.tokens": tokens + [f"[unused{i}]" for i in range(unused)],
        "tokenizer.ggml.token_type": types + [5] * unused,
        "tokenizer.ggml.merges": ["h e", "he l"],
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.chat_template": TEMPLATE,
    } | more


@pytest.mark.parametrize(
    ("style", "kind"), [("qwen2", "qwen2"), ("qwen3", "qwen3"), ("llama3", "llama"), ("llama3", "mistral")]
)
def test_a_folder_of_the_hub_gives_what_transformers_gives(
    write_hub_model: Callable[..., Path], styles: dict[str, Any], tmp_path: Path, style: str, kind: str
) -> None:
    folder = write_hub_model(tmp_path / kind, replace(styles[style], model=kind), **SHAPE)
    told: list[str] = []
    ours, theirs = load(folder, notice=told.append), load(folder, backend="huggingface")
    assert (type(ours), type(theirs)) == (NativeBackend, HuggingFaceBackend)
    assert told == []
    assert ours.prompt_ids(CHAT) == theirs.prompt_ids(CHAT)
    assert (ours.system, ours.context) == (theirs.system, theirs.context)
    ids = ours.prompt_ids(CHAT)
    expected = theirs.logits(ids)
    assert (ours.logits(ids) - expected).norm() < 1e-4 * expected.norm()
    greedy = {"temperature": 0, "max_new_tokens": 64, "ignore_eos": True}
    for prompt in (ids, ids[:9], ids[:15]):  # the cache is cut, and grows
        assert list(ours.generate(prompt, **greedy)) == list(theirs.generate(prompt, **greedy))


def test_what_ends_a_turn_in_any_of_the_files_ends_a_reply(
    hub_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(hub_folders("qwen2"), tmp_path / "m"))
    model = load(folder)
    said = list(model.generate(model.prompt_ids(CHAT), temperature=0, max_new_tokens=8, ignore_eos=True))
    place = folder / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"eos_token_id": [said[3]]}))
    *_, end = load(folder).chat(CHAT, temperature=0)
    assert (end.finish_reason, end.token_ids) == ("stop", tuple(said[:3]))


def test_what_our_engine_does_not_compute_goes_to_transformers_and_says_so(
    hub_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(hub_folders("qwen2"), tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    config["rope_scaling"] = {"rope_type": "dynamic", "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    told: list[str] = []
    assert isinstance(load(folder, notice=told.append), HuggingFaceBackend)
    assert len(told) == 1
    assert "rope_scaling is of the kind 'dynamic'" in told[0]
    assert told[0].endswith("transformers runs it, which is slower")
    with pytest.raises(CheckpointError, match="rope_scaling is of the kind 'dynamic'"):
        load(folder, backend="native")


def test_a_context_for_which_memory_does_not_suffice_is_shortened_unless_asked_for(
    write_hub_model: Callable[..., Path],
    styles: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_hub_model(tmp_path / "m", styles["qwen2"], max_position_embeddings=2**17, **SHAPE)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 20 * 2**20)
    told: list[str] = []
    model = load(folder, notice=told.append)
    assert 1024 <= model.context < 2**17
    assert model.context % 1024 == 0
    assert told == [f"memory limits the context to {model.context:,} of 131,072 tokens".replace(",", "")]
    with pytest.raises(InsufficientMemoryError, match="needs"):
        load(folder, context=2**17)
    with pytest.raises(InsufficientMemoryError):
        load(folder, settle=False)


def test_a_gguf_file_chats_in_its_codes(tmp_path: Path) -> None:
    made = gguf_models.write(tmp_path / "m.gguf", "qwen2", "Q4_K", keys=keys(), tied=True)
    told: list[str] = []
    for place in (made.path, tmp_path):
        model = load(place, notice=told.append)
        assert isinstance(model, NativeBackend)
        assert "GGUF Q4_K" in model.description
    assert told == []
    ids = model.prompt_ids(CHAT)
    assert ids == load(made.path, backend="huggingface").prompt_ids(CHAT)
    assert torch.from_numpy(made.logits(ids)).sub(model.logits(ids)).norm() < 1e-4 * model.logits(ids).norm()
    *_, end = model.chat(CHAT, temperature=0, max_new_tokens=20)
    assert made.is_greedy(ids, list(end.token_ids))
    check_folder(made.path, LoadRequest(made.path, device="cpu"), open_team=_no_kernels)


def _no_kernels() -> Any:
    raise CannotCompile("nothing is to be computed")


def test_where_our_kernels_cannot_be_used_the_floats_of_a_gguf_file_are(tmp_path: Path) -> None:
    made = gguf_models.write(tmp_path / "m.gguf", "llama", "Q6_K", keys=keys())
    ids = list(range(40))
    told: list[str] = []
    model = load(made.path, dtype="float16", notice=told.append)
    assert any("its weights (GGUF Q6_K) are made floats" in line for line in told)
    found = model.logits(ids).numpy()
    assert np.linalg.norm(found - made.logits(ids)) < 2e-2 * np.linalg.norm(found)


def test_a_gguf_file_whose_tokenizer_is_not_ours_goes_to_transformers(tmp_path: Path) -> None:
    gguf_models.write(tmp_path / "m.gguf", "qwen2", keys=keys(**{"tokenizer.ggml.pre": "jais"}))
    with pytest.raises(CheckpointError, match="its pre-tokenizer is 'jais'"):
        load(tmp_path, backend="native")


def test_a_gguf_file_in_codes_needs_no_torch(tmp_path: Path) -> None:
    gguf_models.write(tmp_path / "m.gguf", "llama", {"": "Q4_0", "output": "Q8_0"}, keys=keys())
    program = (
        "import sys, qwenchat\n"
        f"model = qwenchat.load({str(tmp_path / 'm.gguf')!r}, device='cpu')\n"
        "*_, end = model.chat([{'role': 'user', 'content': 'hi'}], max_new_tokens=3)\n"
        "print(end.usage.completion_tokens, sorted({'torch', 'transformers', 'gguf'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "3 []\n"
