"""A float checkpoint becomes a quantised one: what is in the folder, and that it can be used."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import qwenchat
from benchmarks.fidelity import perplexity
from qwenchat.engine.weights import gptq
from qwenchat.errors import (
    CheckpointError,
    InsufficientMemoryError,
    NotComputedError,
    QwenchatError,
    UsageError,
)
from qwenchat.models.quantize import run, solver
from qwenchat.models.quantize.solver import Recipe, Solver
from qwenchat.models.writing import files

pytestmark = pytest.mark.usefixtures("auto_gptq", "one_thread", "held_out")

CPU = torch.device("cpu")
INT8 = Recipe(8, 64)
Quantize = Callable[..., run.Result]


@pytest.fixture
def quantize(tiny_chat: Path, tiny_calibration: Path, tmp_path: Path) -> Quantize:
    """Quantises the tiny model into a folder of that name."""

    def make(name: str = "made", *, recipe: Recipe = INT8, **options: Any) -> run.Result:
        options = {"calibration": tiny_calibration, "device": CPU, **options}
        return run.quantize(options.pop("source", tiny_chat), tmp_path / name, recipe, **options)

    return make


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    return qwenchat.load(folder, device="cpu", dtype="float32", context=512).logits(ids)


# --- the result ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", [Recipe(8, 64), Recipe(4, 32), Recipe(4, -1), Recipe(8, 128, True)], ids=str
)
def test_the_checkpoint_loads_and_answers_like_the_model_it_was_made_of(
    quantize: Quantize, tiny_chat: Path, recipe: Recipe
) -> None:
    made = quantize(recipe=recipe)
    ids = list(b"Whatever is said here, both should go on alike.")
    expected, found = logits(tiny_chat, ids), logits(made.folder, ids)
    assert (found - expected).norm() / expected.norm() < (0.02 if recipe.bits == 8 else 0.3)
    assert abs(made.change) < (0.01 if recipe.bits == 8 else 0.2)


def test_the_perplexities_are_those_of_the_loaded_models(
    quantize: Quantize, tiny_chat: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_VOCABULARY_CHUNK", 100)  # the head is taken in pieces
    held_out.write_text("This one fits into the context. " * 12)
    made = quantize(recipe=Recipe(4, 32))
    ids = list(held_out.read_bytes())
    assert made.held_out_tokens == len(ids)
    assert made.before == pytest.approx(perplexity(logits(tiny_chat, ids), ids), rel=1e-4)
    assert made.after == pytest.approx(perplexity(logits(made.folder, ids), ids), rel=1e-3)
    assert made.before != made.after


def test_a_text_longer_than_the_context_is_measured_in_windows(quantize: Quantize) -> None:
    made = quantize()
    assert made.held_out_tokens > 512  # which is all that the model has
    assert 1 < made.before < 2000


@pytest.mark.parametrize("recipe", [Recipe(8, 64), Recipe(4, 128), Recipe(4, 64, True)], ids=str)
def test_auto_gptqs_own_layer_computes_the_same_from_the_same_tensors(
    quantize: Quantize, recipe: Recipe
) -> None:
    # Of its layers, this one reads a permuted g_idx, and the older one does not look at it.
    module = "qlinear_cuda" if recipe.act_order else "qlinear_cuda_old"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of what is newer than it
        layer = importlib.import_module(f"auto_gptq.nn_modules.qlinear.{module}").QuantLinear
    tensors = load_file(quantize(recipe=recipe).folder / "model.safetensors")
    names = sorted(name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight"))
    assert len(names) == 10
    for name in names:
        own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        inputs, outputs = own["g_idx"].shape[0], own["scales"].shape[1]
        oracle = layer(recipe.bits, recipe.group_size, inputs, outputs, bias="bias" in own)
        oracle.load_state_dict(own)  # strict: these names, these shapes
        x = torch.randn(3, inputs, generator=torch.Generator().manual_seed(0)).half()
        expected = oracle(x).float()
        bias = own.pop("bias").float() if "bias" in own else None
        weight = gptq.dequantize(gptq.Codes(**own, bits=recipe.bits, group=recipe.group_size))
        found = torch.nn.functional.linear(x.float(), weight, bias)
        assert (found - expected).norm() / expected.norm() < 2e-3  # the oracle multiplies in half precision


def test_the_config_says_how_it_was_quantised(quantize: Quantize) -> None:
    folder = quantize(recipe=Recipe(4, 64, True)).folder
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"] == json.loads((folder / "quantize_config.json").read_text())
    assert config["quantization_config"] == {
        "bits": 4,
        "group_size": 64,
        "damp_percent": 0.01,
        "desc_act": True,
        "static_groups": False,
        "sym": True,
        "true_sequential": True,
        "model_name_or_path": None,
        "model_file_base_name": "model",
        "quant_method": "gptq",
    }
    assert (config["fp16"], config["bf16"], config["torch_dtype"]) == (True, False, "float16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from auto_gptq import BaseQuantizeConfig
    read = BaseQuantizeConfig.from_pretrained(str(folder))  # auto-gptq's own reader
    assert (read.bits, read.group_size, read.desc_act, read.sym) == (4, 64, True, True)


def test_what_is_not_quantised_is_float16_as_it_was(quantize: Quantize, tiny_chat: Path) -> None:
    before = load_file(tiny_chat / "model.safetensors")
    after = load_file(quantize().folder / "model.safetensors")
    floats = [name for name in before if f"{name.removesuffix('weight')}qweight" not in after]
    assert len(floats) == 3 + 2 * 3  # wte, ln_f, lm_head; of each layer two norms and a bias
    for name in floats:
        assert torch.equal(before[name], after[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_other_floats_are_taken_too(quantize: Quantize, tiny_chat: Path, dtype: torch.dtype) -> None:
    def convert(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    change_tensors(tiny_chat, convert)
    made = quantize()
    assert abs(made.change) < 0.01
    dtypes = {tensor.dtype for tensor in load_file(made.folder / "model.safetensors").values()}
    assert dtypes == {torch.float16, torch.int32}


def test_a_tied_head_stays_tied(quantize: Quantize, tiny_chat: Path) -> None:
    change_config(tiny_chat, tie_word_embeddings=True)
    change_tensors(tiny_chat, lambda tensors: tensors.pop("lm_head.weight"))
    made = quantize()
    assert "lm_head.weight" not in load_file(made.folder / "model.safetensors")
    ids = list(b"one matrix, two uses")
    expected, found = logits(tiny_chat, ids), logits(made.folder, ids)
    assert (found - expected).norm() / expected.norm() < 0.02


def test_a_large_checkpoint_comes_in_files_with_an_index(
    quantize: Quantize, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quantize("whole").folder
    monkeypatch.setattr(files, "SINGLE_BYTES", 1000)
    folder = quantize("pieces").folder
    names = [f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert sorted(path.name for path in folder.glob("*.safetensors")) == names
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    expected = load_file(whole / "model.safetensors")
    assert set(index["weight_map"]) == set(expected)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    ids = list(b"pieces or not")
    assert torch.equal(logits(folder, ids), logits(whole, ids))


def test_vocabulary_defaults_and_licences_come_along_and_code_does_not(
    quantize: Quantize, tiny_chat: Path
) -> None:
    change_config(tiny_chat, auto_map={"AutoModel": "modeling_qwen.QWenLMHeadModel"})
    tokenizer = tiny_chat / "tokenizer_config.json"
    tokenizer.write_text(
        json.dumps(json.loads(tokenizer.read_text()) | {"auto_map": {"AutoTokenizer": "x.y"}})
    )
    (tiny_chat / "Tongyi Qianwen LICENSE AGREEMENT").write_text("Be good.")
    for name in ("LICENSE", "NOTICE.md", "LICENSE.py", "modeling_qwen.py", "pytorch_model.bin", "cache.cu"):
        (tiny_chat / name).write_text("text")
    (tiny_chat / "LICENSE.d").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tiny_chat / "NOTICE.txt")
    folder = quantize().folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "LICENSE",
        "NOTICE.md",
        "Tongyi Qianwen LICENSE AGREEMENT",
        "bytes.tiktoken",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "quantize_config.json",
        "tokenizer_config.json",
    ]
    assert "auto_map" not in (folder / "config.json").read_text()
    assert "auto_map" not in (folder / "tokenizer_config.json").read_text()
    assert "<|im_end|>" in (folder / "tokenizer_config.json").read_text()
    ours = (tiny_chat / "config.json").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {ours}  # readable to whom the source was


# --- the algorithm -------------------------------------------------------------------------------


def correlated(tokens: int, inputs: int) -> torch.Tensor:
    """Inputs that go together, as a model's do."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(inputs, inputs, generator=generator) * torch.rand(inputs, generator=generator) ** 2
    return torch.randn(tokens, inputs, generator=generator) @ mix


