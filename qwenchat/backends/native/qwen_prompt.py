"""The prompt of a first-generation Qwen, which has no template: ChatML as its own code writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwenchat.backends.prompt import Asked, text_to_complete
from qwenchat.chat.backend import Thinks
from qwenchat.chat.chatml import DEFAULT_SYSTEM, content_ids, prompt_ids
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.chat.rendering import shown_text
from qwenchat.errors import CheckpointError, PromptError
from qwenchat.tokenizer import IncrementalDecoder, QwenTokenizer


class QwenPrompt:
    """Messages to token ids, and a reply's token ids to text.

    Args:
        tokenizer: the checkpoint's; None where it has none, to run ids alone.
        name: what the user calls the model.
        complete: the model is to go on with a text, and does not chat.

    Attributes:
        system, calls_in_tags, tells_tools, thinks: as of :class:`~qwenchat.backends.prompt.Prompt`.
    """

    calls_in_tags = tells_tools = False
    thinks: Thinks = "never"

    def __init__(self, tokenizer: QwenTokenizer | None, *, name: str, complete: bool = False) -> None:
        self.system: str | None = "" if complete else DEFAULT_SYSTEM
        self._tokenizer, self._name, self._complete = tokenizer, name, complete

    @property
    def tokenizer(self) -> QwenTokenizer:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        if self._tokenizer is None:
            raise no_vocabulary(self._name)
        return self._tokenizer

    @property
    def ends(self) -> set[int]:
        """The chat's own ends, and ``<|im_start|>`` as in Qwen's chat(): a turn must not open another."""
        return {self.tokenizer.endoftext_id, self.tokenizer.im_end_id, self.tokenizer.im_start_id}

    def ask(
        self,
        messages: Sequence[Message],
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Asked:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        if self._complete:
            return Asked(self.text_ids(text_to_complete(messages)))
        ids = prompt_ids(self.tokenizer, messages)
        last = messages[-1] if messages else None
        if last is None or last.role is not Role.ASSISTANT:
            return Asked(ids)
        return Asked(ids, content_ids(self.tokenizer, last))

    def text_ids(self, text: str) -> list[int]:
        """As of :class:`~qwenchat.backends.prompt.Prompt`: nothing stands before it."""
        return self.tokenizer.encode(text)

    def count(self, messages: Sequence[Message]) -> int:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        try:
            return len(self.ask(messages).ids)
        except PromptError:  # who counts does not ask for a reply
            return sum(len(self.tokenizer.encode(shown_text(message))) for message in messages)

    def decoder(self) -> IncrementalDecoder:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return IncrementalDecoder(self.tokenizer)

    def end_of_thinking(self) -> list[int]:
        """As of :class:`~qwenchat.backends.prompt.Prompt`."""
        return []


def no_vocabulary(name: str) -> CheckpointError:
    """The error for a checkpoint that has weights and no tokenizer."""
    return CheckpointError(
        "{name}: there is no tokenizer in the checkpoint: no .tiktoken file and no tokenizer.json",
        "without its vocabulary it cannot chat; fetch it again",
        name=name,
    )
