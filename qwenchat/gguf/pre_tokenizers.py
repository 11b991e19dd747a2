"""How the texts of a GGUF vocabulary are split before merging, by the name that the file has for it.

The names are llama.cpp's (``llama_vocab::impl::load``), the patterns those of ``text.split_patterns``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """What happens to a text before its pieces are merged.

    Attributes:
        pattern: the name of the pattern that splits it.
        normal_form: that it is brought into before. llama.cpp leaves texts as they are; Qwen's were not.
        whole: whether a piece that is a token is that one, whatever the merges say.
    """

    pattern: str
    normal_form: Literal["NFC"] | None = None
    whole: bool = False


_QWEN2 = PreTokenizer("qwen", normal_form="NFC")
_LLAMA3 = PreTokenizer("llama3", whole=True)
_GPT2 = PreTokenizer("gpt2")

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3),
    **dict.fromkeys(("gpt-2", "phi-2"), _GPT2),
    "smollm": PreTokenizer("smollm"),
}
"""Those that are known, by name."""
