"""The vocabulary of a GGUF file: tokens and their types, merges, special ids, chat templates.

Owns the keys under ``tokenizer.``. Knows nothing of how a text becomes tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from qwenchat.errors import CheckpointError, quoted
from qwenchat.gguf.file import GGUFFile
from qwenchat.gguf.metadata import MetadataValue

_KEY = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
_ID = re.compile(rf"{re.escape(_KEY)}(\w+)_token_id")
_NEEDED_IDS = {"bos", "eos", "eot", "eom"}
"""What a prompt and its end are made of; an id of another kind that no token has counts as not given."""
_DEFAULT = "default"
SENTENCEPIECE = "llama"
"""The kind of a tokenizer that merges by scores."""


class TokenType(IntEnum):
    """What a token is, as ``tokenizer.ggml.token_type`` has it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class GGUFVocabulary:
    """What a GGUF file says of its tokens.

    Attributes:
        path: the file.
        model: the kind of tokenizer: "gpt2" for byte-level BPE, "llama" for SentencePiece.
        pre: how a text is split before merging, by name; None where the file does not say.
        tokens: their written forms, by id.
        types: a :class:`TokenType` each; all normal where the file does not say.
        merges: two tokens with a space between, the first to be merged first.
        ids: special ids by their names in the file: "bos", "eos", "eot", "eom", "padding", "unknown" ...
        begins: whether a text begins with ``bos``.
        templates: chat templates by name; the one without is "default".
        scores: of a SentencePiece vocabulary a number each: of two tokens that a text could have the one with
            the higher is made first; None where the file has none.
        space_first: whether a space is put before a text.
    """

    path: Path
    model: str
    pre: str | None
    tokens: list[str] = field(repr=False)
    types: npt.NDArray[np.uint8] = field(repr=False)
    merges: list[str] = field(repr=False)
    ids: Mapping[str, int]
    begins: bool
    templates: Mapping[str, str] = field(repr=False)
    scores: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    space_first: bool = False

    @property
    def template(self) -> str | None:
        """The chat template; None if there is none."""
        return self.templates.get(_DEFAULT)

    @property
    def turn_ends(self) -> tuple[int, ...]:
        """The ids that end a text or a turn."""
        return tuple(dict.fromkeys(self.ids[name] for name in ("eos", "eot", "eom") if name in self.ids))

    def of_type(self, *types: TokenType) -> dict[int, str]:
        """The tokens of these types that are not empty: their written forms, by id."""
        places = np.flatnonzero(np.isin(self.types, types)).tolist()
        return {token_id: self.tokens[token_id] for token_id in places if self.tokens[token_id]}


def read_vocabulary(file: GGUFFile) -> GGUFVocabulary:
    """The vocabulary.

    Raises:
        CheckpointError: there is none, or it contradicts itself.
    """
    said = file.metadata
    tokens, merges = said.get(f"{_KEY}tokens"), said.get(f"{_KEY}merges", [])
    if not _are_texts(tokens) or not tokens:
        raise CheckpointError("{name}: it has no vocabulary", name=file.path)
    if not _are_texts(merges):
        raise CheckpointError("{name}: its merges are no list of texts", name=file.path)
    model, pre = said.get(f"{_KEY}model", "gpt2"), said.get(f"{_KEY}pre")
    for key, value in (("model", model), ("pre", pre)):
        if not isinstance(value, str | None):
            raise _unfit(file.path, f"{_KEY}{key}", value)
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or _DEFAULT: value
        for key, value in said.items()
        if (key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")) and isinstance(value, str)
    }
    return GGUFVocabulary(
        file.path,
        str(model),
        pre if isinstance(pre, str) else None,
        tokens,
        _types(file.path, said.get(f"{_KEY}token_type"), len(tokens)),
        merges,
        _ids(file.path, said, len(tokens)),
        # As llama.cpp does where nothing is said.
        begins=bool(said.get(f"{_KEY}add_bos_token", model == SENTENCEPIECE)),
        templates=templates,
        scores=_scores(file.path, said.get(f"{_KEY}scores"), len(tokens)),
        space_first=bool(said.get(f"{_KEY}add_space_prefix", model == SENTENCEPIECE)),
    )


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and set(map(type, value)) <= {str}


def _types(path: Path, said: MetadataValue | None, count: int) -> npt.NDArray[np.uint8]:
    if said is None:
        return np.full(count, TokenType.NORMAL, np.uint8)
    if not isinstance(said, np.ndarray) or len(said) != count:
        raise CheckpointError("{name}: the kinds of its tokens are not as many as the tokens", name=path)
    known = np.isin(said, list(TokenType))
    if not known.all():
        raise _unfit(path, f"{_KEY}token_type", said[~known][0].item())
    return said.astype(np.uint8)


def _scores(path: Path, said: MetadataValue | None, count: int) -> npt.NDArray[np.float32] | None:
    if said is None:
        return None
    if not isinstance(said, np.ndarray) or said.dtype.kind != "f" or len(said) != count:
        raise CheckpointError("{name}: the scores of its tokens are not as many as the tokens", name=path)
    with np.errstate(over="ignore"):
        return said.astype(np.float32)


def _ids(path: Path, said: Mapping[str, MetadataValue], count: int) -> dict[str, int]:
    ids: dict[str, int] = {}
    for key, value in said.items():
        if found := _ID.fullmatch(key):
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
                ids[found[1]] = value
            elif found[1] in _NEEDED_IDS:
                raise CheckpointError(
                    "{name}: {key} is {value}, which is not a token", name=path, key=key, value=quoted(value)
                )
    return ids


def _unfit(path: Path, key: str, value: object) -> CheckpointError:
    return CheckpointError(
        "{name}: {key} is {value}, which GGUF does not have", name=path, key=key, value=quoted(value)
    )
