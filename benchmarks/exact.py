"""A small Llama computed in float64 from the numbers that a GGUF file's codes stand for: what is right.

Owns nothing of the engine but the names and the order of the tensors. Slow, and written to be read: nothing
is cached or joined. No biases, no scaled positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwenchat.engine.weights.checkpoint import Checkpoint
from qwenchat.errors import UsageError
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.head import read_head

Numbers = NDArray[np.float64]


class Exact:
    """The model of a GGUF file, in float64.

    Raises:
        UsageError: it is not one that is computed here.
        CheckpointError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        head = read_head(read_gguf(path))
        found = Checkpoint.in_gguf(head)
        self._config = config = found.config
        if head.architecture != "llama" or config.rope_scaling is not None or head.stretched:
            raise UsageError(f"{path} is no plain Llama, of which the exact logits are computed")
        self._tensors = {
            name: found.tensors.array(name).astype(np.float64) for name in self._names(config.num_layers)
        }

    def logits(self, ids: list[int]) -> Numbers:
        """After each of the ids, float64 [ids, vocabulary]."""
        config, w = self._config, self._tensors
        embedding = w["model.embed_tokens.weight"]
        x = embedding[ids]
        for layer in range(config.num_layers):
            of = f"model.layers.{layer}."
            h = self._norm(x, w[f"{of}input_layernorm.weight"])
            q, k, v = (self._heads(h @ w[f"{of}self_attn.{n}_proj.weight"].T) for n in "qkv")
            mixed = self._attend(self._rotated(q), self._rotated(k), v)
            x = x + mixed @ w[f"{of}self_attn.o_proj.weight"].T
            h = self._norm(x, w[f"{of}post_attention_layernorm.weight"])
            gate, up = (h @ w[f"{of}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{of}mlp.down_proj.weight"].T
        logits: Numbers = self._norm(x, w["model.norm.weight"]) @ w[self._head].T
        return logits

    def _names(self, layers: int) -> list[str]:
        matrices = [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]
        parts = ["input_layernorm", "post_attention_layernorm", *matrices]
        self._head = "model.embed_tokens.weight" if self._config.tie_word_embeddings else "lm_head.weight"
        of_layers = [f"model.layers.{layer}.{part}.weight" for layer in range(layers) for part in parts]
        return list(dict.fromkeys(["model.embed_tokens.weight", "model.norm.weight", self._head, *of_layers]))

    def _norm(self, x: Numbers, weight: Numbers) -> Numbers:
        scaled: Numbers = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self._config.norm_eps) * weight
        return scaled

    def _heads(self, x: Numbers) -> Numbers:
        """[T, heads * head_dim] as [heads, T, head_dim]."""
        return x.reshape(len(x), -1, self._config.head_dim).transpose(1, 0, 2)

    def _rotated(self, x: Numbers) -> Numbers:
        half = self._config.head_dim // 2
        frequencies = self._config.rope_base ** (-np.arange(half) / half)
        angles = np.arange(x.shape[1])[:, None] * frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = x[..., :half], x[..., half:]
        return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)

    def _attend(self, q: Numbers, k: Numbers, v: Numbers) -> Numbers:
        each = len(q) // len(k)
        k, v = np.repeat(k, each, axis=0), np.repeat(v, each, axis=0)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(self._config.head_dim)
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed: Numbers = (shares @ v).transpose(1, 0, 2)
        return mixed.reshape(len(mixed), -1)
