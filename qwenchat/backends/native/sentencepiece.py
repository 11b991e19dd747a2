"""The SentencePiece vocabulary of a Llama's GGUF file.

Such a BPE has a score for each token and no merges: of all neighbours that together are a token those with
the highest score are joined, the first of equal ones, as llama.cpp does it. A space is written U+2581, and
one is put before each text between control tokens; a character that is no token becomes its bytes, which all
are. What is around that, added tokens and decoding, is the tokenizers library's.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from qwenchat.backends.native.bpe import MOST_ADDED
from qwenchat.backends.prompts import hub_tokenizer
from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer
from qwenchat.errors import CheckpointError, NotComputedError
from qwenchat.gguf.vocabulary import GGUFVocabulary, TokenType

_SPACE = "\u2581"


def raw_tokenizer(vocabulary: GGUFVocabulary, names: Mapping[str, str]) -> RawTokenizer:
    """The tokenizer that a GGUF file describes, its control tokens not yet chosen.

    Args:
        names: as of :class:`RawTokenizer`.

    Raises:
        CheckpointError: the vocabulary is damaged.
        NotComputedError: it has no tokens for all bytes.
    """
    merging = Merging(vocabulary)
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
    return replace(hub_tokenizer.raw_tokenizer(tokenizer, names, merged=merging.ids), begin=begin)


class Merging:
    """Joins the characters of a text to tokens.

    Raises:
        CheckpointError: the vocabulary is damaged.
        NotComputedError: it has no tokens for all bytes.
    """

    def __init__(self, vocabulary: GGUFVocabulary) -> None:
        tokens, scores = vocabulary.tokens, vocabulary.scores
        if len(set(tokens)) != len(tokens):
            raise CheckpointError("{name}: a token is there twice", name=vocabulary.path)
        if scores is None:
            raise CheckpointError("{name}: its tokens have no scores", name=vocabulary.path)
        made = vocabulary.of_type(TokenType.NORMAL, TokenType.UNUSED)
        self._words = {word: token_id for token_id, word in made.items()}
        self._scores = {word: float(scores[token_id]) for token_id, word in made.items()}
        whole = {word: token_id for token_id, word in vocabulary.of_type(TokenType.BYTE).items()}
        try:
            self._bytes = [whole[f"<0x{byte:02X}>"] for byte in range(256)]
        except KeyError:
            raise NotComputedError(
                "{name}: its SentencePiece vocabulary has no tokens for all bytes",
                "look for the model's safetensors, or use --backend huggingface",
                in_chat="look for the model's safetensors, or start qwenchat with --backend huggingface",
                name=vocabulary.path,
            ) from None
        self._before = _SPACE if vocabulary.space_first else ""

    def ids(self, text: str) -> list[int]:
        """The ids of a text without added tokens."""
        ids: list[int] = []
        for part in self._merged(list(self._before + text.replace(" ", _SPACE))) if text else ():
            token_id = self._words.get(part)
            ids += [self._bytes[byte] for byte in part.encode()] if token_id is None else [token_id]
        return ids

    def _merged(self, parts: list[str]) -> list[str]:
        """What the characters become."""
        end = len(parts)
        before, after = list(range(-1, end - 1)), list(range(1, end + 1))
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < end:
                whole = parts[left] + parts[right]
                score = self._scores.get(whole)
                if score is not None:
                    heappush(queue, (-score, left, right, len(whole)))

        for i in range(end - 1):
            offer(i, i + 1)
        while queue:
            _, left, right, size = heappop(queue)
            # One of the two may have been joined to another meanwhile.
            if parts[left] and parts[right] and len(parts[left]) + len(parts[right]) == size:
                parts[left] += parts[right]
                parts[right] = ""
                after[left] = following = after[right]
                if following < end:
                    before[following] = left
                offer(before[left], left)
                offer(left, following)
        return [part for part in parts if part]


def _layout(vocabulary: GGUFVocabulary) -> dict[str, Any]:
    """The same as a ``tokenizer.json`` has it."""
    control = vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
    added = {**control, **vocabulary.of_type(TokenType.USER_DEFINED)}
    if len(added) > MOST_ADDED:
        raise CheckpointError(
            "{name}: {count} control and user-defined tokens, expected at most {most}",
            name=vocabulary.path,
            count=len(added),
            most=MOST_ADDED,
        )
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
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {
            "type": "BPE",
            "vocab": {form: token_id for token_id, form in enumerate(vocabulary.tokens) if form},
            "merges": [],
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": True,
        },
    }
