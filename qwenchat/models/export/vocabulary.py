"""The vocabulary of a first-generation Qwen as a list of merges, and the files that are made of it.

Owns ``tokenizer.json`` (of the tokenizers library), ``tokenizer_config.json`` and ``generation_config.json``
as Qwen2's checkpoints have them, and the chat template.

tiktoken's file has ranks: of all neighbours that together are a token those with the lowest rank are joined,
whatever the two are. A list of merges says which two. The two parts of a token are what its bytes become by
the ranks below its own, which is also how transformers converts such files. That the merges give the same
tokens is checked (:func:`qwenchat.text.merges.rank`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from qwenchat.errors import CheckpointError
from qwenchat.files.json_values import read_json
from qwenchat.text.byte_characters import bytes_of_characters
from qwenchat.text.merges import Inexact, rank
from qwenchat.text.split_patterns import SPLIT_PATTERNS
from qwenchat.tokenizer import ENDOFTEXT, IM_END, IM_START, QwenTokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, with the system prompt that the first generation was trained on where there is none."""

_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Merges:
    """A vocabulary as byte-level BPE has it.

    Attributes:
        words: the ordinary tokens in printable characters, by id.
        merges: the two words that become another, the first to be made first.
        specials: the control tokens' written forms, by id.
    """

    words: dict[int, str]
    merges: list[tuple[str, str]]
    specials: Mapping[int, str]


def merges_of(tokenizer: QwenTokenizer, folder: Path) -> Merges:
    """The merges of a vocabulary of ranks.

    Args:
        folder: named where there are none.

    Raises:
        CheckpointError: no list of merges gives the same tokens.
    """
    characters = {byte: character for character, byte in bytes_of_characters().items()}
    ranks = tokenizer.vocabulary.ranks()
    tokens = {token_id: token for token, token_id in ranks.items()}
    made: list[tuple[int, int, int]] = []
    for token_id, token in sorted(tokens.items()):
        if len(token) > 1:
            parts = _parts(token, ranks, token_id)
            if len(parts) != 2:
                raise _no_merges(folder)
            made.append((ranks[parts[0]], ranks[parts[1]], token_id))
    try:
        same = rank(tokens, made)
    except Inexact as error:
        raise _no_merges(folder) from error
    if same.ids is not None or same.unmerged:
        raise _no_merges(folder)
    words = {token_id: "".join(map(characters.__getitem__, token)) for token_id, token in tokens.items()}
    return Merges(
        words,
        [(words[left], words[right]) for left, right, _ in made],
        {token_id: form for form, token_id in tokenizer.special_tokens.items()},
    )


def tokenizer_json(vocabulary: Merges, *, split: str = "qwen") -> dict[str, Any]:
    """The file of the tokenizers library.

    Args:
        split: the family whose way it is to split a text into pieces.
    """
    # The library gives the control tokens ids behind the words, but for those that are among them.
    below = {i: form for i, form in vocabulary.specials.items() if i < max(vocabulary.words)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, **_added(form)} for token_id, form in sorted(vocabulary.specials.items())
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": SPLIT_PATTERNS[split]},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": False,
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": False,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {word: token_id for token_id, word in sorted((vocabulary.words | below).items())},
            "merges": [f"{left} {right}" for left, right in vocabulary.merges],
        },
    }


def tokenizer_config(vocabulary: Merges, context: int) -> dict[str, Any]:
    """What transformers asks for beside it.

    Args:
        context: the longest prompt, in tokens.
    """
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token_id): _added(form) for token_id, form in sorted(vocabulary.specials.items())
        },
        "additional_special_tokens": [IM_START, IM_END],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "errors": "replace",
        "model_max_length": context,
        "pad_token": ENDOFTEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def generation_config(tokenizer: QwenTokenizer, source: Path) -> dict[str, Any]:
    """How replies end and are drawn: the source's way, without its limit of 512 tokens."""
    path = source / "generation_config.json"
    said = read_json(path) if path.exists() else {}
    sampling = {name: said[name] for name in _SAMPLING if name in said}
    return {
        "bos_token_id": tokenizer.endoftext_id,
        "eos_token_id": [tokenizer.im_end_id, tokenizer.endoftext_id],
        "pad_token_id": tokenizer.endoftext_id,
        **sampling,
    }


def _added(form: str) -> dict[str, Any]:
    return {
        "content": form,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _parts(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """What a token's bytes become by the ranks below its own."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, below) for a, b in pairwise(parts)]
        at = min(range(len(joined)), key=joined.__getitem__)
        if joined[at] >= below:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _no_merges(folder: Path) -> CheckpointError:
    return CheckpointError(
        "{folder}: no list of merges gives the tokens of this vocabulary",
        "the .tiktoken file is damaged, or of another model",
        folder=folder,
    )
