"""The files of a quantised checkpoint: what is in them.

Owns ``config.json`` with its ``quantization_config``, and what is taken over from the source: the vocabulary,
the defaults for sampling, licences. How files are written is ``writing``'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwenchat.files.json_values import read_json
from qwenchat.models.quantize.solver import DAMP_PERCENT, Recipe
from qwenchat.models.writing import files

_VOCABULARY = (
    "*.tiktoken",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
)


def finish(folder: Path, source: Path, recipe: Recipe) -> None:
    """Makes a checkpoint of a folder with pieces, and brings it through to the disk.

    Begun again after it was interrupted, it comes to the same.
    """
    files.join(folder)
    quantization = quantization_config(recipe.bits, recipe.group_size, recipe.act_order)
    files.write_json(folder / "config.json", _config(source) | {"quantization_config": quantization})
    files.write_json(folder / "quantize_config.json", quantization)
    files.copy_files(source, folder, (*_VOCABULARY, *files.LICENCES))
    files.write_through(folder)


def quantization_config(bits: int, group_size: int, act_order: bool) -> dict[str, Any]:
    """The quantization_config that auto-gptq 0.7.1 writes."""
    return {
        "bits": bits,
        "group_size": group_size,
        "damp_percent": DAMP_PERCENT,
        "desc_act": act_order,
        "static_groups": False,
        "sym": True,
        "true_sequential": True,
        "model_name_or_path": None,
        "model_file_base_name": "model",
        "quant_method": "gptq",
    }


def _config(source: Path) -> dict[str, Any]:
    """The source's, without what names code that is not taken over, and with the dtype of the floats."""
    config = files.without_code(read_json(source / "config.json"))
    if config.get("model_type") == "qwen":
        config |= {"bf16": False, "fp16": True, "fp32": False}
    key = "dtype" if "dtype" in config else "torch_dtype"  # as newer versions of transformers have it
    return config | {key: "float16"}
