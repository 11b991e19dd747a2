"""Our byte-level BPE under a chat template: control tokens come from the template, and from no text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from qwenchat.backends.native.bpe import NativeTokenizer
from qwenchat.backends.prompts.raw_tokenizer import RawTokenizer, control_places
from qwenchat.backends.prompts.renderer import Piece
from qwenchat.text.byte_pair_tokenizer import BytePairTokenizer, cut
from qwenchat.tokenizer import IncrementalDecoder


class ChatTokenizer(BytePairTokenizer):
    """Text to token ids and back.

    Args:
        tokenizer: the model's.
        control: the written forms that no text may make, with their ids.
        special_ids: ids that are never part of a reply's text.
    """

    def __init__(
        self, tokenizer: BytePairTokenizer, control: Mapping[str, int], special_ids: Collection[int]
    ) -> None:
        forms = {**tokenizer.added, **tokenizer.special_tokens}
        super().__init__(
            tokenizer.merging,
            control,
            added={form: token_id for form, token_id in forms.items() if form not in control},
            verbatim=tokenizer.verbatim,
            shown=[form for form, token_id in control.items() if token_id not in special_ids],
            n_ids=tokenizer.n_ids,
        )
        self._control = {token_id: form for form, token_id in control.items()}

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt: control tokens where a template writes their forms, and there alone."""
        ids: list[int] = []
        text: list[str] = []
        for piece in pieces:
            forms = self.special_tokens if piece.message is None else {}
            for part in cut(piece.text, forms):
                if part in forms:
                    ids += [*self.encode("".join(text)), forms[part]]
                    text.clear()
                else:
                    text.append(part)
        return [*ids, *self.encode("".join(text))]

    def count(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.encode(text))

    def control_places(self, ids: Sequence[int], text: str) -> list[tuple[int, str]]:
        """As of :class:`~qwenchat.backends.prompts.raw_tokenizer.PromptTokenizer`."""
        return control_places(ids, self._control, self._text_of) if self.reply_text(ids) == text else []

    def decoder(self, stop: Sequence[str]) -> IncrementalDecoder:
        """Token ids to text as they come."""
        return IncrementalDecoder(self, stop)

    def _text_of(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.reply_bytes, ids)).decode(errors="replace")


def raw_tokenizer(native: NativeTokenizer, names: Mapping[str, str]) -> RawTokenizer:
    """A tokenizer of our own before its control tokens are chosen.

    Args:
        names: as of :class:`RawTokenizer`.
    """
    tokenizer = native.tokenizer
    return RawTokenizer(
        added={**tokenizer.added, **tokenizer.special_tokens},
        special=tokenizer.special_tokens.keys(),
        names=names,
        begin=native.begin,
        guarded=partial(ChatTokenizer, tokenizer),
    )
