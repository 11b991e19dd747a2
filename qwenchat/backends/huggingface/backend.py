"""A chat model of the Hub on transformers. How it gets into memory is in ``load``, beside this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwenchat.backends.huggingface.prompt import ChatPrompt, TextPrompt
from qwenchat.backends.huggingface.tokenizer import HubTokenizer, WindowDecoder
from qwenchat.backends.local import Model
from qwenchat.chat.messages import Message

if TYPE_CHECKING:
    from qwenchat.backends.huggingface.runner import HubRunner
    from qwenchat.engine.config import GenerationDefaults
    from qwenchat.engine.generate import Engine


class HuggingFaceBackend(Model):
    """A loaded model of the Hub.

    Args:
        is_qwen2: whether it is of the Qwen1.5 or Qwen2 generation, or a later one.

    Attributes:
        engine: token ids in, token ids out.
    """

    engine: Engine[HubRunner]

    def __init__(
        self,
        engine: Engine[HubRunner],
        prompt: ChatPrompt | TextPrompt,
        defaults: GenerationDefaults,
        *,
        name: str,
        description: str,
        is_qwen2: bool = False,
    ) -> None:
        super().__init__(engine, defaults, name=name, description=description, system=prompt.system or "")
        self.call_form = "hermes" if prompt.calls_in_tags else "flowers" if is_qwen2 else "react"
        self._prompt = prompt

    @property
    def tokenizer(self) -> HubTokenizer:
        """The tokenizer: ``encode`` reads all text as text, ``decode`` leaves special tokens out."""
        return self._prompt.tokenizer

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.chat.backend.Backend.count_tokens`."""
        return self._prompt.count(messages)

    def _encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        return self._prompt.ids(messages)

    def _decoder(self, stop: Sequence[str]) -> WindowDecoder:
        # A model that writes such a text goes on with the user's turn, and no later prompt could hold it.
        return WindowDecoder(self.tokenizer, (*stop, *self._prompt.plain_borders))

    def _turn_ends(self) -> set[int]:
        return self._prompt.ends
