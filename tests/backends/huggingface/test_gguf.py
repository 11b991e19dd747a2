"""GGUF files: read for what they say, or refused by the name of what is not computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

import qwenchat
from qwenchat.backends.huggingface import gguf_head
from qwenchat.backends.huggingface.gguf_tokenizer import whole_tokenizer
from qwenchat.engine.gguf_config import rows_in_halves, stored_name, translate
from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import GGUFFile, read_gguf
from qwenchat.gguf.head import GGUFHead, read_head
from tests.backends.native.hub_tokenizers import tokenizer_of, tricky_texts, vocabulary_of

HIDDEN, HEADS, KV_HEADS, MLP, WIDTH = 32, 4, 2, 64, 8
BOS, EOS, USER, REPLY = "<｜begin｜>", "<｜end｜>", "<｜User｜>", "<｜Assistant｜>"
CONTROL, DEFINED = (BOS, EOS, USER, REPLY), ("<think>", "</think>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ ('<｜User｜>' if m.role == 'user' else '<｜Assistant｜>') "
    "+ m.content + ('' if m.role == 'user' else eos_token) }}{% endfor %}{{ '<｜Assistant｜><think>\n' }}"
)
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def letters() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.fixture
def write(tmp_path: Path, letters: list[str]) -> Write:
    """Writes a tiny GGUF file: by keys that are added to it, or taken out by None."""

    def write(
        place: Path | None = None, arch: str = "llama", seed: int = 1, split: int = 0, **changes: Any
    ) -> Path:
        path = place or tmp_path / "model.gguf"
        key_width = WIDTH * (HEADS if "ARCH.attention.head_count_kv" in changes else KV_HEADS)
        tokens = [*letters, "he", "hel", *CONTROL, *DEFINED]
        kinds = [1] * (len(letters) + 2) + [3] * len(CONTROL) + [4] * len(DEFINED)
        keys: dict[str, Any] = {
            f"{arch}.context_length": 512,
            f"{arch}.embedding_length": HIDDEN,
            f"{arch}.block_count": 1,
            f"{arch}.feed_forward_length": MLP,
            f"{arch}.attention.head_count": HEADS,
            f"{arch}.attention.head_count_kv": KV_HEADS,
            f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{arch}.rope.dimension_count": WIDTH,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.merges": ["h e", "he l"],
            "tokenizer.ggml.bos_token_id": tokens.index(BOS),
            "tokenizer.ggml.eos_token_id": tokens.index(EOS),
            "tokenizer.chat_template": TEMPLATE,
            **{key.replace("ARCH", arch): value for key, value in changes.items() if "." in key},
        }
        writer = gguf.GGUFWriter(path, arch, split_max_tensors=split)
        for key, value in keys.items():
            if isinstance(value, list):
                writer.add_array(key, value)
            elif value is not None:
                kind = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
                kind[type(value)](key, value)
        random = np.random.default_rng(seed)

        def put(name: str, *shape: int) -> None:
            writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))

        put("token_embd.weight", len(tokens), HIDDEN)
        for name, rows, columns in (
            *(("attn_q", HIDDEN, HIDDEN), ("attn_k", key_width, HIDDEN)),
            *(("attn_v", key_width, HIDDEN), ("attn_output", HIDDEN, HIDDEN)),
            *(("ffn_gate", MLP, HIDDEN), ("ffn_up", MLP, HIDDEN), ("ffn_down", HIDDEN, MLP)),
        ):
            put(f"blk.0.{name}.weight", rows, columns)
            if arch == "qwen2" and name[-2:] in ("_q", "_k", "_v"):
                put(f"blk.0.{name}.bias", rows)
        for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
            put(f"{name}.weight", HIDDEN)
        put("output.weight", len(tokens), HIDDEN)
        if (extra := changes.get("extra")) is not None:
            put(extra, HIDDEN)
        if (factors := changes.get("factors")) is not None:
            writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def load(place: Path, **options: Any) -> Any:
    return qwenchat.load(place, device="cpu", dtype="float32", backend="huggingface", **options)


def refusal(place: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as error:
        load(place)
    assert "\n" not in str(error.value)
    return error.value


def inverse(model: Any) -> torch.Tensor:
    """The frequencies of the rotary embedding."""
    frequencies: torch.Tensor = model.engine.runner.model.model.rotary_emb.inv_freq
    return frequencies


def test_the_weights_are_those_of_the_file_that_is_named_wherever_one_works(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [5, 6, 7]
    folder, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        place.mkdir()
    write(folder / "m.gguf")
    expected = load(folder / "m.gguf").logits(ids)
    write(elsewhere / "m.gguf", seed=2)
    monkeypatch.chdir(elsewhere)
    for place in (folder / "m.gguf", folder, Path("../models/m.gguf")):
        assert torch.equal(load(place).logits(ids), expected)


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_control_tokens_are_one_token_each_and_begin_and_end_are_not_mixed_up(
    write: Write, arch: str
) -> None:
    model = load(write(arch=arch))
    tokens = json.loads(model.tokenizer._tokenizer.to_str())["model"]["vocab"]
    prompt = model._prompt.ids(qwenchat_messages("he"))
    written = [next(word for word, i in tokens.items() if i == token_id) for token_id in prompt]
    assert written == [BOS, USER, "he", REPLY, "<think>", "Ċ"]
    assert model._prompt.ends == {tokens[EOS]}
    assert model.tokenizer.decode(prompt) == "he<think>\n"
    assert tokens[USER] not in model.tokenizer.encode(USER)


def qwenchat_messages(text: str) -> list[Any]:
    from qwenchat.chat.messages import Message

    return [Message.of({"role": "user", "content": text})]


def test_factors_of_the_frequencies_are_computed_with(write: Write) -> None:
    plain = inverse(load(write()))
    factors = [1.0, 1.0, 2.0, 8.0]
    assert torch.allclose(inverse(load(write(factors=factors))), plain / torch.tensor(factors))


def test_linear_scaling_is_computed_with_and_yarn_as_transformers_has_it(write: Write) -> None:
    plain = inverse(load(write()))
    linear = {"ARCH.rope.scaling.type": "linear", "ARCH.rope.scaling.factor": 4.0}
    assert torch.allclose(inverse(load(write(**linear))), plain / 4)
    assert torch.allclose(inverse(load(write(**{"ARCH.rope.scale_linear": 4.0}))), plain / 4)
    yarn = {**linear, "ARCH.rope.scaling.type": "yarn", "ARCH.rope.scaling.original_context_length": 128}
    model = load(write(**yarn))
    assert inverse(model)[0] == plain[0]
    assert torch.allclose(inverse(model)[-1], plain[-1] / 4)
    assert model.engine.runner.model.model.rotary_emb.attention_scaling == pytest.approx(0.1 * np.log(4) + 1)


def test_keys_that_need_not_be_there_are_no_condition(write: Write) -> None:
    optional = ("ARCH.attention.head_count_kv", "ARCH.rope.dimension_count", "tokenizer.ggml.token_type")
    asked = dict.fromkeys((*optional, "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"))
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    model = load(write(arch="qwen2", **asked, **{"tokenizer.chat_template": template}))
    config = model.engine.runner.model.config
    assert (config.num_key_value_heads, config.bos_token_id, config.eos_token_id) == (HEADS, None, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split.count": 3}, "one of 3 parts of a GGUF file"),
        ({"arch": "gemma3"}, "tokenizer of a Gemma GGUF"),
        ({"tokenizer.chat_template": None}, "there is no chat template"),
        ({"tokenizer.chat_template": None, "tokenizer.chat_template.tools": "x"}, "have names (tools)"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "eos_token_id is 9999, which is not a token"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "kinds of its tokens"),
        ({"tokenizer.ggml.tokens": None}, "no vocabulary"),
    ],
)
def test_what_is_refused_before_torch_is_there(
    write: Write, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    def torch_is_wanted() -> None:
        raise AssertionError("this takes seconds")

    monkeypatch.setattr("qwenchat.backends.huggingface.load.open_torch_libraries", torch_is_wanted)
    assert reason in refusal(write(**changes)).message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("rope.scaling.type", "longrope"), ("rope.scaling.yarn_log_multiplier", 0.1)),
        *(("attn_logit_softcapping", 50.0), ("attention.sliding_window", 256)),
        *(("attention.scale", 0.5), ("attention.value_length", 16), ("logit_scale", 2.0)),
        ("expert_count", 8),
    ],
)
def test_what_would_change_results_and_is_not_read_is_refused_by_name(
    write: Write, key: str, value: Any
) -> None:
    assert f"llama.{key} is {value!r}, which is not computed with" in refusal(
        write(**{f"ARCH.{key}": value})
    ).message.replace("0.10000000149011612", "0.1")


def test_a_tensor_that_the_model_is_not_computed_with_is_named(write: Write) -> None:
    assert (
        "not computed with its tensor 'blk.0.attn_q.bias'"
        in refusal(write(extra="blk.0.attn_q.bias")).message
    )


def test_a_key_without_which_no_model_can_be_is_named(write: Write) -> None:
    error = refusal(write(**{"ARCH.attention.layer_norm_rms_epsilon": None}))
    assert "the key llama.attention.layer_norm_rms_epsilon is missing" in error.message


def test_a_file_in_parts_is_one_model_whichever_part_is_named(write: Write, tmp_path: Path) -> None:
    ids = [5, 6, 7]
    expected = load(write()).logits(ids)
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "m.gguf", split=5)
    parts = sorted(folder.iterdir())
    assert len(parts) == 3
    for place in (parts[2], folder):
        assert torch.equal(load(place).logits(ids), expected)
    parts[1].unlink()
    assert f"part 2 of 3 of this GGUF file is missing: {parts[1].name}" in refusal(folder).message


def test_the_file_is_read_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def remembering(path: Path) -> Any:
        opened.append(path)
        return real(path)

    real = gguf_head.read_gguf
    monkeypatch.setattr(gguf_head, "read_gguf", remembering)
    monkeypatch.setattr("gguf.GGUFReader", None)
    path = write()
    load(path)
    assert opened == [path]


@pytest.mark.parametrize(
    ("family", "pre"), [("gpt2", "gpt-2"), ("llama3", "llama-bpe"), ("smollm", "smollm")]
)
def test_texts_are_split_as_the_file_says(family: str, pre: str) -> None:
    peer = tokenizer_of(family)
    head = GGUFHead(GGUFFile([Path("m.gguf")], {}, {}), "llama", {}, vocabulary_of(peer, pre))
    ours = whole_tokenizer(head, theirs=lambda: None)
    for text in tricky_texts():
        assert ours.encode(text, add_special_tokens=False) == peer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_in_the_hubs_words_it_is_the_same_model(write: Write, arch: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    path, ids = write(arch=arch), [5, 6, 7, 8]
    expected = load(path).logits(ids)
    with read_gguf(path) as file:
        found = translate(read_head(file))
        config = AutoConfig.for_model(**found.config)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            numbers = file.tensor(stored_name(name))
            if found.paired and name.endswith(("q_proj.weight", "k_proj.weight")):
                heads = len(numbers) // WIDTH
                numbers = rows_in_halves(numbers, heads)
            parameter.data = torch.from_numpy(np.ascontiguousarray(numbers))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    assert torch.allclose(logits, expected, atol=1e-5)
