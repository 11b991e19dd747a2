"""Facts in a checkpoint's files for a person: its kind, its quantisation, its licence.

Reads no weights, and takes nothing for granted: what a file does not say, or says strangely, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.errors import CheckpointError, Phrase
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import read_file
from qwenchat.models import gguf_choices
from qwenchat.models.places import entries

_README_BYTES = 2**16
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The facts; None where a file says nothing.

    Attributes:
        model_type: "qwen", "llama" and so on.
        format: of the weights: "safetensors", or "GGUF".
        quantization: the method and the bits, "gptq, 8 bits".
        context: the tokens that it was trained on.
        licence: its name.
    """

    model_type: str | None
    format: str | None
    quantization: str | None
    context: int | None
    licence: str | None

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints, verbatim."""
        return {
            "model_type": self.model_type,
            "format": self.format,
            "quantization": self.quantization,
            "trained_context": self.context,
            "licence": self.licence,
        }


NOTHING = CheckpointInfo(None, None, None, None, None)
"""What is said of a checkpoint that is not here."""


def is_model(path: Path) -> bool:
    """True if there is anything of a model: a file is one, a folder has a config or weights."""
    if not path.is_dir():
        return True
    names = [entry.name.lower() for entry in entries(path)]
    return any(name == "config.json" or name.endswith((".safetensors", ".gguf")) for name in names)


def of(path: Path) -> CheckpointInfo:
    """Read the facts in a checkpoint's folder; of a GGUF file only that it is one."""
    if not path.is_dir():
        kinds = [choice.kind for choice in gguf_choices.choices([path.name]) if choice.kind != choice.stem]
        return CheckpointInfo(None, "GGUF", next(iter(kinds), None), None, licence_of(path.parent))
    config = _json(path / "config.json")
    kind = config.get("model_type")
    context = config.get("seq_length") or config.get("max_position_embeddings")
    return CheckpointInfo(
        kind[:_LONGEST] if isinstance(kind, str) else None,
        "safetensors" if any(path.glob("*.safetensors")) else None,
        _quantization(config.get("quantization_config") or _json(path / "quantize_config.json")),
        context if type(context) is int else None,  # no bool
        licence_of(path),
    )


def licence_of(folder: Path) -> str | None:
    """The licence's name: in the README's front matter, else the first line of its text."""
    head, *lines = _lines(folder / "README.md") or [""]
    for line in lines if head.strip() == "---" else ():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "---":
            break
        if key in ("license", "license_name") and value not in ("", "other"):
            return value.strip("'\"")[:_LONGEST]
    for path in sorted(folder.glob("LICEN*")):
        first = next((line.strip() for line in _lines(path) if line.strip()), "")
        if first:
            return first[:_LONGEST]
    return None


def _quantization(section: Any) -> str | None:
    if not isinstance(section, dict) or not section:
        return None
    method, bits = section.get("quant_method", "gptq"), section.get("bits")
    name = str(method)[:_LONGEST]
    if type(bits) is not int:
        return name
    return Phrase.of_number(bits, "{method}, 1 bit", "{method}, {count} bits", method=name)


def _lines(path: Path) -> list[str]:
    try:
        content, _ = read_file(path, _README_BYTES, whole=False)
    except OSError:
        return []
    return content.decode(errors="replace").splitlines()


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except CheckpointError:
        return {}
