"""A Llama in a GGUF file: its shape, its vocabulary, its weights under a checkpoint's names.

Owns what a GGUF file of a Llama has otherwise than a checkpoint. Knows nothing of rounding, of torch, or of a
checkpoint's files.

    in GGUF                             in a checkpoint
    token_embd, output_norm             model.embed_tokens, which is the head too, and model.norm
    attn_norm, ffn_norm                 input_layernorm, post_attention_layernorm
    attn_q, attn_k, attn_v              self_attn.q_proj, k_proj, v_proj
    attn_output                         self_attn.o_proj
    ffn_gate, ffn_up, ffn_down          mlp.gate_proj, up_proj, down_proj

GGUF keeps the rows of q and k in pairs, rotary partners side by side; a checkpoint has the first half of a
head and then the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qwenchat.errors import Phrase, Template, quoted
from qwenchat.gguf.blocks import Float32Array
from qwenchat.gguf.file import GGUFFile
from qwenchat.text.byte_characters import bytes_of_characters

#: GGUF's ``tokenizer.ggml.token_type``: ordinary tokens and control tokens.
_ORDINARY, _CONTROL = 1, 3


@dataclass(frozen=True)
class LlamaShape:
    """The numbers that a Llama-style GGUF is built from."""

    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    mlp: int
    context: int
    vocabulary: int
    rope_base: float
    epsilon: float

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def key_value_size(self) -> int:
        return self.key_value_heads * self.head_size


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary.

    Attributes:
        ordinary: the bytes of each token of text, by id, in merge order.
        special: the name of each control token, by id.
        end_id: what the model ends its reply with.
        padding_id: what batches are filled up with.
    """

    ordinary: dict[int, bytes]
    special: dict[int, str]
    end_id: int
    padding_id: int


def read_shape(gguf: GGUFFile) -> LlamaShape:
    """The model's shape from the metadata.

    Raises:
        CheckpointError: a number is missing or cannot be what it says, or the model is of another kind.
    """
    if (architecture := gguf.metadata.get("general.architecture")) != "llama":
        raise gguf.error("expected the architecture 'llama', not {found}", found=_shown(architecture))
    shape = LlamaShape(
        layers=_whole(gguf, "llama.block_count"),
        hidden=_whole(gguf, "llama.embedding_length"),
        heads=_whole(gguf, "llama.attention.head_count"),
        key_value_heads=_whole(gguf, "llama.attention.head_count_kv"),
        mlp=_whole(gguf, "llama.feed_forward_length"),
        context=_whole(gguf, "llama.context_length"),
        vocabulary=_whole(gguf, "llama.vocab_size"),
        rope_base=_positive(gguf, "llama.rope.freq_base"),
        epsilon=_positive(gguf, "llama.attention.layer_norm_rms_epsilon"),
    )
    _check_divides(gguf, "the width", shape.hidden, shape.heads)
    _check_divides(gguf, "the number of heads", shape.heads, shape.key_value_heads)
    _check_divides(gguf, "the head size", shape.head_size, 2)
    if (rotated := _whole(gguf, "llama.rope.dimension_count")) != shape.head_size:
        raise gguf.error(
            "expected all {size} dimensions of a head to rotate, not {found}",
            size=shape.head_size,
            found=rotated,
        )
    return shape


