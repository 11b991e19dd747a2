"""How a checkpoint wants its replies drawn and ended: ``generation_config.json``, which need not be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from qwenchat.engine.fields import Fields
from qwenchat.errors import CheckpointError
from qwenchat.files.json_values import read_json

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Sampling defaults of a checkpoint; None where it says nothing.

    The file's ``max_new_tokens`` is left out on purpose: Qwen's 512 would cut replies short.

    Attributes:
        chats: whether the checkpoint was trained to chat; the first Qwen generation's base models say that
            they go on with texts as they are (``chat_format`` "raw").
        unfit: what it says and cannot be, a line each; it holds as if it were not said.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    eos_token_ids: tuple[int, ...] = ()
    chats: bool = True
    unfit: tuple[str, ...] = ()


def read_generation_defaults(folder: Path) -> GenerationDefaults:
    """Reads ``generation_config.json``, which need not be there, and so keeps no model from answering."""
    path = folder / "generation_config.json"
    if not path.exists():
        return GenerationDefaults()
    unfit: list[str] = []

    def fitting(read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except CheckpointError as error:
            unfit.append(error.message)
            return otherwise

    fields = Fields(path, fitting(lambda: read_json(path), {}))
    temperature = fitting(lambda: fields.sampling("temperature"), None)
    if not fitting(lambda: fields.boolean("do_sample", default=True), True):
        temperature = 0.0
    top_k = fitting(lambda: fields.sampling("top_k"), None)
    return GenerationDefaults(
        temperature=temperature,
        top_k=None if top_k is None else int(top_k),
        top_p=fitting(lambda: fields.sampling("top_p"), None),
        min_p=fitting(lambda: fields.sampling("min_p"), None),
        repetition_penalty=fitting(lambda: fields.sampling("repetition_penalty"), None),
        eos_token_ids=fitting(fields.end_tokens, ()),
        chats=fields.raw("chat_format") != "raw",
        unfit=tuple(unfit),
    )
