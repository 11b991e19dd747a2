"""A checkpoint: the model of which it speaks, and its tensors, whatever files they are in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwenchat.engine.config import ModelConfig, read_model_config
from qwenchat.engine.gguf_config import translate
from qwenchat.engine.weights.gguf_tensors import GGUFTensors
from qwenchat.engine.weights.parameters import Tensors
from qwenchat.engine.weights.tensor_files import TensorFiles
from qwenchat.gguf.head import GGUFHead


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, of which no weight has been read."""

    config: ModelConfig
    tensors: Tensors

    @classmethod
    def in_folder(cls, folder: Path) -> Checkpoint:
        """The one in a folder of the Hub's: ``config.json`` and ``*.safetensors``.

        Raises:
            CheckpointError: a file is missing, damaged or of an unknown kind.
        """
        return cls(read_model_config(folder), TensorFiles(folder))

    @classmethod
    def in_gguf(cls, head: GGUFHead) -> Checkpoint:
        """The one in a GGUF file.

        Raises:
            CheckpointError: it is of a kind that the engine does not compute.
        """
        said = translate(head)
        config = said.model(head.path)
        return cls(config, GGUFTensors(head, said, config))
