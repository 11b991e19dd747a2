"""What is refused when a checkpoint of the Hub is loaded, and the reason that is told."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qwenchat
from qwenchat.backends.huggingface import gptq
from qwenchat.backends.huggingface.files import HubFiles, gguf_file, look
from qwenchat.backends.huggingface.gguf import gguf_reading
from qwenchat.backends.huggingface.load import check_huggingface
from qwenchat.backends.huggingface.readers import read_config, read_prompt
from qwenchat.backends.load import backends_for
from qwenchat.backends.request import LoadRequest
from qwenchat.chat.messages import ReplyEnd
from qwenchat.engine.weights.gptq import pack_words
from qwenchat.errors import CheckpointError, PromptError
from qwenchat.gguf.file import GGUFFile


@pytest.fixture
def folder(hub_folders: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(hub_folders("qwen2"), tmp_path / "spoilt"))


def change(path: Path, **values: Any) -> None:
    """Changes a JSON file; None takes a key out."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refusal(folder: Path, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as error:
        qwenchat.load(folder, backend="huggingface", device="cpu", **options)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3
    return error.value


def test_an_architecture_that_transformers_does_not_know(folder: Path) -> None:
    change(folder / "config.json", model_type="qwen99")
    error = refusal(folder)
    assert "knows no model_type 'qwen99'" in error.message
    assert "newer" in error.hint


def test_one_that_needs_code_of_its_own(folder: Path) -> None:
    change(folder / "config.json", model_type="chatglm", auto_map={"AutoConfig": "modeling_qwen.Config"})
    assert "needs code of its own (auto_map), which is never run" in refusal(folder).message


def test_a_config_without_a_model_type(folder: Path) -> None:
    change(folder / "config.json", model_type=None)
    assert "knows no model_type None" in refusal(folder).message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickled_weights(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    error = refusal(folder)
    assert f"the weights are a pickle ({name}), which could run any code" in error.message
    assert "safetensors" in error.hint


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "there are no weights" in refusal(folder).message


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(folder).message


def test_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    error = refusal(folder)
    assert "adapter" in error.message
    assert "merge" in error.hint


@pytest.mark.skipif(os.name != "posix", reason="the system has no pipes among its files")
@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "chat_template.jinja"),
        *("generation_config.json", "model.safetensors", "additional_chat_templates/a.jinja"),
    ],
)
def test_a_pipe_in_a_files_place_is_not_waited_for(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    assert f"{path} cannot be read: not a regular file" in refusal(folder).message


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "added_tokens.json", "model.safetensors.index.json"]
)
def test_more_values_than_any_checkpoint_has(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a": [' + "{}," * 2**19 + "0]}")
    assert "it holds more than 524288 values" in refusal(folder).message


def test_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    error = refusal(folder)
    assert "there is no chat template" in error.message
    assert "base model" in error.hint
    assert "--complete" in error.hint


