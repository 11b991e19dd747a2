"""A model's tokenizer before it is known which of its tokens no text may make: that depends on the template.

Two things make such a tokenizer: our own byte-level BPE and the tokenizers library. Knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from qwenchat.backends.prompt import Decoder, Tokenizer
from qwenchat.backends.prompts.renderer import Piece


class PromptTokenizer(Tokenizer, Protocol):
    """A tokenizer in which no text but a template's makes control tokens."""

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt: control tokens where a template writes their forms, and there alone.

        Raises:
            PromptError: a message's text would become a control token even so.
        """

    def count(self, text: str) -> int:
        """Count the tokens of a text, whatever it holds."""

    def control_places(self, ids: Sequence[int], text: str) -> list[tuple[int, str]]:
        """The control tokens in a reply's text: their offsets and forms.

        There are none where the ids are not those of the text: they come from a file.
        """

    def decoder(self, stop: Sequence[str]) -> Decoder:
        """Token ids to text as they come."""


@dataclass(frozen=True, slots=True)
class RawTokenizer:
    """A model's tokenizer, its control tokens not yet chosen.

    Attributes:
        added: the written forms of the tokens that are not made of others, with their ids.
        special: those of them that call themselves control tokens.
        names: what templates call them: ``bos_token`` and the like, with the written forms.
        begin: the ids that every text of the model begins with.
        guarded: makes the tokenizer of the forms that no text may make, with their ids, and of the ids that
            are never part of a reply's text.
    """

    added: Mapping[str, int]
    special: Collection[str]
    names: Mapping[str, str]
    begin: Sequence[int]
    guarded: Callable[[Mapping[str, int], Collection[int]], PromptTokenizer]


def control_places(
    ids: Sequence[int], control: Mapping[int, str], decode: Callable[[Sequence[int]], str]
) -> list[tuple[int, str]]:
    """The control tokens in a reply's text: their offsets and forms.

    Args:
        ids: those of the text.
        control: their forms, by id.
        decode: gives the text of ids.
    """
    marks = [n for n, token_id in enumerate(ids) if token_id in control]
    if not marks:
        return []
    text = decode(ids)
    places, at = [], len(decode(ids[: marks[0]]))
    for begin, end in zip(marks, [*marks[1:], len(ids)], strict=True):
        form = control[ids[begin]]
        if text.startswith(form, at):
            places.append((at, form))
        at += len(decode(ids[begin:end]))
    return places