@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_are_much_closer_than_those_of_rounding(act_order: bool) -> None:
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    inputs = correlated(2048, 128)
    solver = Solver([weight], Recipe(4, 64, act_order))
    for rows in inputs.split(500):
        solver.add(rows)
    (found,) = solver.solve()

    def error(packed: dict[str, torch.Tensor]) -> float:
        values = gptq.dequantize(gptq.Codes(**packed, bits=4, group=64))
        return ((inputs @ values.T - inputs @ weight.T).norm() / (inputs @ weight.T).norm()).item()

    assert error(found) < 0.8 * error(gptq.quantize_rtn(weight, bits=4, group_size=64))


def test_matrices_of_the_same_inputs_are_solved_as_if_each_were_alone() -> None:
    weights = [torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows)) for rows in (32, 96)]
    inputs = correlated(512, 64)

    def solved(*matrices: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        solver = Solver(matrices, Recipe(4, 32))
        solver.add(inputs)
        return solver.solve()

    for together, alone in zip(solved(*weights), [solved(w)[0] for w in weights], strict=True):
        different = (
            gptq.unpack_words(together["qweight"], 4) != gptq.unpack_words(alone["qweight"], 4)
        ).float()
        assert different.mean() < 0.01  # sums in another order tip a few codes over
        assert torch.equal(together["scales"][0], alone["scales"][0])


def test_codes_are_chosen_for_the_scales_that_float16_holds() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)) * 1e-5
    inputs = correlated(512, 128)
    solver = Solver([weight], Recipe(8, 64))
    solver.add(inputs)
    (found,) = solver.solve()  # of scales between two and four times the smallest number
    values = gptq.dequantize(gptq.Codes(**found, bits=8, group=64))
    expected = inputs @ weight.T
    assert (inputs @ values.T - expected).norm() / expected.norm() < 0.05


