"""Calibration data for quantising: chats or plain text, as token ids.

Owns the file formats, and what of a file is refused. The set that is used by default is
``qwenchat/data/calibration.jsonl``: short chats in English and Chinese, with code and mathematics among
them, written for this and under the licence of the project.

A file that ends in ``.jsonl`` holds a chat a line: ``{"messages": [{"role": ..., "content": ...}, ...]}``.
Every other file is plain text. Either way a text never becomes a control token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qwenchat.chat import chatml
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.errors import Phrase, PromptError, UsageError
from qwenchat.files.opening import NotAFile, TooLarge, read_file, reason_of

if TYPE_CHECKING:
    from qwenchat.tokenizer import QwenTokenizer

DEFAULT = Path(__file__).parents[2] / "data" / "calibration.jsonl"
LEAST_TOKENS = 512
"""Fewer say too little of what a matrix will meet."""
MOST_TOKENS = 2**18
"""What comes after so many is not used; the states of a 7B take 4 GB for them."""

_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Calibration:
    """Sequences of token ids.

    Attributes:
        sequences: each of at most a window's length.
        left_out: tokens of the file that were too many.
    """

    sequences: Sequence[Sequence[int]]
    left_out: int = 0

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return sum(map(len, self.sequences))


class Encoder(Protocol):
    """Token ids as a model meets them. No text becomes a control token."""

    def text(self, text: str) -> Sequence[int]:
        """Those of a plain text."""

    def chat(self, messages: Sequence[Message]) -> Sequence[int]:
        """Those of a chat, its last turn ended.

        Raises:
            PromptError: it is no chat to the model.
        """


class QwenEncoder:
    """A first-generation Qwen's.

    Args:
        tokenizer: the checkpoint's.
    """

    def __init__(self, tokenizer: QwenTokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, folder: Path) -> QwenEncoder:
        """That of the checkpoint in a folder; raises CheckpointError where it has no vocabulary."""
        from qwenchat.tokenizer import QwenTokenizer

        return cls(QwenTokenizer.from_folder(folder))

    def text(self, text: str) -> Sequence[int]:
        """As of :class:`Encoder`."""
        return self._tokenizer.encode(text)

    def chat(self, messages: Sequence[Message]) -> Sequence[int]:
        """As of :class:`Encoder`."""
        ids = chatml.prompt_ids(self._tokenizer, messages)
        return [*ids, self._tokenizer.im_end_id] if messages[-1].role is Role.ASSISTANT else ids


def read(path: Path, encoder: Encoder, window: int) -> Calibration:
    """Reads a file of chats or plain text.

    Args:
        encoder: the model's.
        window: tokens of a sequence at most; a longer text becomes several.

    Raises:
        UsageError: it cannot be read, a line of it is no chat, or it says too little.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".jsonl":
        texts = [_chat_ids(encoder, path, n, line) for n, line in _lines(text)]
    else:
        texts = [encoder.text(text)]
    sequences = [ids for text_ids in texts for ids in windows(text_ids, window)]
    total = sum(map(len, sequences))
    if total < LEAST_TOKENS:
        raise UsageError(
            "{path} has {tokens} tokens, quantising needs at least {least}",
            "give more and more varied text, or leave out --calibration for the set that ships",
            path=path,
            tokens=total,
            least=LEAST_TOKENS,
        )
    kept: list[Sequence[int]] = []
    room = MOST_TOKENS
    for ids in sequences:
        if room <= 0:
            break
        kept.append(ids[:room])
        room -= len(ids)
    return Calibration(kept, left_out=max(0, -room) + sum(map(len, sequences[len(kept) :])))


def windows(ids: Sequence[int], window: int) -> list[Sequence[int]]:
    """A text in pieces of at most ``window`` tokens."""
    return [ids[start : start + window] for start in range(0, len(ids), window)]


def _read_text(path: Path) -> str:
    try:
        return read_file(path, _MOST_BYTES)[0].decode("utf-8-sig")
    except (FileNotFoundError, NotAFile, IsADirectoryError):
        raise UsageError("there is no file {path}", path=path) from None
    except TooLarge:
        raise UsageError(
            "{path} is larger than {megabytes} MB",
            "some hundred chats or pages are enough",
            path=path,
            megabytes=_MOST_BYTES // 2**20,
        ) from None
    except OSError as error:
        raise UsageError("{path} cannot be read: {reason}", path=path, reason=reason_of(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError("{place}: not UTF-8 (byte {n})", place=path, n=error.start) from error


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers. JSON has no line breaks but these."""
    return [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def _chat_ids(encoder: Encoder, path: Path, number: int, line: str) -> Sequence[int]:
    """A chat as the model meets it."""
    try:
        return encoder.chat([Message.of(message) for message in _messages(json.loads(line))])
    except RecursionError:
        problem: str = Phrase("nested too deeply")
    except PromptError as error:
        problem = error.message
    except ValueError as error:
        problem = str(error)
    raise UsageError(
        "{path}, line {n} is not a chat: {problem}",
        "a line looks like {example}",
        path=path,
        n=number,
        problem=problem,
        example='{"messages": [{"role": "user", "content": "..."}, ...]}',
    )


def _messages(chat: Any) -> list[Any]:
    messages = chat.get("messages") if isinstance(chat, dict) else None
    if not isinstance(messages, list) or not messages:
        raise PromptError("it has no messages")
    return messages
