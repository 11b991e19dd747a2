"""A first-generation Qwen becomes a Qwen2 folder or a GGUF file: what others make of it is what it was."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qwenchat
from qwenchat.backends.native.load import load_native
from qwenchat.backends.request import LoadRequest
from qwenchat.engine.weights import gptq
from qwenchat.errors import CheckpointError, Interrupted, QwenchatError, UsageError
from qwenchat.gguf.file import read_gguf
from qwenchat.models.export import qwen2
from qwenchat.models.export import run as exporting
from qwenchat.models.export.run import export
from qwenchat.models.export.source import Source
from qwenchat.models.export.vocabulary import merges_of
from qwenchat.models.writing import files
from qwenchat.tokenizer import QwenTokenizer
from tests.engine import golden

SEQ_LENGTH = 32


def quiet(stage: str, fraction: float | None) -> None:
    """Hears of no progress."""


@pytest.fixture
def source(tmp_path: Path, tiny_chat: Path) -> Callable[[str], Path]:
    """A golden folder with the tiny vocabulary."""

    def make(name: str) -> Path:
        (tmp_path / "of").mkdir(exist_ok=True)
        folder = golden.copy(name, tmp_path / "of")
        for file in ("bytes.tiktoken", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(tiny_chat / file, folder)
        return folder

    return make


def in_floats(folder: Path, dest: Path) -> Path:
    """The same checkpoint with its codes as float32, which transformers reads without packages for GPTQ."""
    shutil.copytree(folder, dest)
    config = json.loads((dest / "config.json").read_text())
    quantization = config.pop("quantization_config", None)
    (dest / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    stored = load_file(dest / "model.safetensors")
    floats = {name: tensor.float() for name, tensor in stored.items() if tensor.is_floating_point()}
    for name in [name for name in stored if name.endswith(".qweight")]:
        layer = name.removesuffix(".qweight")
        qzeros, scales, g_idx = (stored[f"{layer}.{part}"] for part in ("qzeros", "scales", "g_idx"))
        bits = quantization["bits"]
        codes = gptq.Codes(stored[name], qzeros, scales, g_idx, bits, quantization["group_size"])
        floats[f"{layer}.weight"] = gptq.dequantize(codes).contiguous()
        del floats[f"{layer}.scales"]
    save_file(floats, dest / "model.safetensors")
    return dest


def by_transformers(folder: Path, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__name__ == "Qwen2ForCausalLM"
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]  # type: ignore[no-any-return]


def ours(folder: Path, ids: list[int]) -> torch.Tensor:
    request = LoadRequest(folder, device="cpu", dtype="float32")
    return torch.as_tensor(load_native(folder, request).engine.logits(ids))


@pytest.mark.parametrize("name", golden.NAMES)
def test_transformers_gives_the_logits_of_the_original(
    source: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder, told = source(name), []
    export(folder, tmp_path / "made", "qwen2", progress=quiet, notice=told.append)
    ids = [7, 250, 31, 4, 99, 180, 5, 61] * 8
    if name == "ntk_logn":  # what Qwen2 has not begins there
        ids = ids[:SEQ_LENGTH]
    found = by_transformers(in_floats(tmp_path / "made", tmp_path / "floats"), ids)
    expected = ours(folder, ids)
    assert (found - expected).norm() / expected.norm() < 1e-4
    assert bool(told) == (name == "ntk_logn")


@pytest.mark.parametrize("name", ["fp16", "gptq_int8", "gptq_int4_asym_g32", "gptq_int8_act_order"])
def test_our_own_engine_reads_the_folder_as_the_same_model(
    source: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder = source(name)
    result = export(folder, tmp_path / "made", "qwen2", progress=quiet)
    assert result.path == tmp_path / "made"
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 89]
    expected, found = ours(folder, ids), ours(tmp_path / "made", ids)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_zero_points_move_over_as_they_are_stored(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("gptq_int4_asym_g32")
    export(folder, tmp_path / "made", "qwen2", progress=quiet)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "made"))
    width = 128
    for part in ("qweight", "scales"):
        whole = before[f"transformer.h.1.attn.c_attn.{part}"]
        for number, name in enumerate(("q_proj", "k_proj", "v_proj")):
            found = after[f"model.layers.1.self_attn.{name}.{part}"]
            assert torch.equal(found, whole[:, number * width : (number + 1) * width])
    assert torch.equal(after["model.layers.0.mlp.up_proj.qzeros"], before["transformer.h.0.mlp.w1.qzeros"])
    assert torch.equal(
        after["model.layers.0.mlp.gate_proj.qweight"], before["transformer.h.0.mlp.w2.qweight"]
    )
    said = json.loads((tmp_path / "made" / "config.json").read_text())["quantization_config"]
    assert (said["bits"], said["group_size"], said["desc_act"], said["sym"]) == (4, 32, False, False)


def test_the_q8_0_codes_are_those_of_the_checkpoint(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("gptq_int8")
    told: list[str] = []
    export(folder, tmp_path / "made.gguf", "gguf", progress=quiet, notice=told.append)
    assert not told
    stored = load_file(folder / "model.safetensors")
    file = gguf.GGUFReader(tmp_path / "made.gguf")
    tensors = {tensor.name: tensor for tensor in file.tensors}
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "Q8_0"
    blocks = np.asarray(tensors["blk.0.ffn_down.weight"].data).reshape(-1, 34)
    codes = gptq.unpack_words(stored["transformer.h.0.mlp.c_proj.qweight"], 8).t().to(torch.int16) - 128
    assert np.array_equal(blocks[:, 2:].view(np.int8).reshape(codes.shape), codes.numpy())
    scales = stored["transformer.h.0.mlp.c_proj.scales"].t().repeat_interleave(4, dim=1)
    assert np.array_equal(blocks[:, :2].copy().view(np.float16).reshape(scales.shape), scales.numpy())


@pytest.mark.parametrize(
    ("name", "type_name", "exact"),
    [
        ("fp16", "f16", True),
        ("gptq_int8", "q8_0", True),
        ("gptq_int4", "q8_0", True),
        ("gptq_int4_asym_g32", "q8_0", True),
        ("gptq_int8_act_order", "q8_0", False),
        ("fp16", "q8_0", False),
    ],
)
def test_the_numbers_of_a_gguf_file_are_the_checkpoints(
    source: Callable[[str], Path], tmp_path: Path, name: str, type_name: str, exact: bool
) -> None:
    folder = source(name)
    export(folder, tmp_path / "made.gguf", "gguf", type_name, progress=quiet)
    checkpoint_tensors = {
        matrix.name: matrix
        for _, parameters in Source(folder).pieces()
        for matrix in Source(folder).matrices(parameters)
    }
    with read_gguf(tmp_path / "made.gguf") as file:
        assert len(file.tensors) == len(checkpoint_tensors)
        matrix = checkpoint_tensors["model.layers.1.mlp.down_proj.weight"]
        expected = matrix.floats.float() if matrix.codes is None else gptq.dequantize(matrix.codes)
        found = torch.from_numpy(file.tensor("blk.1.ffn_down.weight"))
        if exact:
            assert torch.equal(found, expected)
        else:
            assert 0 < (found - expected).norm() / expected.norm() < 1e-2
        bias = checkpoint_tensors["model.layers.1.self_attn.k_proj.bias"].floats
        assert torch.equal(torch.from_numpy(file.tensor("blk.1.attn_k.bias")), bias.float())


def test_q8_0_is_rounded_as_ggmls_own() -> None:
    from qwenchat.gguf import writing

    numbers = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    numbers[5] = 0
    numbers[6, ::2] = 0.5
    expected = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(writing.q8_0(numbers), expected)


def test_the_tokenizers_library_gives_the_same_ids(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = QwenTokenizer.default()
    path = tmp_path / "tokenizer.json"
    made = qwen2.tokenizer_json(merges_of(tokenizer, tmp_path))
    path.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    library = Tokenizer.from_file(str(path))
    rows = json.loads((golden.FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(rows) > 30
    for row in rows:
        assert library.encode(row["text"]).ids == row["ids_all_special"], row["text"]


def test_transformers_renders_a_chat_as_we_do(source: Callable[[str], Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = source("gptq_int8")
    export(folder, tmp_path / "made", "qwen2", progress=quiet)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and?\n"},
    ]
    expected = qwenchat.load(folder, device="cpu").prompt_ids(messages)
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True) == expected
    assert tokenizer.eos_token_id == 258
    generation = json.loads((tmp_path / "made" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [258, 256]
    assert generation["top_p"] == 0.8
    assert "max_new_tokens" not in generation


def test_an_export_that_was_stopped_goes_on(
    source: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source("gptq_int8")
    for target, name in (("qwen2", "made"), ("gguf", "made.gguf")):
        export(folder, tmp_path / f"whole-{name}", target, progress=quiet)

        def stop(stage: str, fraction: float | None) -> None:
            if fraction and 0.3 < fraction < 0.9:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            export(folder, tmp_path / name, target, progress=stop)
        assert not (tmp_path / name).exists()
        told: list[str] = []
        result = export(folder, tmp_path / name, target, progress=quiet, notice=told.append)
        assert result.resumed_at == 2
        assert any("going on" in line for line in told)
        assert not (tmp_path / f"{name}.partial").exists()
        made, whole = tmp_path / name, tmp_path / f"whole-{name}"
        files = [""] if target == "gguf" else [path.name for path in whole.iterdir()]
        for file in files:
            assert (made / file).read_bytes() == (whole / file).read_bytes()


def test_no_more_than_a_layer_is_held_at_a_time(
    source: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, held = files.write_tensors, []

    def noting(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        held.append({name.split(".")[2] if ".layers." in name else name for name in tensors})
        write(path, tensors)

    monkeypatch.setattr(files, "write_tensors", noting)
    monkeypatch.setattr(files, "SINGLE_BYTES", 1000)
    folder = source("gptq_int8")
    export(folder, tmp_path / "made", "qwen2", progress=quiet)
    assert [sorted(names) for names in held] == [
        ["model.embed_tokens.weight"],
        ["0"],
        ["1"],
        ["lm_head.weight", "model.norm.weight"],
    ]
    index = json.loads((tmp_path / "made" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(held)
    ids = [3, 1, 4, 1, 5]
    assert torch.allclose(ours(tmp_path / "made", ids), ours(folder, ids), atol=1e-4)


def test_what_was_written_wrong_does_not_get_its_name(
    source: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source("fp16")
    join = files.join

    def damage(made: Path) -> None:
        join(made)
        path = made / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1000] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(files, "join", damage)
    with pytest.raises(CheckpointError, match="not what was written"):
        export(folder, tmp_path / "made", "qwen2", progress=quiet)
    assert not (tmp_path / "made").exists()


def test_what_qwen2_has_no_place_for_is_refused(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("fp16")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.attn.c_proj.bias"] = torch.zeros(128, dtype=torch.float16)
    save_file(tensors, folder / "model.safetensors")
    export(folder, tmp_path / "zeros", "qwen2", progress=quiet)
    tensors["transformer.h.0.attn.c_proj.bias"][5] = 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="no place in Qwen2"):
        export(folder, tmp_path / "made", "qwen2", progress=quiet)


def test_another_kind_of_model_and_a_taken_name_are_refused(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("fp16")
    export(folder, tmp_path / "made", "qwen2", progress=quiet)
    with pytest.raises(CheckpointError, match="first Qwen generation"):
        export(tmp_path / "made", tmp_path / "again", "qwen2", progress=quiet)
    with pytest.raises(UsageError, match="already exists"):
        export(folder, tmp_path / "made", "gguf", progress=quiet)


def test_a_vocabulary_that_splits_texts_in_another_way_is_refused(tmp_path: Path, tiny_chat: Path) -> None:
    path = tiny_chat / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"split_pattern": "smollm"}))
    with pytest.raises(CheckpointError, match="splits texts otherwise"):
        export(tiny_chat, tmp_path / "made", "qwen2", progress=quiet)


def test_a_disk_without_room_is_told_before_anything_is_written(
    source: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source("fp16")
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10**6))
    with pytest.raises(QwenchatError, match="not enough disk"):
        export(folder, tmp_path / "made", "qwen2", progress=quiet)
    assert not (tmp_path / "made.partial").exists()


def test_ranks_that_no_merges_give_are_refused(tmp_path: Path, tiny_chat: Path) -> None:
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    lines.append(f"{base64.b64encode(b'abc').decode()} 300")  # no two tokens make it
    (tiny_chat / "bytes.tiktoken").write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match="no list of merges"):
        export(tiny_chat, tmp_path / "made", "qwen2", progress=quiet)