def test_nothing_of_torch_is_changed_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    module = solver.import_gptq()
    synchronize = torch.cuda.synchronize
    seen = []

    def add_batch(self: object, inputs: torch.Tensor, outputs: None) -> None:
        seen.append(torch.cuda.synchronize is synchronize)
        raise RuntimeError

    monkeypatch.setattr(module.GPTQ, "add_batch", add_batch)
    with pytest.raises(RuntimeError):
        Solver([torch.ones(32, 32)], Recipe(8, 32)).add(torch.ones(1, 32))
    assert seen == [True]
    assert (module.torch, module.os) == (torch, os)


def test_a_variable_called_debug_does_not_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "1")  # auto-gptq would compare with outputs that it was not given
    found = Solver([torch.randn(32, 64)], Recipe(8, 32))
    found.add(torch.randn(100, 64))
    assert found.solve()[0]["qweight"].shape == (16, 32)


# --- what is refused -----------------------------------------------------------------------------


def refusal(quantize: Quantize, kind: type[QwenchatError], **options: Any) -> str:
    """What is said; nothing is left beside the source then."""
    with pytest.raises(kind) as caught:
        quantize(**options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_quantised_source_is_refused(quantize: Quantize, tmp_path: Path) -> None:
    made = quantize().folder
    said = refusal(quantize, CheckpointError, source=made, name="again")
    assert "is quantised already (8 bits); take the float checkpoint" in said
    assert not (tmp_path / "again.partial").exists()


def test_another_kind_of_model_is_refused(quantize: Quantize, tiny_chat: Path) -> None:
    change_config(tiny_chat, model_type="qwen3_moe")
    assert "model_type is 'qwen3_moe'; our own engine reads qwen, qwen2" in refusal(
        quantize, NotComputedError
    )


@pytest.mark.parametrize("size", [0, -2, 96, 16, 48, 512])
def test_groups_that_do_not_fit_are_refused_with_those_that_do(quantize: Quantize, size: int) -> None:
    said = refusal(quantize, UsageError, recipe=Recipe(8, size))
    assert f"--group-size {size} does not divide this model's matrices of 128, 256 inputs" in said
    assert "what would: 32, 64, 128, or -1" in said


def test_a_vocabulary_of_another_model_is_refused(quantize: Quantize, tiny_chat: Path) -> None:
    change_config(tiny_chat, vocab_size=200)
    change_tensors(
        tiny_chat,
        lambda tensors: tensors.update(
            {n: tensors[n][:200].clone() for n in ("transformer.wte.weight", "lm_head.weight")}
        ),
    )
    assert "the vocabulary has the token 258, the model only 200" in refusal(quantize, CheckpointError)


def test_a_missing_vocabulary_is_said(quantize: Quantize, tiny_chat: Path) -> None:
    (tiny_chat / "bytes.tiktoken").unlink()
    assert "expected one .tiktoken file, found 0" in refusal(quantize, CheckpointError)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("transformer.h.1.mlp.w2.weight", "layer 2: "),
        ("transformer.h.0.ln_2.weight", "transformer.h.0.ln_2.weight is not finite"),
        ("transformer.wte.weight", "transformer.wte.weight is not finite"),
        ("lm_head.weight", "lm_head.weight is not finite"),
    ],
)
def test_what_is_not_finite_is_found(
    quantize: Quantize, tiny_chat: Path, tmp_path: Path, name: str, value: float, said: str
) -> None:
    change_tensors(tiny_chat, lambda tensors: tensors[name].view(-1)[5:6].fill_(value))
    assert said in refusal(quantize, CheckpointError)
    assert not (tmp_path / "made").exists()


