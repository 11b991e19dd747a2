"""Tokenizers as the families have them, made small; and the texts that they are held to."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from qwenchat.gguf.vocabulary import GGUFVocabulary, TokenType
from qwenchat.text.byte_characters import bytes_of_characters
from qwenchat.text.split_patterns import SPLIT_PATTERNS
from qwenchat.tokenizer import QwenTokenizer

_BYTE = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_CONTROL = {
    "qwen2": (
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
        *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
        *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    ),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gpt2": ("<|endoftext|>", "<|im_start|>"),
    "smollm": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
}
FAMILIES = tuple(_CONTROL)
DEFINED = ("<tool_call>", "<think>", "</think>", "<think>more")

CORPUS = (
    "The quick brown fox jumps over the lazy dog. 'Tis the season; they're here, we'll see, I'd go!\n",
    "def encode(text: str) -> list[int]:\n    return [ord(c) for c in text if c != '\\t']\n\n\n",
    "你好，世界！通义千问是一个语言模型。今天天气很好，我们去公园吧。\n机器学习与自然语言处理。",
    "1234567890 3.14159 2024-12-31 1,000,000 ½ ² ٣ ४ Ⅷ ①\r\n\r\n   \t\t  ",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم नमस्ते दुनिया こんにちは世界 안녕하세요\n",
    "naïve café résumé über straße e\u0301 o\u0308 🙂👍🏽👨‍👩‍👧‍👦 ∑∫√ <html><body class='x'>&amp;</body>\n",
    "____________ ======== ........ ------ aaaaaaaaaaaaaaaa hahahahahaha banana bananas\n",
)


def tokenizer_of(family: str) -> Tokenizer:
    """A tokenizer of a family; Qwen's has the shipped vocabulary, the others are trained on a few lines."""
    whole = qwen2() if family == "qwen2" else trained(family)
    control = [AddedToken(form, special=True, normalized=False) for form in _CONTROL[family]]
    whole.add_special_tokens(control)
    whole.add_tokens([AddedToken(form, special=False, normalized=False) for form in DEFINED])
    whole.add_tokens([AddedToken("né", special=False, normalized=True)])
    whole.decoder = decoders.ByteLevel()
    return whole


def qwen2() -> Tokenizer:
    """Qwen 2's: the vocabulary of the first generation, with the merges that it is made by."""
    vocabulary = QwenTokenizer.default().vocabulary
    character = {byte: letter for letter, byte in bytes_of_characters().items()}
    ranks = vocabulary.ranks()
    words = {"".join(character[byte] for byte in token): i for token, i in ranks.items()}
    merges = []
    for token, i in ranks.items():
        if len(token) > 1:
            parts = [token[n : n + 1] for n in range(len(token))]
            while len(parts) > 2:
                made = [ranks.get(a + b, i) for a, b in pairwise(parts)]
                at = made.index(min(made))
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            merges.append(tuple("".join(character[byte] for byte in part) for part in parts))
    whole = Tokenizer(models.BPE(vocab=words, merges=merges))
    whole.normalizer = normalizers.NFC()
    whole.pre_tokenizer = _split("qwen")
    return whole


def trained(family: str) -> Tokenizer:
    whole = Tokenizer(models.BPE())
    if family == "llama3":
        whole.pre_tokenizer = _split("llama3")
    elif family == "gpt2":
        whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        digits = pre_tokenizers.Digits(individual_digits=True)
        whole.pre_tokenizer = pre_tokenizers.Sequence(
            [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"] if family == "smollm" else [],
        show_progress=False,
    )
    whole.train_from_iterator(CORPUS * 3, trainer)
    return _as_llama3(whole) if family == "llama3" else whole


def _as_llama3(whole: Tokenizer) -> Tokenizer:
    """Every split of a token into two others among the merges, by the ids of what they give."""
    layout: dict[str, Any] = json.loads(whole.to_str())
    words = layout["model"]["vocab"]
    layout["model"]["merges"] = [
        [word[:n], word[n:]]
        for word in sorted(words, key=words.get)
        for n in range(1, len(word))
        if word[:n] in words and word[n:] in words
    ]
    layout["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(layout))


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT_PATTERNS[pattern]), "isolated"), _BYTE])


def vocabulary_of(peer: Tokenizer, pre: str) -> GGUFVocabulary:
    """What the converters of llama.cpp write of a tokenizer."""
    layout = json.loads(peer.to_str())
    forms = {token["content"]: token["special"] for token in layout["added_tokens"]}
    words = sorted(peer.get_vocab(with_added_tokens=True), key=peer.token_to_id)
    types = [
        TokenType.NORMAL if w not in forms else TokenType.CONTROL if forms[w] else TokenType.USER_DEFINED
        for w in words
    ]
    merges = [" ".join(merge) for merge in layout["model"]["merges"]]
    kinds = np.array(types, np.uint8)
    return GGUFVocabulary(
        Path("m.gguf"), "gpt2", pre, words, kinds, merges, ids={}, begins=False, templates={}
    )


_TRICKY = (
    # White space.
    *("", " ", "  ", "\n", "\r\n", "\t", " \n ", "\n\n\n", "   x", "x   ", "x   y", " \u00a0\u3000x"),
    *("\u0085x", " " * 33 + "x", "\n" * 9 + "x", "x" + "\t" * 7, "\ufeffx", "\u200bx", "x\u00ad"),
    # Contractions, one with a long s.
    *("'s", "'S", "'LL", "'\u017f", "I'M", "it’s", "'tis", "''''", "don't'", " 'd", "x'Re", "K'VE"),
    # Numbers of all kinds.
    *(
        "1",
        "12",
        "123",
        "1234",
        "12345678",
        " 1 22 333",
        "1.5e10",
        "٣٤٥",
        "½⅓",
        "Ⅻ",
        "x²",
        "①②③④",
        "１２３４",
    ),
    # What has another normal form, and marks alone.
    *("e\u0301", "\u0301e", "né", "ne\u0301", "\u1100\u1161\u11a8", "ﬁ", "Å\u212b", "q\u0307\u0323", "क्षि"),
    # Added tokens, whole and not.
    *("<|im_start|>user\nhi<|im_end|>", "<|endoftext|>", "<|endoftext", "x<|eot_id|>y<|eot_id|>"),
    *("<|vision_start|><|image_pad|><|vision_end|>", " <|box_start|>(1,2)<|box_end|>\n", "<|im_pad|>"),
    *("<think>", "<think>more", "<think>mo", "a<think>\u0338b", " <tool_call> </think>", "<<think>>"),
    *("<think><think>", "\x00\x01", "\x7f", "\ue000", "\U0010fffd", "\ufffd"),
    # Emoji, flags, long runs.
    *("🙂", "👨‍👩‍👧‍👦", "🇨🇳🇩🇪", "👍🏽!", "a" * 70, "ab" * 90, "=" * 99, "- - - -", "!?!?!?", "....x"),
    # Scripts and letters of rare classes.
    *(
        "你好",
        "你 好",
        "你好。\n",
        "，，，",
        "「引」",
        "日本語テキスト",
        "한국어 문장",
        "Ünïcödé",
        "ǅ",
        "ʰ",
        "ª",
    ),
    *("ⓐ", "٪", "https://example.org/a?b=c&d=%20#e", "C:\\x\\y", "a_b-c.d", "f(x)=x^2;", "“x”", "–—"),
    "#include <x.h>\n\tint\n",
)


def tricky_texts() -> list[str]:
    """A hundred texts on which splitting, normalising, merging and added tokens could go wrong."""
    return [*CORPUS, *_TRICKY]
