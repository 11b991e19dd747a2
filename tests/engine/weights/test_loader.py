"""The checkpoint reader: what it reads, and what it says of what it cannot read."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import qwenchat
import qwenchat.engine.cuda.linear
from qwenchat.engine import memory
from qwenchat.engine.config import read_model_config
from qwenchat.engine.cuda.linear import PackedLinear, RowLayout
from qwenchat.engine.generation_config import read_generation_defaults
from qwenchat.engine.weights import gptq, loader
from qwenchat.engine.weights.tensor_files import TensorFiles
from qwenchat.errors import CheckpointError, InsufficientMemoryError
from tests.engine.model_tensors import tensors_of

IDS = [3, 1, 4, 1, 5]


def logits(folder: Path) -> torch.Tensor:
    return qwenchat.load(folder, device="cpu", dtype="float32").logits(IDS)


def change_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def plain(golden_folder: Callable[[str], Path]) -> Path:
    return golden_folder("fp16")


@pytest.fixture
def quantized(golden_folder: Callable[[str], Path]) -> Path:
    return golden_folder("gptq_int8")


# --- what it reads -----------------------------------------------------------------------------


def test_the_older_generation_of_key_names_is_the_same_model(plain: Path) -> None:
    expected = logits(plain)
    older = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "ffn_hidden_size",
        "max_position_embeddings": "n_positions",
        "vocab_size": "padded_vocab_size",
    }
    config = json.loads((plain / "config.json").read_text())
    changes: dict[str, Any] = {old: config[new] for new, old in older.items()} | dict.fromkeys(older, ...)
    assert torch.equal(logits(change_config(plain, **changes)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_float_types_are_read(plain: Path, dtype: torch.dtype) -> None:
    expected = logits(plain)
    change_tensors(plain, lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))
    assert (logits(plain) - expected).norm() / expected.norm() < (0.03 if dtype is torch.bfloat16 else 1e-6)


def shard(folder: Path, count: int = 3) -> Path:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[i::count]}
        save_file(part, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return folder


def test_a_sharded_checkpoint_is_the_same_model(quantized: Path) -> None:
    expected = logits(quantized)
    assert torch.equal(logits(shard(quantized)), expected)


def test_a_single_file_of_another_name_is_found(quantized: Path) -> None:
    expected = logits(quantized)
    (quantized / "model.safetensors").rename(quantized / "gptq_model-8bit-128g.safetensors")
    assert torch.equal(logits(quantized), expected)


def test_zero_points_of_the_second_format_are_taken_as_they_are(quantized: Path) -> None:
    expected = logits(quantized)
    config = json.loads((quantized / "config.json").read_text())
    change_config(
        quantized, quantization_config=config["quantization_config"] | {"checkpoint_format": "gptq_v2"}
    )
    change_tensors(
        quantized,
        lambda tensors: tensors.update(
            {n: t + 0x01010101 for n, t in tensors.items() if n.endswith("qzeros")}
        ),
    )
    assert torch.equal(logits(quantized), expected)


def test_zero_points_that_contradict_their_label_are_read_as_they_are_stored_and_that_is_told(
    quantized: Path,
) -> None:
    expected = logits(quantized)
    quant = json.loads((quantized / "config.json").read_text())["quantization_config"]
    told: list[str] = []

    def read() -> torch.Tensor:
        return qwenchat.load(quantized, device="cpu", dtype="float32", notice=told.append).logits(IDS)

    change_config(quantized, quantization_config=quant | {"checkpoint_format": "gptq_v2"})
    assert torch.equal(read(), expected)  # minus one, and said to be plain
    change_config(quantized, quantization_config=quant)
    zeros = {n: t for n, t in load_file(quantized / "model.safetensors").items() if n.endswith("qzeros")}
    change_tensors(quantized, lambda tensors: tensors.update({n: t + 0x01010101 for n, t in zeros.items()}))
    assert torch.equal(read(), expected)  # the other way round
    assert ["zero points are stored otherwise" in line for line in told] == [True, True]


def quantize_all(folder: Path, *, group_size: int) -> None:
    """Rounds the linear layers of a float checkpoint to 8 bits; -1 for one group."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [
            n for n in tensors if n.endswith(("c_attn.weight", "c_proj.weight", "w1.weight", "w2.weight"))
        ]:
            weight = tensors.pop(name).float()
            size = weight.shape[1] if group_size == -1 else group_size
            packed = gptq.quantize_rtn(weight, bits=8, group_size=size)
            tensors.update({f"{name.removesuffix('weight')}{part}": t for part, t in packed.items()})

    change_tensors(folder, change)
    section = {"bits": 8, "group_size": group_size, "quant_method": "gptq"}
    change_config(folder, quantization_config=section)


