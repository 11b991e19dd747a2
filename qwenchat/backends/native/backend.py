"""A first-generation Qwen checkpoint on our own engine. How it gets into memory is in ``load``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwenchat.backends.local import Model, text_to_complete
from qwenchat.chat.chatml import DEFAULT_SYSTEM, prompt_ids
from qwenchat.chat.messages import Message
from qwenchat.chat.rendering import shown_text
from qwenchat.errors import CheckpointError, PromptError
from qwenchat.tokenizer import IncrementalDecoder, QwenTokenizer

if TYPE_CHECKING:
    from qwenchat.engine.config import GenerationDefaults
    from qwenchat.engine.generate import Engine


class NativeBackend(Model):
    """A loaded Qwen model.

    Attributes:
        engine: token ids in, token ids out.
    """

    engine: Engine[Any]

    def __init__(
        self,
        engine: Engine[Any],
        tokenizer: QwenTokenizer | None,
        defaults: GenerationDefaults,
        *,
        name: str,
        description: str,
        complete: bool = False,
    ) -> None:
        system = "" if complete else DEFAULT_SYSTEM
        super().__init__(engine, defaults, name=name, description=description, system=system)
        self._complete = complete
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> QwenTokenizer:
        """The checkpoint's tokenizer.

        Raises:
            CheckpointError: the checkpoint has none.
        """
        if self._tokenizer is None:
            raise no_vocabulary(self.name)
        return self._tokenizer

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.chat.backend.Backend.count_tokens`; without a prompt, of the texts."""
        try:
            return len(self._encode_prompt(messages))
        except PromptError:  # who counts does not ask for a reply
            return sum(len(self.tokenizer.encode(shown_text(message))) for message in messages)

    def _encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        if self._complete:
            return self.tokenizer.encode(text_to_complete(messages))
        return prompt_ids(self.tokenizer, messages)

    def _decoder(self, stop: Sequence[str]) -> IncrementalDecoder:
        return IncrementalDecoder(self.tokenizer, stop)

    def _turn_ends(self) -> set[int]:
        # The chat's own ends, and <|im_start|> as in Qwen's chat(): a turn must not open another.
        return {self.tokenizer.endoftext_id, self.tokenizer.im_end_id, self.tokenizer.im_start_id}


def no_vocabulary(name: str) -> CheckpointError:
    """The error for a checkpoint that has weights and no tokenizer."""
    return CheckpointError(
        "{name}: there is no .tiktoken file in the checkpoint",
        "without its vocabulary it cannot chat; fetch it again",
        name=name,
    )
