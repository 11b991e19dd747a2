"""The head of a GGUF file, read by our own reader before torch is imported.

Owns which files are refused by name since transformers reads them otherwise than they are meant. Loads
neither torch nor transformers: what becomes of the rest is ``gguf_setting``'s.
"""

from __future__ import annotations

from pathlib import Path

from qwenchat.backends.huggingface.refusals import check_numbers
from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.head import GGUFHead, read_head


def read_checked_head(path: Path) -> GGUFHead:
    """Reads it.

    Raises:
        CheckpointError: the file is damaged, or of a kind that is not read right.
    """
    file = read_gguf(path)
    check_numbers(file.path, file.metadata)
    head = read_head(file)
    if head.architecture.startswith("gemma"):
        raise CheckpointError(
            "{name}: the tokenizer of a Gemma GGUF file is not read right",
            "look for the model's safetensors",
            name=file.path,
        )
    return head
