"""A model of transformers without weights: it shows what a configuration makes before any weight is read."""

from __future__ import annotations

from typing import Any

from qwenchat.backends.huggingface.files import HubFiles, stored_tensors
from qwenchat.backends.huggingface.readers import class_of, trying
from qwenchat.errors import CheckpointError


def skeleton(files: HubFiles, config: Any) -> Any:
    """The model on the device "meta": its parameters have shapes and no memory.

    Raises:
        CheckpointError: none can be made of the configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import no_init_weights

    make: Any = AutoModelForCausalLM.from_config
    options = {"dtype": torch.float32, "attn_implementation": attention_of(config)}
    with torch.device("meta"), no_init_weights():
        return trying("config.json", files, lambda: make(config, trust_remote_code=False, **options))


def check_shapes(files: HubFiles, model: Any) -> None:
    """Raises CheckpointError for a stored tensor that has another shape in the model."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name, entry in stored_tensors(files.folder):
        expected = shapes.get(name, entry.shape)
        if expected != entry.shape:
            raise CheckpointError(
                "{name}: the tensor {tensor} is {found}, and config.json makes it {expected}",
                "they belong to different models, or one is damaged",
                name=files.name,
                tensor=name,
                found=list(entry.shape),
                expected=list(expected),
            )


def attention_of(config: Any) -> str:
    """The implementation of attention; never what the config names, which may be code to be fetched."""
    return "sdpa" if class_of(config)._supports_sdpa else "eager"