def test_without_a_chat_template_it_goes_on_with_a_text(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    model = qwenchat.load(folder, backend="huggingface", device="cpu", complete=True)
    *_, end = model.chat([{"role": "user", "content": "The quick <|im_end|>"}], max_new_tokens=3)
    assert isinstance(end, ReplyEnd)
    assert end.usage.prompt_tokens == len(model.tokenizer.encode("The quick <|im_end|>"))
    with pytest.raises(PromptError, match="one message"):
        model.chat([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])


def test_templates_with_names_alone_are_told_as_such(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "chat_template.jinja").rename(folder / "additional_chat_templates" / "tools.jinja")
    error = refusal(folder)
    assert "its chat templates have names (tools), and none is the default" in error.message
    assert "chat_template.jinja" in error.hint


def test_sampling_defaults_that_cannot_be_keep_no_model_from_answering(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"do_sample": true, "top_p": 0.9,}')
    told: list[str] = []
    qwenchat.load(folder, backend="huggingface", device="cpu", dtype="float32", notice=told.append)
    assert any("generation_config.json is not valid JSON" in line and "left out" in line for line in told)


def test_a_chat_template_that_is_none(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}")
    assert "the chat template cannot be read" in refusal(folder).message


def test_a_chat_template_that_never_ends(folder: Path) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(endless)
    assert "makes more than any chat template has reason to" in refusal(folder).message


@pytest.mark.parametrize(
    ("kind", "architecture"), [("bert", "BertForMaskedLM"), ("qwen2", "Qwen2ForSequenceClassification")]
)
def test_a_model_that_does_not_go_on_with_texts(folder: Path, kind: str, architecture: str) -> None:
    change(folder / "config.json", model_type=kind, architectures=[architecture])
    error = refusal(folder)
    assert f"{architecture} is not a language model" in error.message
    assert "ForCausalLM" in error.hint


def test_an_encoder_with_a_decoder(folder: Path) -> None:
    change(folder / "config.json", model_type="t5", architectures=None)
    assert "is not a language model" in refusal(folder).message


def test_a_model_without_a_cache_of_keys_and_values(
    write_hub_model: Callable[..., Path], styles: dict[str, Any], tmp_path: Path
) -> None:
    mamba = write_hub_model(tmp_path / "mamba", replace(styles["qwen2"], model="mamba"))
    assert "MambaForCausalLM keeps its context in a way that is not supported" in refusal(mamba).message


@pytest.mark.parametrize("method", ["awq", "bitsandbytes", "fp8"])
def test_another_quantisation(folder: Path, method: str) -> None:
    change(folder / "config.json", quantization_config={"quant_method": method})
    assert f"quantised with {method}, expected floats or GPTQ" in refusal(folder).message


def test_a_tensor_that_is_missing_is_not_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "the tensor model.layers.1.mlp.up_proj.weight is missing" in refusal(folder).message


def test_a_tensor_of_another_shape(folder: Path) -> None:
    change(folder / "config.json", intermediate_size=48)
    with pytest.raises(CheckpointError, match=r"down_proj.weight is \[32, 64\], .* makes it \[32, 48\]"):
        check_huggingface(folder, LoadRequest("tiny", device="cpu"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_one_line(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert refusal(folder).message


@pytest.mark.parametrize(
    "counts", [{"num_hidden_layers": 10**9}, {"num_labels": 10**9}, {"num_hidden_layers": -1}]
)
def test_a_number_of_things_that_no_model_has_is_not_even_counted_to(
    folder: Path, counts: dict[str, int]
) -> None:
    change(folder / "config.json", layer_types=None, **counts)
    assert "expected a whole number up to" in refusal(folder).message


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": "many", "layer_types": None},
        {"architectures": 5},
        {"architectures": [{}]},
        {"max_position_embeddings": "long"},
        {"quantization_config": [1]},
        {"hidden_size": 10**12},
        {"dtype": "float99"},
        {"rope_scaling": {"rope_type": "evil"}},
    ],
)
def test_a_config_of_nonsense_is_one_line(folder: Path, values: dict[str, Any]) -> None:
    change(folder / "config.json", **values)
    assert refusal(folder).message


@pytest.mark.parametrize("counts", [{"n_routed_experts": 2000}, {"text_config": {"num_experts": 2**19}}])
def test_experts_that_no_model_has_so_many_of(folder: Path, counts: dict[str, Any]) -> None:
    change(folder / "config.json", **counts)
    assert "expected a whole number up to 1024" in refusal(folder).message


@pytest.mark.parametrize("length", [-5, 1.5, [1]])
def test_a_context_that_is_no_number_of_tokens(folder: Path, length: Any) -> None:
    change(folder / "config.json", max_position_embeddings=length)
    assert f"max_position_embeddings is {length!r}" in refusal(folder).message


@pytest.mark.parametrize("shape", [[3, "x"], [1.5], "12", [None]])
def test_a_tensor_of_a_shape_that_is_none(folder: Path, shape: Any) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (folder / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "b.safetensors: this is not a safetensors file" in refusal(folder).message


def test_weights_that_are_cut_short_are_found_without_loading_them(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model.safetensors: .*cut short"):
        check_huggingface(folder, LoadRequest("tiny", device="cpu"))


def test_no_tokenizer_of_the_library(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "there is no tokenizer.json" in refusal(folder).message


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "AutoProcessor", "NoSuch"])
def test_beside_a_whole_tokenizer_its_class_is_no_condition(folder: Path, name: str) -> None:
    check_huggingface(folder, LoadRequest("tiny", device="cpu"))
    change(folder / "tokenizer_config.json", tokenizer_class=name)
    tokenizer = read_prompt(look(folder), read_config(look(folder)), complete=False).tokenizer
    assert tokenizer.decode(tokenizer.encode("a quick 狐狸")) == "a quick 狐狸"


@pytest.mark.parametrize(
    "changes",
    [
        # The library panics, of which Python hears as no Exception; or has an error of no kind.
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"}},
    ],
)
def test_a_tokenizer_that_fails_is_one_line(folder: Path, changes: dict[str, Any]) -> None:
    change(folder / "tokenizer.json", **changes)
    with pytest.raises((CheckpointError, PromptError)) as error:
        qwenchat.load(folder, backend="huggingface", device="cpu", dtype="float32").tokenizer.encode("hello")
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_cannot_be_made_says_why_and_not_that_protobuf_is_missing(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    content = {**json.loads(path.read_text()), "tokenizer_class": "LlamaTokenizer", "bos_token": None}
    path.write_text(json.dumps(content))
    assert "ValueError: add_bos_token = True but bos_token = None" in refusal(folder).message


@pytest.mark.parametrize("named", [{}, {"tokenizer_class": None}, {"tokenizer_class": "LlamaTokenizer"}])
def test_a_tokenizer_is_the_one_of_its_own_file_whatever_is_said_of_sentencepiece(
    hub_folders: Callable[[str], Path], tmp_path: Path, named: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(hub_folders("llama2"), tmp_path / "llama2"))
    before = qwenchat.load(folder, backend="huggingface", device="cpu").tokenizer.encode(" fox  the\n")
    change(folder / "tokenizer_config.json", add_prefix_space=True, from_slow=True, legacy=False, **named)
    assert (
        qwenchat.load(folder, backend="huggingface", device="cpu").tokenizer.encode(" fox  the\n") == before
    )


def test_attention_from_elsewhere_is_never_asked_for(folder: Path) -> None:
    # transformers fetches an implementation of such a name from the Hub, as code.
    change(folder / "config.json", attn_implementation="evil/kernels", _attn_implementation="evil/kernels")
    model = qwenchat.load(folder, backend="huggingface", device="cpu", dtype="float32")
    assert model.engine.runner.model.config._attn_implementation == "sdpa"


# --- GPTQ ----------------------------------------------------------------------------------------


def quantised(folder: Path) -> Path:
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    return folder


def test_gptq_without_a_gpu_says_what_to_do(folder: Path) -> None:
    error = refusal(quantised(folder))
    assert "quantised with GPTQ, which takes a CUDA GPU for this model" in error.message
    assert "GGUF" in error.hint


def test_the_older_file_of_auto_gptq_counts_as_well(folder: Path) -> None:
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 128}')
    assert look(folder).kind == "gptq"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lm_head": True}, "output matrix"),
        ({"dynamic": {"+:.*": {"bits": 8}}}, "dynamic"),
        ({"checkpoint_format": "gptq_v2"}, "gptq_v2"),
    ],
)
def test_gptq_that_auto_gptq_would_read_otherwise(folder: Path, changes: dict[str, Any], reason: str) -> None:
    section = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    change(folder / "config.json", quantization_config=section | changes)
    assert reason in refusal(folder).message


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("plainly", [False, True])
def test_gptq_whose_zero_points_contradict_its_label_is_refused_before_auto_gptq_misreads_it(
    folder: Path, bits: int, plainly: bool
) -> None:
    from safetensors.torch import save_file

    middle = torch.full((2, 16), 2 ** (bits - 1) - (not plainly), dtype=torch.uint8)
    zeros = pack_words(middle.T, bits).T.contiguous()
    save_file({"model.layers.0.mlp.up_proj.qzeros": zeros}, folder / "model.safetensors")
    change(
        folder / "config.json", quantization_config={"quant_method": "gptq", "bits": bits, "group_size": 16}
    )
    told = refusal(folder).message
    assert ("are stored as they are (gptq_v2)" in told) == plainly
    assert ("takes a CUDA GPU" in told) != plainly


def test_gptq_without_auto_gptq_says_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "auto_gptq", None)
    with pytest.raises(CheckpointError, match=r"auto-gptq is not here: .*install auto-gptq 0.7.1"):
        gptq.check_gptq(look(quantised(folder)), torch.device("cuda"))