def test_one_group_for_all_inputs_is_read(plain: Path) -> None:
    expected = logits(plain)
    quantize_all(plain, group_size=-1)
    assert (logits(plain) - expected).norm() / expected.norm() < 0.03


def test_the_quantisation_may_stand_in_a_file_of_its_own(quantized: Path) -> None:
    expected = logits(quantized)
    section = json.loads((quantized / "config.json").read_text())["quantization_config"]
    change_config(quantized, quantization_config=...)
    section.pop("quant_method")
    (quantized / "quantize_config.json").write_text(json.dumps(section))
    assert torch.equal(logits(quantized), expected)


def test_biases_that_older_packers_stored_everywhere_are_added(quantized: Path) -> None:
    before = logits(quantized)
    name = "transformer.h.1.mlp.c_proj.bias"
    change_tensors(quantized, lambda tensors: tensors.update({name: torch.ones(128, dtype=torch.float16)}))
    assert not torch.allclose(logits(quantized), before)


def test_tied_embeddings_stand_in_for_a_missing_lm_head(plain: Path) -> None:
    change_tensors(plain, lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"].clone()}))
    expected = logits(plain)
    change_tensors(plain, lambda t: t.pop("lm_head.weight"))
    assert torch.equal(logits(change_config(plain, tie_word_embeddings=True)), expected)


def test_code_and_pickles_beside_the_weights_are_never_touched(plain: Path) -> None:
    expected = logits(plain)
    for name in ("modeling_qwen.py", "pytorch_model.bin", "cache_autogptq_cuda_256.cpp", "kernel.cu"):
        (plain / name).write_bytes(b"raise SystemExit('executed')")
        (plain / name).chmod(0)
    change_config(plain, auto_map={"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"})
    assert torch.equal(logits(plain), expected)


def test_a_replys_length_is_not_the_checkpoints_512(plain: Path) -> None:
    (plain / "generation_config.json").write_text(
        json.dumps({"max_new_tokens": 512, "top_p": 0.8, "eos_token_id": [5, 6], "do_sample": True})
    )
    defaults = read_generation_defaults(plain)
    assert defaults.top_p == 0.8
    assert defaults.eos_token_ids == (5, 6)
    assert not hasattr(defaults, "max_new_tokens")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"top_k": -1, "top_p": 0.8}', ["top_k is -1"]),
        ('{"top_k": "many", "top_p": 0.8, "temperature": -1}', ["temperature is -1", "top_k is 'many'"]),
        ('{"eos_token_id": "</s>", "do_sample": "no", "top_p": 0.8}', ["do_sample is", "eos_token_id is"]),
        ('{"top_p": 0.8,}', ["is not valid JSON"]),
        ("[]", ["expected an object"]),
    ],
)
def test_sampling_defaults_that_cannot_be_are_left_out_and_told(
    plain: Path, content: str, told: list[str]
) -> None:
    (plain / "generation_config.json").write_text(content)
    defaults = read_generation_defaults(plain)
    assert len(defaults.unfit) == len(told)
    assert all(reason in line for reason, line in zip(told, defaults.unfit, strict=True))
    assert defaults.top_k is defaults.temperature is None
    assert defaults.eos_token_ids == ()
    assert defaults.top_p == (0.8 if content.startswith("{") and ",}" not in content else None)


