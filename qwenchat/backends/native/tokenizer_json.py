"""``tokenizer.json`` of the Hub, read as a tokenizer of our own where that is exact.

Owns which of its parts are understood. What is not gives :class:`NeedsLibrary`: then the tokenizers library
reads the file, which computes the same and more, and takes longer to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.backends.native.bpe import MOST_ADDED, MOST_MERGES, Added, BytePairs, NativeTokenizer
from qwenchat.errors import CheckpointError
from qwenchat.files.json_values import loads
from qwenchat.files.opening import read_file, reason_of
from qwenchat.text.byte_characters import bytes_of_characters
from qwenchat.text.merges import Inexact
from qwenchat.text.normal_forms import normalise
from qwenchat.text.split_patterns import SPLIT_PATTERNS

MOST_BYTES = 48 * 2**20
MOST_VALUES = 5 * 2**19
"""More than any published tokenizer has; the largest have two millions."""
_MOST_IDS = 2**24


class NeedsLibrary(Exception):
    """The file has what only the tokenizers library computes; the message says what, for a log."""


def read_tokenizer_json(path: Path, n_ids: int | None = None) -> NativeTokenizer:
    """The tokenizer that a ``tokenizer.json`` describes.

    Args:
        n_ids: how many ids the model has.

    Raises:
        CheckpointError: the file is damaged, or cannot be read.
        NeedsLibrary: it is not one that ours gives the same ids as.
    """
    try:
        layout = loads(read_file(path, MOST_BYTES)[0], MOST_VALUES)
    except OSError as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    except ValueError as error:  # not UTF-8, not JSON, or too much of it
        raise CheckpointError("{path} is not valid JSON: {reason}", path=path, reason=error) from error
    try:
        pairs = _read(layout)
        begin = _begin(layout.get("post_processor"))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            "{path}: it is not laid out as a tokenizer", "fetch it again", path=path
        ) from error
    try:
        return NativeTokenizer(pairs.tokenizer(n_ids), begin)
    except Inexact as error:
        raise NeedsLibrary(str(error)) from error


def _read(layout: dict[str, Any]) -> BytePairs:
    model = layout["model"]
    words, merges = model.get("vocab"), model.get("merges")
    needs(model.get("type") in ("BPE", None), "a model of another kind")
    needs(isinstance(words, dict) and isinstance(merges, list), "no BPE")
    needs(len(merges) <= MOST_MERGES, "a great many merges")
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    needs(not any(model.get(name) for name in odd), "a BPE of another kind")
    whole = bytes_of_characters().keys() <= words.keys()
    needs(whole or not model.get("unk_token"), "a token for unknown bytes")
    decoder = layout.get("decoder") or {}
    needs(decoder.get("type") == "ByteLevel", "a decoder of another kind")
    ids = words.values()
    needs(all(type(i) is int and 0 <= i < _MOST_IDS for i in ids), "ids that are no ids")
    needs(0 < len(ids) == len(set(ids)), "two words of one id")
    normal_form = _normal_form(layout.get("normalizer"))
    added = _added(layout.get("added_tokens") or [], words, normal_form is not None)
    forms = {token.form for token in added}
    return BytePairs(
        {word: token_id for word, token_id in words.items() if word not in forms},
        [_merge(merge) for merge in merges],
        model.get("ignore_merges") is True,
        added,
        _pattern(layout.get("pre_tokenizer")),
        normal_form,
    )


def needs(met: bool, otherwise: str) -> None:
    """Raises NeedsLibrary where a condition of ours is not met."""
    if not met:
        raise NeedsLibrary(otherwise)


def _merge(merge: object) -> str:
    if isinstance(merge, str):
        return merge
    if not isinstance(merge, list) or len(merge) != 2 or not all(isinstance(part, str) for part in merge):
        raise TypeError(merge)
    return " ".join(merge)


def _normal_form(normalizer: Any) -> Any:
    kind = None if normalizer is None else normalizer["type"]
    needs(kind in (None, "NFC"), "a normalizer of another kind")
    return kind


def _pattern(pre_tokenizer: Any) -> str:
    needs(pre_tokenizer is not None, "no pre_tokenizer")
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [step["type"] for step in steps]
    needs(bool(kinds) and kinds[-1] == "ByteLevel", "a pre_tokenizer of another kind")
    last = steps[-1]
    needs(last.get("add_prefix_space") is False, "a space before each text")
    own = last.get("use_regex", True) is True
    if kinds == ["ByteLevel"] and own:
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"] and own and steps[0].get("individual_digits") is True:
        return "smollm"
    needs(kinds == ["Split", "ByteLevel"] and not own, "a pre_tokenizer of another kind")
    split = steps[0]
    needs(split.get("behavior") == "Isolated" and not split.get("invert"), "a split of another kind")
    known = {SPLIT_PATTERNS[name]: name for name in ("qwen", "llama3")}
    pattern = split["pattern"].get("Regex")
    needs(isinstance(pattern, str) and pattern in known, "a split pattern of its own")
    return known[pattern]


def _added(entries: list[dict[str, Any]], words: Mapping[str, int], normalised: bool) -> list[Added]:
    needs(len(entries) <= MOST_ADDED, "a great many added tokens")
    added: list[Added] = []
    given: set[str] = set()
    following = len(words)
    for entry in entries:
        form, token_id = entry["content"], entry["id"]
        if not isinstance(form, str) or type(token_id) is not int:
            raise TypeError(form)
        needs(bool(form) and form not in given, "an added token twice, or an empty one")
        strips = any(entry.get(name) for name in ("single_word", "lstrip", "rstrip"))
        needs(not strips, "added tokens that take more than their form")
        verbatim = not entry.get("normalized")
        needs(verbatim or not normalised or normalise("NFC", form) == form, "an added token to be normalised")
        # The library gives the ids itself, whatever the file says of what is not in the vocabulary.
        needs(token_id == words.get(form, following), "an added token of another id")
        following = max(following, token_id + 1)
        given.add(form)
        added.append(Added(token_id, form, entry.get("special") is True, verbatim))
    return added


def _begin(processor: Any) -> tuple[int, ...]:
    """The ids that every text begins with."""
    if processor is None:
        return ()
    steps = processor["processors"] if processor["type"] == "Sequence" else [processor]
    begin: list[int] = []
    for step in steps:
        needs(step["type"] in ("ByteLevel", "TemplateProcessing"), "a post_processor of another kind")
        if step["type"] == "TemplateProcessing":
            for part in step["single"]:
                if "SpecialToken" not in part:
                    break
                begin += step["special_tokens"][part["SpecialToken"]["id"]]["ids"]
    if not all(type(i) is int for i in begin):
        raise TypeError(begin)
    return tuple(begin)
