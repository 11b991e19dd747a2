"""The prompt of a model with a chat template, for our own engine: from a folder of the Hub or a GGUF file.

Owns which tokenizer reads the text: ours where that is exact, else the tokenizers library.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.backends.native import chat_tokenizer, sentencepiece
from qwenchat.backends.native.gguf_tokenizer import read_gguf_tokenizer
from qwenchat.backends.native.tokenizer_json import NeedsLibrary, read_tokenizer_json
from qwenchat.backends.prompts import hub_tokenizer
from qwenchat.backends.prompts.chat_prompt import ChatPrompt, TextPrompt
from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer
from qwenchat.backends.prompts.sources import default_template, names_in, templates_in
from qwenchat.errors import CheckpointError, NotComputedError, quoted
from qwenchat.files.json_values import read_json
from qwenchat.gguf.vocabulary import SENTENCEPIECE, GGUFVocabulary


def folder_prompt(folder: Path, n_ids: int, *, complete: bool) -> ChatPrompt | TextPrompt:
    """The prompt of a model in a folder of the Hub.

    Args:
        n_ids: how many ids the model has.
        complete: the model is to go on with a text, for which it needs no template.

    Raises:
        CheckpointError: the tokenizer or the template is not there, or cannot be used.
    """
    source = None if complete else default_template(templates_in(folder), folder)
    path, names = folder / "tokenizer.json", names_in(folder)
    try:
        raw = chat_tokenizer.raw_tokenizer(read_tokenizer_json(path, n_ids), names)
    except NeedsLibrary:
        raw = _by_library(path, names)
    _check_ids(path, raw.added, n_ids)
    _check_added(folder, raw.added)
    return TextPrompt(raw) if source is None else ChatPrompt(raw, source)


def gguf_prompt(vocabulary: GGUFVocabulary, n_ids: int, *, complete: bool) -> ChatPrompt | TextPrompt:
    """The prompt of a model in a GGUF file; arguments and errors are those of :func:`folder_prompt`."""
    source = None if complete else default_template(vocabulary.templates, vocabulary.path)
    ids = {f"{name}_token": vocabulary.ids[name] for name in ("bos", "eos") if name in vocabulary.ids}
    names = {name: vocabulary.tokens[token_id] for name, token_id in ids.items()}
    if vocabulary.model == SENTENCEPIECE:
        raw = sentencepiece.raw_tokenizer(vocabulary, names)
    else:
        raw = chat_tokenizer.raw_tokenizer(read_gguf_tokenizer(vocabulary, n_ids), names)
    _check_ids(vocabulary.path, raw.added, n_ids)
    return TextPrompt(raw) if source is None else ChatPrompt(raw, source)


def _by_library(path: Path, names: Mapping[str, str]) -> RawTokenizer:
    library: Any = importlib.import_module("tokenizers")
    try:
        return hub_tokenizer.raw_tokenizer(library.Tokenizer.from_file(str(path)), names)
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        raise CheckpointError(
            "{path}: the tokenizer cannot be read: {reason}",
            path=path,
            reason=" ".join(str(error).split())[:200],
        ) from error


def _check_ids(path: Path, added: Mapping[str, int], n_ids: int) -> None:
    """Raises CheckpointError for a token of which the model knows nothing."""
    outside = [form for form, token_id in added.items() if token_id >= n_ids]
    if outside:
        raise CheckpointError(
            "{name}: the token {form} has the id {id}, and the model has {count}",
            "the tokenizer belongs to another checkpoint",
            name=path,
            form=quoted(outside[0]),
            id=added[outside[0]],
            count=n_ids,
        )


def _check_added(folder: Path, added: Mapping[str, int]) -> None:
    """Raises CheckpointError for a token that ``tokenizer_config.json`` adds to what the tokenizer has."""
    path = folder / "tokenizer_config.json"
    entries = read_json(path).get("added_tokens_decoder") if path.exists() else None
    for token_id, entry in entries.items() if isinstance(entries, dict) else ():
        form = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(form, str) or str(added.get(form)) != token_id:
            raise NotComputedError(
                "{name}: added_tokens_decoder has the token {form}, which tokenizer.json does not have",
                "use --backend huggingface",
                in_chat="start qwenchat with --backend huggingface",
                name=path,
                form=quoted(form),
            )
