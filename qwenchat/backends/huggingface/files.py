"""Files of a Hub checkpoint, and whether it can be loaded without running its code.

Looks at names and JSON alone: nothing here imports torch or transformers. Every refusal names its reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qwenchat.backends.huggingface.refusals import check_numbers
from qwenchat.engine.weights.safetensors_header import Entry, read_header
from qwenchat.errors import CheckpointError, Phrase, shorten
from qwenchat.files import json_values
from qwenchat.files.json_values import MOST_JSON_VALUES, read_json
from qwenchat.files.opening import check_file, read_file, reason_of
from qwenchat.gguf.parts import first_parts

if TYPE_CHECKING:
    from qwenchat.gguf.head import GGUFHead

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_GGUF = ".gguf"

_SMALL, _LARGE = 16 * 2**20, 48 * 2**20
_READ = {
    **dict.fromkeys(("config.json", "generation_config.json", "tokenizer_config.json"), _SMALL),
    **dict.fromkeys(("special_tokens_map.json", "added_tokens.json", "quantize_config.json"), _SMALL),
    **dict.fromkeys(("chat_template.json", "processor_config.json", "preprocessor_config.json"), _SMALL),
    **dict.fromkeys(("model.safetensors.index.json", "tokenizer.model"), _SMALL),
    **dict.fromkeys(("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"), _LARGE),
    "chat_template.jinja": 2**20,
}
"""What transformers opens by its name where it is there, and the most bytes that it may have: more than any
published model's."""
_MOST_VALUES = {"tokenizer.json": 5 * 2**19, "vocab.json": 2**20}
"""Values in a JSON file, where there may be many: the largest published vocabularies have two millions."""

Kind = Literal["floats", "gptq", "gguf"]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """A checkpoint that may be loaded.

    Attributes:
        folder: where it lies.
        kind: what its weights are.
        gguf: the name of its GGUF file; empty if it is none.
        config: its ``config.json``; empty for a GGUF file, which has all in itself.
        head: what a GGUF file says of itself.
    """

    folder: Path
    kind: Kind
    gguf: str
    config: dict[str, Any]
    head: GGUFHead | None = None

    @property
    def name(self) -> Path:
        """The name that errors use."""
        return self.folder / self.gguf if self.gguf else self.folder


def gguf_file(place: Path) -> Path | None:
    """The GGUF file that ``place`` is, or that is alone in it; None for any other checkpoint."""
    if place.suffix.lower() == _GGUF and place.is_file():
        return place
    found = _ggufs_in(place)
    return found[0] if len(found) == 1 and not any(place.glob("*.safetensors")) else None


def refuse_several(folder: Path) -> None:
    """Raises CheckpointError where there are only GGUF files, but more than one."""
    found = _ggufs_in(folder)
    if len(found) > 1 and not (folder / "config.json").exists():
        raise CheckpointError(
            Phrase.of_number(
                len(found),
                "{name}: there is one GGUF file",
                "{name}: there are {count} GGUF files",
                name=folder,
            ),
            Phrase("give one of them: {path}", path=found[0]),
        )


def _ggufs_in(folder: Path) -> list[Path]:
    """The GGUF files in a folder, of one that was split the first part."""
    return first_parts(sorted(path for path in folder.glob("*") if path.suffix.lower() == _GGUF))


def look(place: Path) -> HubFiles:
    """Look at a checkpoint's files and say what it is.

    Args:
        place: a folder, or a GGUF file.

    Raises:
        CheckpointError: nothing in it can be loaded, or not without running code from it.
    """
    gguf = gguf_file(place)
    _refuse_company(gguf.parent if gguf else place)
    _check_what_is_read(gguf.parent if gguf else place)
    if gguf is not None:
        from qwenchat.backends.huggingface.gguf_head import read_checked_head  # and with it numpy

        return HubFiles(gguf.parent, "gguf", gguf.name, {}, read_checked_head(gguf))
    config = read_json(place / "config.json")
    check_numbers(place / "config.json", config)
    if not any(place.glob("*.safetensors")):
        raise _no_safetensors(place)
    return HubFiles(place, _kind_of(place, config), "", config)


def _refuse_company(folder: Path) -> None:
    """Refuses what transformers would take for a part of any model that lies beside it, a GGUF file's too."""
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            "{name}: this is an adapter, not a model: adapter_config.json",
            "merge it into its base model, and give that folder",
            name=folder,
        )
    # This is the one thing that keeps it from running: trust_remote_code is not asked about local folders.
    if (folder / "custom_generate").exists():
        raise CheckpointError(
            "{name}: the model generates with code of its own (custom_generate), which is never run",
            "without that folder it would generate as others do",
            name=folder,
        )


def _check_what_is_read(folder: Path) -> None:
    """Refuses what transformers would wait for, or make far more of than lies there."""
    try:
        for path in folder.glob("*.safetensors"):
            check_file(path)
        for path in (*folder.glob("additional_chat_templates/*"), *(folder / name for name in _READ)):
            if os.path.lexists(path):
                most = _READ.get(path.name, _READ["chat_template.jinja"])
                data, _ = read_file(path, most)
                if path.suffix == ".json":
                    json_values.check(data, _MOST_VALUES.get(path.name, MOST_JSON_VALUES))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error


def _no_safetensors(folder: Path) -> CheckpointError:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return CheckpointError(
            "{name}: the weights are a pickle ({file}), which could run any code",
            "look for the model's safetensors",
            name=folder,
            file=pickles[0],
        )
    return CheckpointError(
        "{name}: there are no weights, expected *.safetensors",
        "the download is not complete; fetch it again",
        name=folder,
    )


def _kind_of(folder: Path, config: dict[str, Any]) -> Kind:
    section = config.get("quantization_config")
    if section is None and (folder / "quantize_config.json").exists():
        return "gptq"  # where auto-gptq wrote it before transformers moved it into config.json
    if section is None:
        return "floats"
    method = section.get("quant_method") if isinstance(section, dict) else section
    if method != "gptq":
        raise CheckpointError(
            "{name}: the weights are quantised with {method}, expected floats or GPTQ",
            "look for the model's unquantised safetensors",
            name=folder,
            method=shorten(str(method)),
        )
    return "gptq"


def stored_tensors(folder: Path) -> Iterator[tuple[str, Entry]]:
    """Every tensor in the safetensors of a folder: its name, and what it is.

    Raises:
        CheckpointError: a file is no safetensors, or not all of one.
    """
    for path in sorted(folder.glob("*.safetensors")):
        try:
            entries = read_header(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                "{name}: this is not a safetensors file: {reason}",
                "the download is not complete; fetch it again",
                name=path,
                reason=reason_of(error),
            ) from error
        yield from entries.items()
