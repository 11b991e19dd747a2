"""A checkpoint that our own engine is to run, before a weight of it is read: a folder, or a GGUF file.

Owns what the kinds differ in: where the configuration, the tokenizer, the template and the ends of a turn
stand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.backends.huggingface.files import gguf_file
from qwenchat.backends.native.qwen_prompt import QwenPrompt
from qwenchat.engine.config import ModelConfig, read_model_config
from qwenchat.engine.fields import Fields
from qwenchat.engine.generation_config import GenerationDefaults, read_generation_defaults
from qwenchat.errors import CheckpointError
from qwenchat.files.json_values import read_json
from qwenchat.tokenizer import QwenTokenizer

if TYPE_CHECKING:
    from qwenchat.backends.prompt import Prompt
    from qwenchat.backends.request import LoadRequest
    from qwenchat.engine.weights.checkpoint import Checkpoint
    from qwenchat.gguf.head import GGUFHead


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint.

    Attributes:
        path: the folder, or the GGUF file.
        config: the model.
        defaults: of sampling, and what ends a reply.
        head: of a GGUF file.
    """

    path: Path
    config: ModelConfig
    defaults: GenerationDefaults
    head: GGUFHead | None = None

    @property
    def has_template(self) -> bool:
        """Whether it is a model with a chat template: not of the first generation, and with a tokenizer."""
        return self.head is not None or (
            not has_own_vocabulary(self.path, self.config.architecture.model_type)
            and (self.path / "tokenizer.json").exists()
        )

    @property
    def in_codes(self) -> bool:
        """Whether it is a GGUF file that has most of its weights in codes."""
        return self.head is not None and self.head.file.kind not in ("F32", "F16", "BF16")

    def checkpoint(self) -> Checkpoint:
        """The model and its tensors.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        from qwenchat.engine.weights.checkpoint import Checkpoint

        return Checkpoint.in_folder(self.path) if self.head is None else Checkpoint.in_gguf(self.head)

    def prompt(self, request: LoadRequest) -> Prompt:
        """What makes token ids of messages.

        Raises:
            CheckpointError: the tokenizer or the chat template is not there, or cannot be used.
        """
        n_ids, complete = self.config.vocab_size, request.complete
        if not self.has_template:
            tokenizer = _read_tokenizer(self.path, n_ids)
            return QwenPrompt(tokenizer, name=request.name, complete=complete)
        from qwenchat.backends.native.chat_prompt import folder_prompt, gguf_prompt

        if self.head is not None:
            return gguf_prompt(self.head.vocabulary, n_ids, complete=complete)
        return folder_prompt(self.path, n_ids, complete=complete)


def look(place: Path) -> Place:
    """Looks at a checkpoint.

    Raises:
        CheckpointError: a file is missing or damaged, or the model is of a kind that the engine does not
            compute.
    """
    gguf = gguf_file(place)
    if gguf is not None:
        return _look_at_gguf(gguf)
    config = read_model_config(place)
    defaults = read_generation_defaults(place)
    ends = Fields(place / "config.json", read_json(place / "config.json")).end_tokens()
    return Place(place, config, _ended_by(defaults, ends))


def has_own_vocabulary(folder: Path, model_type: object) -> bool:
    """Whether a folder's text is read by the first generation's tokenizer."""
    return model_type == "qwen" or any(folder.glob("*.tiktoken"))


def _look_at_gguf(path: Path) -> Place:
    from qwenchat.engine.gguf_config import sampling_defaults, translate
    from qwenchat.gguf.file import read_gguf
    from qwenchat.gguf.head import read_head

    head = read_head(read_gguf(path))
    config = translate(head).model(head.path)
    return Place(path, config, _ended_by(sampling_defaults(head), head.vocabulary.turn_ends), head)


def _ended_by(defaults: GenerationDefaults, ends: tuple[int, ...]) -> GenerationDefaults:
    return replace(defaults, eos_token_ids=tuple(dict.fromkeys((*defaults.eos_token_ids, *ends))))


def _read_tokenizer(folder: Path, vocab_size: int) -> QwenTokenizer | None:
    """The folder's tokenizer, held against the model; None where there is none, to run ids alone."""
    if not any(folder.glob("*.tiktoken")):
        return None
    tokenizer = QwenTokenizer.from_folder(folder, vocab_size)
    if tokenizer.n_vocab > vocab_size:
        raise CheckpointError(
            "{folder}: the vocabulary has {tokens} tokens, the model {size}",
            "the .tiktoken file belongs to another checkpoint",
            folder=folder,
            tokens=tokenizer.n_vocab,
            size=vocab_size,
        )
    return tokenizer
