"""Tiny chat models of the Hub, made for the test: random weights, vocabularies trained on a few sentences.

Their templates are written in the manner of the published ones, as short as that goes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SENTENCES = (
    *("The quick brown fox jumps over the lazy dog.", "def add(a, b):\n    return a + b\n"),
    *("user system assistant model hello", "Größe, naïve, 你好世界。", "one two three 1 2 3"),
)

QWEN2 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a test.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Thinking is taken out of replies that are over, and content looked into.
QWEN3 = (
    "{% for message in messages %}{% set content = message.content %}"
    "{% if message.role == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Style:
    """A kind of model: its template, its control tokens, and how its vocabulary is made."""

    template: str
    special: tuple[str, ...]
    eos: str
    model: str
    bos: str | None = None
    ordinary: tuple[str, ...] = ()
    sentencepiece: bool = False
    prefix_space: bool = False


STYLES = {
    "qwen2": Style(QWEN2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", "qwen2"),
    "qwen3": Style(
        QWEN3,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "qwen3",
        ordinary=("<think>", "</think>", "<tool_call>"),
    ),
    "llama3": Style(
        LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "llama",
        bos="<|begin_of_text|>",
    ),
    "gemma": Style(
        GEMMA,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "gemma",
        bos="<bos>",
        sentencepiece=True,
    ),
    "llama2": Style(
        LLAMA2, ("<unk>", "<s>", "</s>"), "</s>", "llama", bos="<s>", sentencepiece=True, prefix_space=True
    ),
}


def byte_level(style: Style) -> Any:
    """A byte-level BPE, as of Qwen and Llama 3."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def sentencepiece(style: Style) -> Any:
    """A BPE with spaces in its words and a token for each byte, as of Gemma and Llama 2."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    spaces = [normalizers.Replace(" ", "▁")]
    before = [normalizers.Prepend("▁")] if style.prefix_space else []
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([*before, *spaces])
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=150, show_progress=False))
    layout = json.loads(trained.to_str())["model"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    # The control tokens are in the model's own vocabulary.
    words = [*style.special, *bytes_, *layout["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: i for i, word in enumerate(words)},
            merges=[tuple(merge) for merge in layout["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([*before, *spaces])
    strip = [decoders.Strip(" ", 1, 0)] if style.prefix_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def fast_tokenizer(style: Style) -> Any:
    """The style's tokenizer as transformers has it."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    tokenizer = sentencepiece(style) if style.sentencepiece else byte_level(style)
    tokenizer.add_special_tokens([AddedToken(form, special=True, normalized=False) for form in style.special])
    tokenizer.add_tokens([AddedToken(form, special=False, normalized=False) for form in style.ordinary])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=style.eos, bos_token=style.bos)
    fast.chat_template = style.template
    return fast


def write_model(folder: Path, style: Style, **changes: Any) -> Path:
    """Writes a model of two layers that babbles in this style."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    fast = fast_tokenizer(style)
    shape = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "eos_token_id": fast.eos_token_id,
        "bos_token_id": fast.bos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": False,
        "initializer_range": 0.5,
        **changes,
    }
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(style.model, **shape))
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    generation = {"do_sample": True, "top_p": 0.8, "eos_token_id": [fast.eos_token_id], "max_new_tokens": 7}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.fixture(scope="session")
def styles() -> dict[str, Style]:
    return STYLES


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[Style], Any]:
    """:func:`fast_tokenizer`"""
    return fast_tokenizer


@pytest.fixture(scope="session")
def write_hub_model() -> Callable[..., Path]:
    """:func:`write_model`"""
    return write_model


@pytest.fixture(scope="session")
def hub_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """A style's checkpoint, which a test leaves as it is."""
    folders: dict[str, Path] = {}

    def folder(style: str) -> Path:
        if style not in folders:
            folders[style] = write_model(tmp_path_factory.mktemp(style), STYLES[style])
        return folders[style]

    yield folder
