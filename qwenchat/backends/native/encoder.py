"""Text and chats as the model in a folder meets them: for what is quantised for such.

Owns which tokenizer and template a folder's model has; :class:`~qwenchat.models.quantize.calibration.Encoder`
is what is asked of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwenchat.backends.native.chat_prompt import folder_prompt
from qwenchat.backends.prompts.chat_prompt import ChatPrompt, TextPrompt
from qwenchat.backends.prompts.sources import templates_in
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.chat.rendering import shown_text
from qwenchat.engine.config import read_model_config
from qwenchat.models.quantize.calibration import Encoder, QwenEncoder


def folder_encoder(folder: Path) -> Encoder:
    """The encoder of the model in a folder.

    Raises:
        CheckpointError: its configuration, tokenizer or template is not there, or cannot be used.
    """
    config = read_model_config(folder)
    if config.architecture.model_type == "qwen" or any(folder.glob("*.tiktoken")):
        return QwenEncoder.of(folder)
    return PromptEncoder(folder_prompt(folder, config.vocab_size, complete=not templates_in(folder)))


class PromptEncoder:
    """An encoder by a model's own tokenizer and, where it has one, chat template."""

    def __init__(self, prompt: ChatPrompt | TextPrompt) -> None:
        self._prompt = prompt

    def text(self, text: str) -> Sequence[int]:
        """As of :class:`Encoder`."""
        return self._prompt.tokenizer.encode(text)

    def chat(self, messages: Sequence[Message]) -> Sequence[int]:
        """As of :class:`Encoder`; to a base model a chat is what is said in it."""
        if isinstance(self._prompt, TextPrompt):
            return self.text("\n\n".join(map(shown_text, messages)))
        ids = self._prompt.ids(messages)
        return [*ids, *self._prompt.ends] if messages[-1].role is Role.ASSISTANT else ids