def read_vocabulary(gguf: GGUFFile, shape: LlamaShape) -> Vocabulary:
    """The tokens from the metadata, as many as the embedding has rows.

    Raises:
        CheckpointError: the vocabulary is not a byte-level BPE of the kind that SmolLM2 has.
    """
    kind = (gguf.metadata.get("tokenizer.ggml.model"), gguf.metadata.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise gguf.error(
            "expected a tokenizer of the kind ('gpt2', 'smollm'), not {found}", found=_shown(kind)
        )
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    types = gguf.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not isinstance(types, np.ndarray):
        raise gguf.error("expected a list of tokens and a type for each")
    if not len(tokens) == len(types) == shape.vocabulary:
        raise gguf.error(
            "expected {expected} tokens and types of tokens, not {tokens} and {types}",
            expected=shape.vocabulary,
            tokens=len(tokens),
            types=len(types),
        )
    byte_of = bytes_of_characters()
    ordinary: dict[int, bytes] = {}
    special: dict[int, str] = {}
    for token_id, (token, token_type) in enumerate(zip(tokens, types.tolist(), strict=True)):
        if token_type == _CONTROL and isinstance(token, str):
            special[token_id] = token
        elif token_type == _ORDINARY and isinstance(token, str) and byte_of.keys() >= set(token):
            ordinary[token_id] = bytes(byte_of[character] for character in token)
        else:
            raise gguf.error(
                "expected token {n} to be ordinary or a control token in byte-level BPE", n=token_id
            )
    return Vocabulary(
        ordinary,
        special,
        end_id=_token_id(gguf, "tokenizer.ggml.eos_token_id", shape),
        padding_id=_token_id(gguf, "tokenizer.ggml.padding_token_id", shape),
    )


def llama_tensors(gguf: GGUFFile, shape: LlamaShape) -> Iterator[tuple[str, Float32Array]]:
    """Every tensor by its name in a checkpoint, in float32, one at a time.

    Raises:
        CheckpointError: a tensor is missing, has another shape than the metadata says, or holds
            numbers that are not finite.
    """
    hidden, mlp, pairs = shape.hidden, shape.mlp, shape.key_value_size
    yield "model.embed_tokens.weight", _tensor(gguf, "token_embd.weight", shape.vocabulary, hidden)
    for layer in range(shape.layers):
        old, new = f"blk.{layer}", f"model.layers.{layer}"
        yield f"{new}.input_layernorm.weight", _tensor(gguf, f"{old}.attn_norm.weight", hidden)
        q = _tensor(gguf, f"{old}.attn_q.weight", hidden, hidden)
        k = _tensor(gguf, f"{old}.attn_k.weight", pairs, hidden)
        yield f"{new}.self_attn.q_proj.weight", _halves_from_pairs(q, shape.heads)
        yield f"{new}.self_attn.k_proj.weight", _halves_from_pairs(k, shape.key_value_heads)
        yield f"{new}.self_attn.v_proj.weight", _tensor(gguf, f"{old}.attn_v.weight", pairs, hidden)
        yield f"{new}.self_attn.o_proj.weight", _tensor(gguf, f"{old}.attn_output.weight", hidden, hidden)
        yield f"{new}.post_attention_layernorm.weight", _tensor(gguf, f"{old}.ffn_norm.weight", hidden)
        yield f"{new}.mlp.gate_proj.weight", _tensor(gguf, f"{old}.ffn_gate.weight", mlp, hidden)
        yield f"{new}.mlp.up_proj.weight", _tensor(gguf, f"{old}.ffn_up.weight", mlp, hidden)
        yield f"{new}.mlp.down_proj.weight", _tensor(gguf, f"{old}.ffn_down.weight", hidden, mlp)
    yield "model.norm.weight", _tensor(gguf, "output_norm.weight", hidden)


def _halves_from_pairs(rows: Float32Array, heads: int) -> Float32Array:
    """Puts a head's even rows into its first half and its odd rows into its second."""
    count, width = rows.shape
    pairs = rows.reshape(heads, count // heads // 2, 2, width)
    halves: Float32Array = pairs.swapaxes(1, 2).reshape(count, width)
    return halves


def _tensor(gguf: GGUFFile, name: str, *shape: int) -> Float32Array:
    # The directory is asked before the numbers: dequantising is what costs.
    entry = gguf.tensors.get(name)
    if entry is not None and entry.shape != shape:
        raise gguf.error(
            "expected the shape {expected} of {name}, not {found}",
            expected=list(shape),
            name=name,
            found=list(entry.shape),
        )
    numbers = gguf.tensor(name)
    if not np.isfinite(numbers).all():
        raise gguf.error("expected finite numbers in {name}", name=name)
    return numbers


def _whole(gguf: GGUFFile, key: str) -> int:
    value = gguf.metadata.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise gguf.error(
            "expected a whole number above 0 for {name}, not {found}", name=key, found=_shown(value)
        )
    return value


def _token_id(gguf: GGUFFile, key: str, shape: LlamaShape) -> int:
    value = gguf.metadata.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < shape.vocabulary:
        raise gguf.error(
            "expected a token id below {size} for {name}, not {found}",
            size=shape.vocabulary,
            name=key,
            found=_shown(value),
        )
    return value


def _positive(gguf: GGUFFile, key: str) -> float:
    value = gguf.metadata.get(key)
    if not isinstance(value, float) or not 1e-30 < value < 1e30:
        raise gguf.error(
            "expected a sane number above 0 for {name}, not {found}", name=key, found=_shown(value)
        )
    # The file has it in float32. The shortest decimal that rounds to the same float32 is what was
    # meant: 1e-05, not 9.999999747378752e-06.
    return float(str(np.float32(value)))


def _check_divides(gguf: GGUFFile, what: Template, whole: int, part: int) -> None:
    if whole % part:
        raise gguf.error(
            "{what} is {whole}, which {part} does not divide", what=Phrase(what), whole=whole, part=part
        )


def _shown(value: object) -> str:
    return Phrase("nothing") if value is None else quoted(value)
