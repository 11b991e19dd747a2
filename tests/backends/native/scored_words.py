"""A SentencePiece vocabulary, trained small, as a GGUF file has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qwenchat

_CORPUS = Path(qwenchat.__file__).parent / "data" / "perplexity.txt"
_MORE = (
    "aaaa aaaaaaaa ---- --------  ==== ====\n\n    deep    white   space",
    "héllo wörld 你好，世界 你们好 привет",
)
CONTROL = ("<unk>", "<s>", "</s>")
DEFINED = "<|tool|>"


def keys(size: int = 1500, corpus: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """What a GGUF file says of such a vocabulary of that many tokens."""
    from tokenizers import Tokenizer, models, trainers

    text = corpus or [*_CORPUS.read_text("utf-8").splitlines(), *_MORE * 5]
    made = Tokenizer(models.BPE())
    known = len(CONTROL) + 256 + 1
    trainer = trainers.BpeTrainer(vocab_size=size - known, max_token_length=16, show_progress=False)
    made.train_from_iterator([line.replace(" ", "\u2581") for line in text], trainer)
    words = sorted(made.get_vocab(), key=made.get_vocab().__getitem__)[: size - known]
    tokens = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *words, DEFINED]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * (known - 1) + [-float(i) for i in range(len(words))] + [0.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words) + [4],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | more