def test_the_base_where_transformers_5_writes_it_is_the_same_model(plain: Path) -> None:
    change_config(plain, rotary_emb_base=5000.0)
    expected = logits(plain)
    newer = {"rope_type": "default", "rope_theta": 5000.0}
    assert torch.equal(logits(change_config(plain, rotary_emb_base=..., rope_parameters=newer)), expected)


def test_a_key_that_says_the_same_or_changes_nothing_is_no_condition(plain: Path) -> None:
    known = read_model_config(plain)
    change_config(plain, head_dim=known.head_dim, rope_scaling=None, use_sliding_window=False, my_note="x")
    assert read_model_config(plain) == known


# --- what it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_size": ...}, "hidden_size or n_embd is missing"),
        ({"hidden_size": "128"}, "hidden_size is '128'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"num_attention_heads": 3}, "3 heads of 32"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4}},
            "rope_parameters is of the kind",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is of the kind"),
        ({"rope_theta": 5.0}, "rope_theta is 5.0, which this engine does not compute with"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_hidden_layers": 3}, r"transformer\.h\.2\.ln_1\.weight is missing"),
        ({"num_hidden_layers": 1}, "the weights have more layers"),
        ({"intermediate_size": 511}, "expected an even number"),
        ({"intermediate_size": 1024}, r"mlp\.w2\.weight is F16 \[256, 128\], expected .* \[512, 128\]"),
        ({"vocab_size": 321}, r"transformer\.wte\.weight is F16 \[320, 128\]"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon is 0"),
        ({"rotary_emb_base": 10**400}, "rotary_emb_base is 1000"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
        ({"layer_norm_epsilon": 10.0**12}, "layer_norm_epsilon is 1000000000000.0"),
        ({"rotary_emb_base": 0.5}, "rotary_emb_base is 0.5"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"seq_length": 0}, "seq_length is 0"),
        ({"rotary_pct": 0.5}, "rotary_pct"),
        ({"use_dynamic_ntk": 1}, "use_dynamic_ntk is 1"),
        ({"quantization_config": []}, "not an object"),
        (
            {"quantization_config": {"quant_method": "aqlm", "bits": 4, "group_size": 128}},
            "quant_method is 'aqlm'",
        ),
        ({"quantization_config": {"bits": 3, "group_size": 128}}, "bits is 3, expected 4 or 8"),
        ({"quantization_config": {"bits": 8, "group_size": 0}}, "group_size is 0"),
        ({"quantization_config": {"bits": 8, "group_size": 64, "checkpoint_format": "marlin"}}, "marlin"),
    ],
)
def test_a_config_that_cannot_be_is_named(plain: Path, changes: dict[str, Any], complaint: str) -> None:
    change_config(plain, **changes)
    with pytest.raises(CheckpointError, match=complaint):
        logits(plain)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"null", b"1e999"]
)
def test_a_config_that_is_no_json_object_is_named(plain: Path, content: bytes) -> None:
    (plain / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        logits(plain)


def test_missing_files_are_named(plain: Path) -> None:
    (plain / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors"):
        logits(plain)
    (plain / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        logits(plain)


def test_a_missing_shard_is_named(quantized: Path) -> None:
    shard(quantized)
    (quantized / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is missing"):
        logits(quantized)


def test_a_tensor_that_its_shard_does_not_hold_is_named(quantized: Path) -> None:
    shard(quantized)
    path = quantized / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = "model-00003-of-00003.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        logits(quantized)


def header(table: object) -> bytes:
    """A safetensors file of a header alone."""
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (header({"x" * 3_000_000: 1}), "its tensor 'x"),
        (header({"a": {"dtype": "F32", "shape": [2**62] * 9, "data_offsets": [0, 0]}}), "its tensor 'a'"),
        (header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 0]}}), "its tensor 'a'"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "cut short"),
        (header([[]] * 2**20), "more than 2097152 values"),
        (header([]), "not a table of tensors"),
        (struct.pack("<Q", 2**40), "header is too long"),
        (b"1234567", "cut short"),
        (b"", "cut short"),
    ],
    ids=["name", "shape", "truth", "cut", "values", "list", "long", "short", "empty"],
)
def test_a_header_that_no_file_of_weights_has_is_told_in_a_line(
    plain: Path, content: bytes, complaint: str
) -> None:
    (plain / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        logits(plain)
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(os.name != "posix", reason="the system has no pipes among its files")
def test_a_pipe_among_the_weights_is_not_waited_for(plain: Path) -> None:
    (plain / "model.safetensors").unlink()
    os.mkfifo(plain / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        logits(plain)


NAMES = ["../model.safetensors", "/etc/passwd", "model.bin", 3, "a/b.safetensors", "x" * 300 + ".safetensors"]


@pytest.mark.parametrize("file", [*NAMES, "a\0.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(quantized: Path, file: object) -> None:
    shard(quantized)
    (quantized / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": file}})
    )
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file name"):
        logits(quantized)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda t: t.pop("transformer.ln_f.weight"),
            r"transformer\.ln_f\.weight is missing, expected .* \[128\]",
        ),
        (
            lambda t: t.pop("transformer.h.1.mlp.w2.qweight"),
            r"h\.1\.mlp\.w2\.qweight is missing, expected I32",
        ),
        (
            lambda t: t.update({"transformer.h.0.mlp.w3.weight": torch.zeros(3)}),
            r"mlp\.w3\.weight has no place",
        ),
        (
            lambda t: t.update({"lm_head.weight": torch.zeros(3, 4)}),
            r"lm_head\.weight is F32 \[3, 4\], expected",
        ),
        (
            lambda t: t.update({"lm_head.weight": torch.zeros(320, 128, dtype=torch.int32)}),
            r"lm_head\.weight is I32 \[320, 128\], expected F16",
        ),
        (
            lambda t: t.update({"transformer.h.0.mlp.w1.g_idx": torch.full((128,), 7, dtype=torch.int32)}),
            r"g_idx goes from 7 to 7, expected groups 0 to 0",
        ),
        (
            lambda t: t.update({"transformer.h.0.mlp.w1.qzeros": torch.zeros(2, 64, dtype=torch.int32)}),
            r"mlp\.w1\.qzeros is I32 \[2, 64\], expected I32 \[1, 64\]",
        ),
    ],
)
def test_a_tensor_that_is_missing_or_misshapen_is_named(
    quantized: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    change_tensors(quantized, change)
    with pytest.raises(CheckpointError, match=complaint):
        logits(quantized)


def test_an_act_order_checkpoint_needs_its_group_indices(golden_folder: Callable[[str], Path]) -> None:
    folder = golden_folder("gptq_int8_act_order")
    change_tensors(folder, lambda t: t.pop("transformer.h.0.mlp.w1.g_idx"))
    with pytest.raises(CheckpointError, match=r"mlp\.w1\.g_idx is missing"):
        logits(folder)


def test_too_little_memory_is_said_before_a_weight_is_read(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 100_000)
    monkeypatch.setattr(loader.TensorFiles, "read", lambda self, name: pytest.fail("read a weight"))
    with pytest.raises(InsufficientMemoryError, match="not enough memory on cpu: needs") as error:
        logits(plain)
    assert "smaller" in error.value.hint


def test_a_checkpoint_whose_file_is_cut_after_it_was_opened_is_an_error(quantized: Path) -> None:
    files = loader.TensorFiles(quantized)
    path = quantized / "model.safetensors"
    path.write_bytes(path.read_bytes()[:4])
    with pytest.raises(CheckpointError, match=r"model\.safetensors has changed"):
        files.stored("lm_head.weight")


def damaged_headers(whole: bytes, count: int) -> Iterator[bytes]:
    """Safetensors files with a header that was cut, flipped, or rewritten by a liar."""
    rng = random.Random(11)
    (length,) = struct.unpack("<Q", whole[:8])
    header, data = whole[8 : 8 + length], whole[8 + length :]
    table = json.loads(header)
    names = [name for name in table if name != "__metadata__"]
    lies: list[Callable[[dict[str, Any]], object]] = [
        lambda e: e.update(dtype=rng.choice(["F64", "U8", "F8_E4M3", "X", "", None, 3])),
        lambda e: e.update(
            shape=rng.choice([[2**62, 2**62], [-1], [], "x", [0], [1.5], [10**30], [[1]], None])
        ),
        lambda e: e.update(
            data_offsets=rng.choice([[0, 2**63], [-1, 4], [8, 0], [0], "x", [0, 10**30], [0, 0]])
        ),
        lambda e: e["shape"].append(2**40),
        lambda e: e.pop(rng.choice(list(e))),
        lambda e: e["shape"].reverse() if len(set(e["shape"])) > 1 else e.clear(),
    ]
    for i in range(count):
        kind = i % 5
        if kind == 0:  # a bit flipped
            place = rng.randrange(8 + length)
            changed = bytearray(whole)
            changed[place] ^= 1 << rng.randrange(8)
            yield bytes(changed)
        elif kind == 1:  # cut short
            yield whole[: rng.randrange(8 + length + len(data))]
        elif kind == 2:  # a header length that lies
            lie = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, rng.randrange(2**40)])
            yield struct.pack("<Q", lie) + header + data
        elif kind == 3:  # an entry that lies
            lying = json.loads(header)
            rng.choice(lies)(lying[rng.choice(names)])
            text = json.dumps(lying).encode()
            yield struct.pack("<Q", len(text)) + text + data
        else:  # other JSON, or none
            text = rng.choice(
                [b"[" * 50_000, b'{"a":' * 20_000, b"{}", b"null", b"\x00" * 64, header[:-9], header * 2]
            )
            yield struct.pack("<Q", len(text)) + text + data


