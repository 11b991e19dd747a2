"""The tokenizer of a GGUF file for transformers, with the file's own tokens, merges and way of splitting.

transformers makes one of a GGUF file too, but splits by the model's family: Llama 3's numbers otherwise than
it was trained. What the file names and is known here is made as it says; of the rest theirs is completed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from qwenchat.gguf.head import GGUFHead
from qwenchat.gguf.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from qwenchat.gguf.vocabulary import GGUFVocabulary, TokenType
from qwenchat.text.split_patterns import SPLIT_PATTERNS

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def whole_tokenizer(head: GGUFHead, theirs: Callable[[], Any]) -> Any:
    """A fast tokenizer of transformers with the file's own control tokens, bos, eos and template.

    Args:
        theirs: reads what transformers makes of the file.
    """
    from transformers import PreTrainedTokenizerFast

    library: Any = importlib.import_module("tokenizers")

    vocabulary = head.vocabulary
    how = PRE_TOKENIZERS.get(vocabulary.pre or "") if vocabulary.model == "gpt2" else None
    layout = json.loads(theirs().backend_tokenizer.to_str()) if how is None else _layout(vocabulary, how)
    control = vocabulary.of_type(TokenType.CONTROL)
    if added := vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED):
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        layout["added_tokens"] = [
            {"id": token_id, "content": form, "special": token_id in control, **plain}
            for token_id, form in added.items()
        ]
    bos, eos = (
        vocabulary.tokens[vocabulary.ids[name]] if name in vocabulary.ids else None for name in ("bos", "eos")
    )
    layout["post_processor"] = None
    if vocabulary.begins and bos is not None:
        begin, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
        layout["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [begin, text],
            "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {bos: {"id": bos, "ids": [vocabulary.ids["bos"]], "tokens": [bos]}},
        }
    whole = library.Tokenizer.from_str(json.dumps(layout))
    kind: Any = PreTrainedTokenizerFast
    fast = kind(tokenizer_object=whole, bos_token=bos, eos_token=eos)
    fast.chat_template = vocabulary.template
    return fast


def _layout(vocabulary: GGUFVocabulary, how: PreTokenizer) -> dict[str, Any]:
    """What a ``tokenizer.json`` of the same vocabulary would have, but for added tokens."""
    split: dict[str, Any] = _BYTE_LEVEL
    if how.pattern == "smollm":
        split = {"type": "Digits", "individual_digits": True}
    elif how.pattern != "gpt2":
        pattern = {"Regex": SPLIT_PATTERNS[how.pattern]}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    bytes_alone = {**_BYTE_LEVEL, "use_regex": how.pattern == "smollm"}
    steps = [split] if how.pattern == "gpt2" else [split, bytes_alone]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": how.normal_form and {"type": how.normal_form},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": how.whole,
            "vocab": {word: token_id for token_id, word in enumerate(vocabulary.tokens)},
            "merges": vocabulary.merges,
        },
    }
