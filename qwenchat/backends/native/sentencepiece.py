"""The SentencePiece vocabulary of a Llama's GGUF file, as a tokenizer of the tokenizers library.

SentencePiece's BPE has a score for each token and no merges: of all neighbours that together are a token
those with the highest score are joined, the first of equal ones. The library has an order of merges instead.
The two give the same tokens where no two tokens have the same score, where no token is made of a character
that is none, and where of two ways to make a token that may overlap in a text the left one comes first; that
is checked here, and a vocabulary for which there is no such order is not read.

A space is written U+2581, and one is put before each text that is not between control tokens alone, as
llama.cpp does; a character that is no token becomes its bytes, which all are.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from qwenchat.backends.native.bpe import MOST_ADDED, MOST_MERGES
from qwenchat.backends.prompts import hub_tokenizer
from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer
from qwenchat.errors import CheckpointError, NotComputedError
from qwenchat.gguf.vocabulary import GGUFVocabulary, TokenType

_SPACE = "\u2581"
_LONGEST_WORD, _MOST_CHARACTERS = 128, 2**21
"""Of a token, and of all: what is looked at grows with it. Llama 2's vocabulary has 200,000."""


def raw_tokenizer(vocabulary: GGUFVocabulary, names: Mapping[str, str]) -> RawTokenizer:
    """The tokenizer that a GGUF file describes, its control tokens not yet chosen.

    Args:
        names: as of :class:`RawTokenizer`.

    Raises:
        CheckpointError: the vocabulary is damaged.
        NotComputedError: it is not one that the library reads exactly.
    """
    layout = _layout(vocabulary)
    library: Any = importlib.import_module("tokenizers")
    try:
        tokenizer = library.Tokenizer.from_str(json.dumps(layout))
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            "{path}: the tokenizer cannot be read: {reason}", path=vocabulary.path, reason=reason
        ) from error
    begin = (vocabulary.ids["bos"],) if vocabulary.begins and "bos" in vocabulary.ids else ()
    return replace(hub_tokenizer.raw_tokenizer(tokenizer, names), begin=begin)


def _layout(vocabulary: GGUFVocabulary) -> dict[str, Any]:
    """The same as a ``tokenizer.json`` has it."""
    tokens, scores = vocabulary.tokens, vocabulary.scores
    if len(set(tokens)) != len(tokens):
        raise CheckpointError("{name}: a token is there twice", name=vocabulary.path)
    if scores is None:
        raise CheckpointError("{name}: its tokens have no scores", name=vocabulary.path)
    made = vocabulary.of_type(TokenType.NORMAL, TokenType.UNUSED)
    lengths = [len(word) for word in made.values()]
    if sum(lengths) > _MOST_CHARACTERS or max(lengths, default=0) > _LONGEST_WORD:
        raise _inexact(vocabulary)
    whole = vocabulary.of_type(TokenType.BYTE)
    if {f"<0x{byte:02X}>" for byte in range(256)} != set(whole.values()):
        raise _inexact(vocabulary)
    control = vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
    added = {**control, **vocabulary.of_type(TokenType.USER_DEFINED)}
    if len(added) > MOST_ADDED:
        raise _inexact(vocabulary)
    space = [{"type": "Prepend", "prepend": _SPACE}] if vocabulary.space_first else []
    steps = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if vocabulary.space_first:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": token_id,
                "content": form,
                "special": token_id in control,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            }
            for token_id, form in sorted(added.items())
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*space, {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}],
        },
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {
            "type": "BPE",
            "vocab": {form: token_id for token_id, form in enumerate(tokens) if form},
            "merges": list(_merges(vocabulary, made, scores)),
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": True,
        },
    }


def _merges(
    vocabulary: GGUFVocabulary, made: Mapping[int, str], scores: Sequence[float] | np.ndarray[Any, Any]
) -> Iterator[tuple[str, str]]:
    """Two tokens each, the first to be merged first."""
    words = frozenset(made.values())
    splits: dict[int, list[int]] = {}
    for token_id, word in made.items():
        # What a text may have there: a token, or a character that is none.
        found = [
            i
            for i in range(1, len(word))
            if (i == 1 or word[:i] in words) and (i == len(word) - 1 or word[i:] in words)
        ]
        if any(word[:i] not in words or word[i:] not in words for i in found):
            raise _inexact(vocabulary)
        if found:
            splits[token_id] = found
    of_these = np.asarray(scores, np.float64)[list(splits)] if splits else np.empty(0)
    if (
        sum(map(len, splits.values())) > MOST_MERGES
        or len(np.unique(of_these)) != len(splits)
        or not np.isfinite(of_these).all()
    ):
        raise _inexact(vocabulary)
    for token_id in np.array(list(splits))[np.argsort(-of_these)].tolist() if splits else []:
        word = made[token_id]
        try:
            for i in _left_first(word, splits[token_id]):
                yield word[:i], word[i:]
        except CycleError:
            raise _inexact(vocabulary) from None


def _left_first(word: str, splits: Sequence[int]) -> Iterable[int]:
    """The ways to make a word of two, so that of two which share a token in a text the left one comes first.

    Those are L + M and M + R, where a text has the three in a row.
    """
    if len(splits) == 1:
        return splits
    known = frozenset(splits)
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for left in splits:
        sorter.add(left)
        middle = len(word) - left
        if middle in known and middle != left and word[left:] == word[:middle]:
            sorter.add(middle, left)
    return sorter.static_order()


def _inexact(vocabulary: GGUFVocabulary) -> NotComputedError:
    return NotComputedError(
        "{name}: its SentencePiece vocabulary is not one that our own engine reads exactly",
        "look for the model's safetensors, or use --backend huggingface",
        in_chat="look for the model's safetensors, or start qwenchat with --backend huggingface",
        name=vocabulary.path,
    )