def header_table(content: bytes) -> object:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


@pytest.mark.slow
def test_two_thousand_damaged_headers_are_typed_errors_without_a_memory_blow_up(quantized: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no resource module")
    path = quantized / "model.safetensors"
    whole = path.read_bytes()
    expected = logits(quantized)
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for content in damaged_headers(whole, 2000):
        path.write_bytes(content)
        try:
            same = logits(quantized)
        except CheckpointError as error:
            refused += 1
            assert str(quantized) in str(error)
        else:
            # Only what leaves the table as it was: a flip in the white space behind it.
            assert torch.equal(same, expected)
            assert header_table(content) == header_table(whole)
    assert refused > 1950
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before
    assert peak_kib < 100 * 1024


# --- how it reads ------------------------------------------------------------------------------

LAYOUTS = ("fp16", "gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order")


def read_twice(
    folder: Path, dtype: torch.dtype, packed: bool
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The model's tensors as they are read from mapped files, and as they come through buffers."""
    mapped, staged = (
        loader.load_model(
            folder,
            device=torch.device("cpu"),
            dtype=dtype,
            context=64,
            layout=RowLayout(dtype) if packed else None,
            staged=staged,
        )
        for staged in (False, True)
    )
    return tensors_of(mapped), tensors_of(staged)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_comes_through_small_buffers_is_the_same_to_the_bit(
    golden_folder: Callable[[str], Path],
    name: str,
    dtype: torch.dtype,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "Staging", partial(loader.Staging, piece=4096, ahead=100_000, threads=3))
    mapped, staged = read_twice(shard(golden_folder(name)), dtype, packed)
    assert mapped.keys() == staged.keys()
    assert (packed and name != "fp16") or not any(key.endswith(".codes") for key in mapped)
    for key, tensor in mapped.items():
        assert tensor.dtype == staged[key].dtype
        assert torch.equal(tensor, staged[key]), key


@pytest.mark.parametrize("name", [n for n in LAYOUTS if n != "fp16"])
def test_layers_that_keep_their_codes_have_the_values_of_those_that_do_not(
    golden_folder: Callable[[str], Path], name: str
) -> None:
    folder = golden_folder(name)
    cpu, float32 = torch.device("cpu"), torch.float32
    kept = loader.load_model(folder, device=cpu, dtype=float32, context=64, layout=RowLayout(float32))
    plain = loader.load_model(folder, device=cpu, dtype=float32, context=64)
    layers = {n: m for n, m in kept.named_modules() if isinstance(m, PackedLinear)}
    assert len(layers) == 10
    for path, layer in layers.items():
        linear = plain.get_submodule(path)
        assert torch.equal(layer.matrix.dense(), linear.weight)
        assert (layer.matrix.bias is None) == (linear.bias is None)
        assert layer.matrix.bias is None or torch.equal(layer.matrix.bias, linear.bias)


def test_groups_that_our_layout_cannot_hold_are_made_floats_and_counted_so(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs: list[memory.Need] = []

    def load(packed: bool) -> dict[str, torch.Tensor]:
        return tensors_of(
            loader.load_model(
                plain, device=torch.device("cpu"), dtype=torch.float16, context=64,
                layout=RowLayout(torch.float16) if packed else None,
                preflight=lambda need, free: needs.append(need),
            )
        )  # fmt: skip

    quantize_all(plain, group_size=16)
    assert load(True).keys() == load(False).keys()
    assert needs[0].weights == needs[1].weights == sum(t.nbytes for t in load(True).values())


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_weights_take_what_was_said_before(
    golden_folder: Callable[[str], Path], name: str, packed: bool
) -> None:
    needs: list[memory.Need] = []
    model = loader.load_model(
        golden_folder(name), device=torch.device("cpu"), dtype=torch.float16, context=64,
                layout=RowLayout(torch.float16) if packed else None,
        preflight=lambda need, free: needs.append(need),
    )  # fmt: skip
    taken = sum(tensor.nbytes for tensor in tensors_of(model).values())
    # Zero points that turn out to be the middle throughout are not kept.
    zeros = sum(
        m.matrix.scales.numel()
        for m in model.modules()
        if isinstance(m, PackedLinear) and m.matrix.zeros is None and m.matrix.scales is not None
    )
    assert needs[0].weights == taken + zeros


def test_a_file_that_is_cut_while_it_is_read_is_named(
    quantized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quantized / "model.safetensors"
    start = loader.Staging.__enter__

    def cut(self: loader.Staging) -> loader.Staging:
        path.write_bytes(path.read_bytes()[:-4])
        return start(self)

    monkeypatch.setattr(loader.Staging, "__enter__", cut)
    before = set(threading.enumerate())
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: the tensor .* cannot be read: the file ends"
    ):
        read_twice(quantized, torch.float16, True)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, torch.OutOfMemoryError("CUDA out of memory. Tried ...")]
)
def test_no_thread_outlives_a_load_that_ends_early(
    quantized: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(qwenchat.engine.cuda.linear, "pack_gptq", fail)
    before = set(threading.enumerate())
    expected = KeyboardInterrupt if error is KeyboardInterrupt else InsufficientMemoryError
    with pytest.raises(expected):
        loader.load_model(
            quantized,
            device=torch.device("cpu"),
            dtype=torch.float16,
            context=64,
            layout=RowLayout(torch.float16),
            staged=True,
        )
    assert set(threading.enumerate()) <= before


def test_a_wrong_group_is_named_whichever_way_it_is_read(quantized: Path) -> None:
    change_tensors(
        quantized,
        lambda t: t.update({"transformer.h.0.mlp.w1.g_idx": torch.full((128,), 7, dtype=torch.int32)}),
    )
    for staged in (False, True):
        with pytest.raises(CheckpointError, match="g_idx goes from 7 to 7, expected groups 0 to 0"):
            loader.load_model(
                quantized, device=torch.device("cpu"), dtype=torch.float16, context=64,
                layout=RowLayout(torch.float16), staged=staged,
            )  # fmt: skip


def test_memory_that_runs_out_for_a_mapping_is_no_fault_of_the_file(
    golden_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    files = TensorFiles(golden_folder("gptq_int8"))
    monkeypatch.setattr("mmap.mmap", full)
    with pytest.raises(InsufficientMemoryError, match="memory ran out while the model was loaded"):
        files.array(next(name for name in files if name.endswith("qzeros")))
