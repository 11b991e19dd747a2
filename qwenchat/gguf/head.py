"""The head of a GGUF file, understood: architecture, the model's keys, rotary embedding, vocabulary."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenchat.errors import CheckpointError, quoted
from qwenchat.gguf.file import GGUFFile
from qwenchat.gguf.metadata import MetadataValue
from qwenchat.gguf.vocabulary import GGUFVocabulary, read_vocabulary

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor with a factor for each frequency of the rotary embedding, as Llama 3.1 has it."""
_ROPE_FACTORS_BY_LENGTH = ("rope_factors_long.weight", "rope_factors_short.weight")
_SCALING = "rope.scaling."
_SCALING_READ = {"type", "factor", "original_context_length", "finetuned"}
_SCALING_USUAL = {"yarn_beta_fast": 32, "yarn_beta_slow": 1}
"""What YaRN computes with where nothing is said."""


@dataclass(frozen=True, slots=True)
class GGUFHead:
    """What a GGUF file says of the model in it.

    Attributes:
        file: the open file, with the tensors.
        architecture: as GGUF calls it.
        settings: the metadata, but for what its tokenizer is made of.
        vocabulary: that.
    """

    file: GGUFFile
    architecture: str
    settings: Mapping[str, MetadataValue] = field(repr=False)
    vocabulary: GGUFVocabulary

    @property
    def path(self) -> Path:
        """The file's."""
        return self.file.path

    @property
    def stretched(self) -> bool:
        """Whether the file has a factor for each frequency of the rotary embedding."""
        return ROPE_FACTORS in self.file.tensors

    def of_model(self) -> dict[str, Any]:
        """The model's metadata, without the architecture before each key."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): v for key, v in self.settings.items() if key.startswith(prefix)}

    def rope_scaling(self) -> dict[str, Any] | None:
        """The RoPE scaling, in the words of ``config.json``.

        Raises:
            CheckpointError: in a way that is not computed.
        """
        model = self.of_model()
        said = {k.removeprefix(_SCALING): v for k, v in model.items() if k.startswith(_SCALING)}
        # Before there were kinds of scaling the linear factor had this key.
        old = model.get("rope.scale_linear", 1.0)
        kind = said.get("type", "none" if _is_neutral(old) else "linear")
        others = {
            k: v
            for k, v in said.items()
            if k not in _SCALING_READ and not _is_neutral(v) and not _is_same(v, _SCALING_USUAL.get(k))
        }
        if others or not isinstance(kind, str) or kind not in ("none", "linear", "yarn"):
            name, value = next(iter(others.items()), ("type", kind))
            raise not_computed(self.path, f"{self.architecture}.{_SCALING}{name}", value)
        if kind == "none":
            return None
        factor = said.get("factor", old)
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1e30:
            raise not_computed(self.path, f"{self.architecture}.{_SCALING}factor", factor)
        scaling = {"rope_type": kind, "factor": float(factor)}
        if kind == "yarn" and "original_context_length" in said:
            original = said["original_context_length"]
            if isinstance(original, bool) or not isinstance(original, int) or original < 1:
                raise not_computed(
                    self.path, f"{self.architecture}.{_SCALING}original_context_length", original
                )
            scaling["original_max_position_embeddings"] = original
        return scaling


def read_head(file: GGUFFile) -> GGUFHead:
    """Reads it.

    Raises:
        CheckpointError: it lacks what no model can be without, or says what is not computed with.
    """
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise CheckpointError("{name}: the architecture is missing", name=file.path)
    for name in _ROPE_FACTORS_BY_LENGTH:
        if name in file.tensors:
            raise not_computed(file.path, name, "there")
    settings = {key: value for key, value in file.metadata.items() if not key.startswith("tokenizer.")}
    return GGUFHead(file, architecture, settings, read_vocabulary(file))


def _is_neutral(value: object) -> bool:
    """Whether a factor changes nothing."""
    return _is_same(value, 0) or _is_same(value, 1)


def _is_same(value: object, number: int | None) -> bool:
    """Whether a value is that number; an array is none."""
    return isinstance(value, (int, float)) and value == number


def refuse_unknown_tensors(file: GGUFFile, known: Container[str]) -> None:
    """Raises CheckpointError for a tensor that the model would be computed without.

    Args:
        known: the names of those that it is computed with; the rotary embedding's factors may be there too.
    """
    unknown = next((name for name in file.tensors if name not in known and name != ROPE_FACTORS), None)
    if unknown is not None:
        raise CheckpointError(
            "{name}: the model is not computed with its tensor {tensor}",
            "look for the model's safetensors",
            name=file.path,
            tensor=quoted(unknown),
        )


def not_computed(path: Path, key: str, value: object) -> CheckpointError:
    """The error for a key without which the model would compute something else, and which is not read."""
    return CheckpointError(
        "{name}: {key} is {value}, which is not computed with",
        "look for the model's safetensors",
        name=path,
        key=key,
        value=quoted(value),
    )
