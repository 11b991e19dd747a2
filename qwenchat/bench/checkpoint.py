"""Checkpoints of the published shapes with random weights, on disk as the published ones lie there.

Owns the files of the folder: sharded safetensors in the GPTQ layout, ``config.json``, the vocabulary.
They serve to time loading, and answer nonsense.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenchat.bench.random_weights import embedding_deviation, random_scales
from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.weights.modules import modules
from qwenchat.engine.weights.parameters import stored_shapes
from qwenchat.errors import QwenchatError
from qwenchat.models.quantize.checkpoint import quantization_config

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from qwenchat.engine.config import ModelConfig, QuantConfig

SHARD_BYTES = 2 * 10**9
"""A file takes no more, as with the published ones, unless one tensor does."""
SPARE = 2**30
"""Bytes of the disk that are left free."""


def ensure(
    folder: Path, config: ModelConfig, *, device: torch.device, progress: Callable[[str], None]
) -> None:
    """Writes the checkpoint unless it is in ``folder`` already.

    Raises:
        QwenchatError: the disk has no room for it.
    """
    if (folder / "config.json").exists():  # the last file that is written
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(_tensors(config))
    size = sum(t.nbytes for t in tensors)
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise QwenchatError(
            "not enough disk: the checkpoint takes {size} GB, {folder} has {free} GB free",
            "--folder names another place",
            folder=folder,
            free=f"{free / 1e9:.1f}",
            size=f"{size / 1e9:.1f}",
        )
    _write_tensors(folder, tensors, device, progress)
    vocabulary = Path(__file__).parents[1] / "data" / "qwen.tiktoken"
    shutil.copyfile(vocabulary, folder / "qwen.tiktoken")
    _write_json(folder / "generation_config.json", _GENERATION)
    _write_json(folder / "config.json", _config(config))


_GENERATION = {
    "chat_format": "chatml",
    "eos_token_id": 151643,
    "pad_token_id": 151643,
    "max_window_size": 6144,
    "max_new_tokens": 512,
    "do_sample": True,
    "top_k": 0,
    "top_p": 0.8,
    "repetition_penalty": 1.1,
}


def _config(c: ModelConfig) -> dict[str, Any]:
    """``config.json`` as it is published."""
    fields = _qwen_config(c) if c.architecture is ARCHITECTURES["qwen"] else _other_config(c)
    if c.quant:
        fields["quantization_config"] = quantization_config(
            c.quant.bits, c.quant.group_size, c.quant.act_order
        )
    return fields


def _qwen_config(c: ModelConfig) -> dict[str, Any]:
    """Of the first generation."""
    return {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "kv_channels": c.head_dim,
        "intermediate_size": 2 * c.mlp_size,
        "seq_length": c.seq_length,
        "max_position_embeddings": c.max_position_embeddings,
        "layer_norm_epsilon": c.norm_eps,
        "rotary_emb_base": c.rope_base,
        "rotary_pct": 1.0,
        "use_dynamic_ntk": c.use_dynamic_ntk,
        "use_logn_attn": c.use_logn_attn,
        "no_bias": not c.mlp_bias,
        "tie_word_embeddings": c.tie_word_embeddings,
        "fp16": True,
        "bf16": False,
        "fp32": False,
        "use_cache": True,
        "use_flash_attn": "auto",
        "tokenizer_class": "QWenTokenizer",
        "torch_dtype": "float16",
        "transformers_version": "4.32.0",
    }


def _other_config(c: ModelConfig) -> dict[str, Any]:
    """Of the later ones."""
    return {
        "architectures": [f"{c.architecture.model_type.title()}ForCausalLM"],
        "model_type": c.architecture.model_type,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.mlp_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_base,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": c.tie_word_embeddings,
        "torch_dtype": "float16",
    }


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a checkpoint that is made when it is written."""

    name: str
    shape: tuple[int, ...]
    itemsize: int
    make: Callable[[Generator], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize


def _tensors(c: ModelConfig) -> Iterator[_Tensor]:
    """Every tensor, in the order of the model."""
    for module in modules(c):
        outputs, *inputs = module.shape
        weight = f"{module.name}.weight"
        parts = stored_shapes(c, weight, module.shape)
        for name, shape in parts.items():
            if not inputs:
                yield _norm(name, outputs)
            elif module.name == "embedding":
                yield _floats(name, shape, embedding_deviation(c))
            elif module.name != "lm_head":
                yield from _linear(name.removesuffix(".weight"), shape[0], shape[1], c.quant)
            elif not c.tie_word_embeddings:
                yield _floats(name, shape, shape[1] ** -0.5)
        for name, shape in stored_shapes(c, f"{module.name}.bias", (outputs,)).items() if module.bias else ():
            yield _floats(name, shape, 0.01)


def _linear(layer: str, outputs: int, inputs: int, quant: QuantConfig | None) -> Iterator[_Tensor]:
    if quant is None:
        yield _floats(f"{layer}.weight", (outputs, inputs), inputs**-0.5)
        return
    bits, groups, words = quant.bits, quant.groups(inputs), 32 // quant.bits
    group = -(-inputs // groups)
    shape = (inputs // words, outputs)
    yield _Tensor(f"{layer}.qweight", shape, 4, lambda g: _random_words(shape, g))
    # Every zero point is the middle code, and stored minus one: 127 or 7 in each part of a word.
    zero = 0x7F7F7F7F if bits == 8 else 0x77777777
    zeros = (groups, outputs // words)
    yield _Tensor(f"{layer}.qzeros", zeros, 4, lambda g: _full(zeros, zero, g))
    scales = (groups, outputs)
    yield _Tensor(f"{layer}.scales", scales, 2, lambda g: random_scales(scales, inputs, bits, g))
    yield _Tensor(f"{layer}.g_idx", (inputs,), 4, lambda g: _groups(inputs, group, g))


def _floats(name: str, shape: tuple[int, ...], deviation: float) -> _Tensor:
    def make(generator: Generator) -> Tensor:
        import torch

        values = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float16)
        return values.mul_(deviation)

    return _Tensor(name, shape, 2, make)


def _norm(name: str, size: int) -> _Tensor:
    def make(generator: Generator) -> Tensor:
        import torch

        return (torch.rand(size, generator=generator, device=generator.device) + 0.5).half()

    return _Tensor(name, (size,), 2, make)


def _random_words(shape: tuple[int, int], generator: Generator) -> Tensor:
    import torch

    words = torch.empty(shape, dtype=torch.int32, device=generator.device)
    return words.random_(-(2**31), 2**31, generator=generator)


def _full(shape: tuple[int, int], word: int, generator: Generator) -> Tensor:
    import torch

    return torch.full(shape, word, dtype=torch.int32, device=generator.device)


def _groups(inputs: int, group: int, generator: Generator) -> Tensor:
    import torch

    return (torch.arange(inputs, device=generator.device) // group).to(torch.int32)


def _write_tensors(
    folder: Path, tensors: list[_Tensor], device: torch.device, progress: Callable[[str], None]
) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device).manual_seed(0)
    shards = _shards(tensors)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        progress(f"writing {folder / file}")
        save_file({t.name: t.make(generator).cpu() for t in shard}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys((t.name for t in shard), file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors)}, "weight_map": places}
    _write_json(folder / "model.safetensors.index.json", index)


def _shards(tensors: list[_Tensor]) -> list[list[_Tensor]]:
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
