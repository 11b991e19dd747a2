"""Where a checkpoint's chat template stands, and what templates call its tokens.

Owns which of its files hold, in the order of transformers. Knows nothing of what a template does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.backends.request import base_model
from qwenchat.errors import CheckpointError, Phrase, shorten
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import read_file, reason_of

_MOST_BYTES = 2**20
_DEFAULT = "default"
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_END = "<|endoftext|>"
# What a class of transformers has where the files say nothing.
_OF_CLASSES = {
    "Qwen2Tokenizer": {"eos_token": _END, "unk_token": _END, "pad_token": _END},
    "GPT2Tokenizer": {"bos_token": _END, "eos_token": _END, "unk_token": _END},
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
}


def templates_in(folder: Path) -> dict[str, str]:
    """The chat templates of a checkpoint by name; the one without is "default".

    Files of their own hold, else ``tokenizer_config.json``, else ``chat_template.json``.

    Raises:
        CheckpointError: a file cannot be read.
    """
    files = {path.stem: path for path in folder.glob("additional_chat_templates/*.jinja")}
    if (own := folder / "chat_template.jinja").exists():
        files[_DEFAULT] = own
    if files:
        return {name: _read(path) for name, path in files.items()}
    for name in ("tokenizer_config.json", "chat_template.json"):
        said = _json(folder / name).get("chat_template")
        if isinstance(said, str):
            return {_DEFAULT: said}
        if isinstance(said, list):
            entries = [entry for entry in said if isinstance(entry, dict)]
            return {str(e["name"]): str(e["template"]) for e in entries if {"name", "template"} <= e.keys()}
    return {}


def default_template(templates: Mapping[str, str], name: Path) -> str:
    """The chat template that is used.

    Args:
        name: of the checkpoint, for errors.

    Raises:
        CheckpointError: there is none, or none is the default.
    """
    if not templates:
        raise base_model(Phrase("{name}: there is no chat template", name=name))
    if _DEFAULT not in templates:
        raise CheckpointError(
            "{name}: its chat templates have names ({names}), and none is the default",
            "put the one that is to be used into chat_template.jinja",
            name=name,
            names=shorten(", ".join(sorted(templates))),
        )
    return templates[_DEFAULT]


def names_in(folder: Path) -> dict[str, str]:
    """What templates call a checkpoint's tokens, ``bos_token`` and the like, with their written forms.

    Raises:
        CheckpointError: a file cannot be read.
    """
    config = _json(folder / "tokenizer_config.json")
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    said: dict[str, Any] = {**_OF_CLASSES.get(kind, {}), **config}
    if "added_tokens_decoder" not in config:
        said |= _json(folder / "special_tokens_map.json")
    forms = {name: _form(said.get(name)) for name in _NAMES}
    return {name: form for name, form in forms.items() if form is not None}


def _form(said: object) -> str | None:
    content = said.get("content") if isinstance(said, dict) else said
    return content if isinstance(content, str) else None


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _read(path: Path) -> str:
    try:
        return read_file(path, _MOST_BYTES)[0].decode("utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