def test_auto_gptq_is_asked_for_safetensors_and_no_remote_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class AutoGPTQForCausalLM:
        model = "the model"

        @classmethod
        def from_quantized(cls, name: str, **options: Any) -> type:
            asked.update(options, name=name)
            return cls

    fake = types.ModuleType("auto_gptq")
    fake.AutoGPTQForCausalLM = AutoGPTQForCausalLM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "auto_gptq", fake)
    files = HubFiles(folder, "gptq", "", {})
    assert gptq.read_gptq(files, torch.device("cuda"), torch.float16) == "the model"
    assert asked["device"] == "cuda:0"
    assert gptq.read_gptq(files, torch.device("cuda:1"), torch.float16) == "the model"
    assert asked == {
        "name": str(folder),
        "device": "cuda:1",
        "torch_dtype": torch.float16,
        "use_safetensors": True,
        "trust_remote_code": False,
        "local_files_only": True,
    }


# --- without loading -----------------------------------------------------------------------------


def test_what_would_be_refused_is_known_without_loading_it(folder: Path) -> None:
    check_huggingface(folder, LoadRequest("tiny", device="cpu"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="there is no chat template"):
        check_huggingface(folder, LoadRequest("tiny", device="cpu"))


# --- which backend -------------------------------------------------------------------------------


def test_the_backend_is_the_one_that_reads_the_model_type(
    folder: Path, tiny_chat: Path, tmp_path: Path
) -> None:
    assert backends_for(folder)[0] == ("native", "huggingface")
    assert backends_for(tiny_chat)[0] == ("native",)
    alone = tmp_path / "gguf" / "model.gguf"
    alone.parent.mkdir()
    alone.write_bytes(b"GGUF")
    assert backends_for(alone) == backends_for(alone.parent) == (("native", "huggingface"), "GGUF")


def test_a_gguf_beside_safetensors_or_others_is_not_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert gguf_file(folder) is None
    assert gguf_file(folder / "model.gguf") == folder / "model.gguf"
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (two / name).write_bytes(b"GGUF")
    assert gguf_file(two) is None


def test_several_ggufs_alone_are_a_choice(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.GGUF"):
        (tmp_path / name).write_bytes(b"GGUF")
    error = refusal(tmp_path)
    assert "there are 2 GGUF files" in error.message
    assert str(tmp_path / "a.gguf") in error.hint
    assert backends_for(tmp_path / "b.GGUF")[1] == "GGUF"


@pytest.mark.parametrize("name", ["custom_generate", "adapter_config.json"])
def test_what_transformers_would_add_to_a_gguf_file_is_refused_as_well(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / name).mkdir()
    for place in (tmp_path, tmp_path / "model.gguf"):
        assert name in refusal(place).message


def gguf_bytes(*entries: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


def gguf_entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GGUF" + b"\0" * 100, "version"),
        (b"GGUF", "0 bytes are left"),
        # The gguf package goes on past the end, in its loop of 2**60 rounds.
        (gguf_bytes(gguf_entry("x", 9, struct.pack("<IQ", 0, 2**60))), "bytes are left"),
        (gguf_bytes(gguf_entry("llama.block_count", 4, struct.pack("<I", 10**9))), "up to 1024"),
        (gguf_bytes(gguf_entry("qwen2moe.expert_count", 4, struct.pack("<I", 10**6))), "up to 1024"),
        (gguf_bytes(gguf_entry("llama.rope.freq_base", 6, struct.pack("<f", -1.0))), "freq_base is -1.0"),
    ],
)
def test_a_damaged_or_hostile_gguf_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    assert reason in refusal(tmp_path).message


def test_two_gguf_files_are_read_one_after_the_other() -> None:
    import gguf

    reader, file = gguf.GGUFReader, GGUFFile([Path("m.gguf")], {}, {})
    second = threading.Thread(target=lambda: exchanging.__enter__())
    exchanging = gguf_reading(file, lambda fraction: None)
    with gguf_reading(file, lambda fraction: None):
        second.start()
        second.join(0.1)
    second.join()
    assert gguf.GGUFReader is not reader
    exchanging.__exit__(None, None, None)
    assert gguf.GGUFReader is reader


# --- keys that this transformers does not read ----------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
def test_rope_parameters_of_a_newer_transformers_compute_the_same(folder: Path, scaled: bool) -> None:
    ids = list(range(5, 40))
    scaling = {"rope_type": "linear", "factor": 2.0} if scaled else None
    change(folder / "config.json", rope_theta=1e6, rope_scaling=scaling)
    expected = qwenchat.load(folder, backend="huggingface", device="cpu", dtype="float32").logits(ids)
    newer = {"rope_type": "default", "rope_theta": 1e6, **(scaling or {})}
    change(folder / "config.json", rope_theta=None, rope_scaling=None, rope_parameters=newer)
    assert torch.equal(
        qwenchat.load(folder, backend="huggingface", device="cpu", dtype="float32").logits(ids), expected
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("attn_logit_softcapping", 30.0), ("embedding_multiplier", 12), ("rope_ratio", 16)),
        ("rope_parameters", {"full_attention": {"rope_theta": 1e6}}),
    ],
)
def test_a_key_that_would_change_results_and_is_not_read_is_refused(
    folder: Path, key: str, value: Any
) -> None:
    change(folder / "config.json", **{key: value})
    assert f"{key} is {value!r}, which is not computed with" in refusal(folder).message


def test_other_keys_are_noted_for_debug_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(folder / "config.json", my_note="x", rope_interleaved=False, max_window_layers=48)
    with caplog.at_level("DEBUG", logger="qwenchat"):
        check_huggingface(folder, LoadRequest("tiny", device="cpu"))
    assert "not read: my_note" in caplog.text


def test_a_model_type_of_a_thousand_letters_is_quoted_in_a_line(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "x" * 1000}))
    assert "x" * 100 not in refusal(folder).message
