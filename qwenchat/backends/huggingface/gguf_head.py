"""The head of a GGUF file, read by our own reader before torch is imported.

Owns which files are refused by name since transformers reads them otherwise than they are meant. Loads
neither torch nor transformers: what becomes of the rest is ``gguf_setting``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenchat.backends.huggingface.refusals import check_numbers, in_parts
from qwenchat.errors import CheckpointError, quoted
from qwenchat.models.builtin.gguf import read_metadata
from qwenchat.models.builtin.gguf_metadata import MetadataValue

_CONTROL, _USER_DEFINED = 3, 4
_TEMPLATE = "tokenizer.chat_template"
_BY_LENGTH = "rope_factors_long.weight"
_SCALING = {"type", "factor", "original_context_length", "finetuned"}


@dataclass(frozen=True, slots=True)
class Added:
    """A token that is found in a text before all others.

    Attributes:
        special: whether it is a control token.
    """

    token_id: int
    form: str
    special: bool


@dataclass(frozen=True, slots=True)
class GGUFHead:
    """The metadata of a GGUF file that may be loaded.

    Attributes:
        path: the file.
        architecture: as GGUF calls it.
        settings: all that it says, but for what its tokenizer is made of.
        template: the chat template; None if there is none.
        templates: the names of all; that one's is "default".
        added: the tokens that are not made of others.
        bos, eos, eot: the ids that begin and end a text, and end a turn; None where nothing is said.
        begins: whether a text begins with ``bos``.
        stretched: whether the file has a factor for each frequency of the rotary embedding.
    """

    path: Path
    architecture: str
    settings: Mapping[str, MetadataValue]
    template: str | None
    templates: frozenset[str]
    added: tuple[Added, ...]
    bos: int | None
    eos: int | None
    eot: int | None
    begins: bool
    stretched: bool

    def of_model(self) -> dict[str, Any]:
        """The model's metadata, without the architecture before each key."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): v for key, v in self.settings.items() if key.startswith(prefix)}

    def rope_scaling(self) -> dict[str, Any] | None:
        """The RoPE scaling, in transformers' words.

        Raises:
            CheckpointError: in a way that is not computed.
        """
        said = {k[13:]: v for k, v in self.of_model().items() if k.startswith("rope.scaling.")}
        kind = said.get("type", "none")
        others = {k: v for k, v in said.items() if k not in _SCALING and v not in (0, 1)}
        if others or kind not in ("none", "linear", "yarn"):
            name, value = next(iter(others.items()), ("type", kind))
            raise not_computed(self.path, f"{self.architecture}.rope.scaling.{name}", value)
        if kind == "none":
            return None
        scaling = {"rope_type": kind, "factor": float(said.get("factor", 1.0))}
        if kind == "yarn" and "original_context_length" in said:
            scaling["original_max_position_embeddings"] = said["original_context_length"]
        return scaling


def not_computed(path: Path, key: str, value: object) -> CheckpointError:
    """The error for a key without which the model would compute something else, and which is not read."""
    return CheckpointError(
        "{name}: {key} is {value}, which is not computed with",
        "look for the model's safetensors",
        name=path,
        key=key,
        value=quoted(value),
    )


def read_head(path: Path) -> GGUFHead:
    """Reads it.

    Raises:
        CheckpointError: the file is damaged, or of a kind that is not read right.
    """
    said, tensors = read_metadata(path)
    check_numbers(path, said)
    parts = said.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise in_parts(path)
    architecture = said.get("general.architecture")
    if not isinstance(architecture, str):
        raise CheckpointError("{name}: the architecture is missing", name=path)
    if architecture.startswith("gemma"):
        raise CheckpointError(
            "{name}: the tokenizer of a Gemma GGUF file is not read right",
            "look for the model's safetensors",
            name=path,
        )
    if _BY_LENGTH in tensors:
        raise not_computed(path, _BY_LENGTH, "there")
    names = {key.removeprefix(f"{_TEMPLATE}.") for key in said if key.startswith(f"{_TEMPLATE}.")}
    template = said.get(_TEMPLATE)
    return GGUFHead(
        path,
        architecture,
        {key: value for key, value in said.items() if not key.startswith("tokenizer.")},
        template if isinstance(template, str) else None,
        frozenset(names | ({"default"} if isinstance(template, str) else set())),
        tuple(_added(path, said)),
        _token(path, said, "bos"),
        _token(path, said, "eos"),
        _token(path, said, "eot"),
        # As llama.cpp does where nothing is said.
        begins=bool(said.get("tokenizer.ggml.add_bos_token", said.get("tokenizer.ggml.model") == "llama")),
        stretched="rope_freqs.weight" in tensors,
    )


def _added(path: Path, said: Mapping[str, MetadataValue]) -> list[Added]:
    forms, kinds = said.get("tokenizer.ggml.tokens"), said.get("tokenizer.ggml.token_type")
    if not isinstance(forms, list) or not all(isinstance(form, str) for form in forms):
        raise CheckpointError("{name}: it has no vocabulary", name=path)
    if kinds is None:
        return []
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(forms):
        raise CheckpointError("{name}: the kinds of its tokens are not as many as the tokens", name=path)
    places = np.flatnonzero((kinds == _CONTROL) | (kinds == _USER_DEFINED))
    return [Added(int(i), str(forms[i]), bool(kinds[i] == _CONTROL)) for i in places if forms[i]]


def _token(path: Path, said: Mapping[str, MetadataValue], name: str) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    token_id, forms = said.get(key), said.get("tokenizer.ggml.tokens")
    if token_id is None:
        return None
    most = len(forms) if isinstance(forms, list) else 0
    if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < most:
        raise CheckpointError(
            "{name}: {key} is {value}, which is not a token", name=path, key=key, value=quoted(token_id)
        )
    return token_id