def test_activations_that_run_over_are_found(quantize: Quantize, tiny_chat: Path) -> None:
    def blow_up(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.float() for name, tensor in tensors.items()})
        tensors["transformer.h.0.ln_1.weight"].fill_(6e4)
        tensors["transformer.h.0.attn.c_attn.weight"].mul_(1e32)

    change_tensors(tiny_chat, blow_up)
    assert "layer 1: " in refusal(quantize, CheckpointError)


def test_a_tensor_too_many_or_too_few_is_named(quantize: Quantize, tiny_chat: Path) -> None:
    change_config(tiny_chat, num_hidden_layers=1)
    assert "transformer.h.1." in refusal(quantize, CheckpointError)
    change_config(tiny_chat, num_hidden_layers=3)
    assert "transformer.h.2." in refusal(quantize, CheckpointError)


def test_a_destination_in_the_source_or_in_use_is_refused(
    quantize: Quantize, tiny_chat: Path, tmp_path: Path
) -> None:
    assert "is inside the source" in refusal(quantize, UsageError, name=f"{tiny_chat.name}/made")
    assert "is inside the source" in refusal(quantize, UsageError, name=tiny_chat.name)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    assert "already exists" in refusal(quantize, UsageError, name="used")
    (tmp_path / "file").write_text("mine")
    assert "already exists" in refusal(quantize, UsageError, name="file")
    assert "there is no folder" in refusal(quantize, UsageError, name="nowhere/made")
    assert "already exists" in refusal(quantize, UsageError, name="/")
    (tmp_path / "circle").symlink_to("circle")
    assert "circle" in refusal(quantize, UsageError, name="circle/made")
    (tmp_path / "taken.partial").mkdir()
    (tmp_path / "taken.partial" / "thesis.tex").write_text("mine")
    assert "taken.partial is in the way" in refusal(quantize, UsageError, name="taken")
    assert (tmp_path / "taken.partial" / "thesis.tex").read_text() == "mine"


def test_an_empty_folder_is_as_good_as_none(quantize: Quantize, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    assert (quantize().folder / "config.json").exists()


def test_disk_and_memory_are_looked_at_first(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    assert "0.0 GB free" in refusal(quantize, QwenchatError)
    monkeypatch.undo()
    monkeypatch.setattr("qwenchat.engine.memory.available_bytes", lambda device: 10**6)
    assert "GiB, 0.0 GiB free" in refusal(quantize, InsufficientMemoryError)
    assert not (tmp_path / "made.partial").exists()


def test_without_auto_gptq_it_says_so_and_what_to_do(
    quantize: Quantize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refusal(quantize, QwenchatError)
    assert said.startswith(
        "quantising needs auto-gptq, which is not installed; it comes with qwenchat for Python 3.11"
    )
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "auto_gptq.quantization", None)  # then importing it fails
    assert refusal(quantize, QwenchatError).startswith("auto-gptq cannot be imported: ")


def test_what_can_be_refused_without_auto_gptq_is_refused_before_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "import_gptq", lambda: pytest.fail("it was imported"))
    with pytest.raises(CheckpointError):
        run.quantize(tmp_path, tmp_path.with_name("dest"), Recipe(8, 128), device=torch.device("cpu"))
