"""Checkpoints of the Llama kind, random: separate projections, heads that share keys and values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from qwenchat.engine.weights import gptq

GROUP = 32


def write(
    folder: Path,
    *,
    heads: int = 9,
    key_value_heads: int = 3,
    head_dim: int = 32,
    hidden: int = 160,
    mlp_size: int = 96,
    vocab_size: int = 64,
    layers: int = 2,
    bits: int = 16,
    norms: bool = False,
    biases: bool = False,
    attention_scale: float = 3,
    **settings: Any,
) -> Path:
    """Writes ``config.json`` and weights such that tokens attend to some positions far more than to others.

    Args:
        bits: 4 or 8 for codes, else float16.
        norms: give queries and keys norms of their own.
        biases: give attention's matrices biases.
        attention_scale: the size of attention's matrices; the smaller, the more evenly tokens attend.
        settings: further keys of ``config.json``, or others in place of these.
    """
    queries, pairs = heads * head_dim, key_value_heads * head_dim
    matrices = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (pairs, hidden),
        "self_attn.v_proj": (pairs, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (mlp_size, hidden),
        "mlp.up_proj": (mlp_size, hidden),
        "mlp.down_proj": (hidden, mlp_size),
    }
    vectors = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if norms:
        vectors |= {"self_attn.q_norm": head_dim, "self_attn.k_norm": head_dim}
    tensors = {"model.embed_tokens.weight": torch.randn(vocab_size, hidden).half()}
    tensors["model.norm.weight"] = (torch.rand(hidden) + 0.5).half()
    if not settings.get("tie_word_embeddings"):
        tensors["lm_head.weight"] = torch.randn(vocab_size, hidden).half()
    for i in range(layers):
        prefix = f"model.layers.{i}"
        for name, (outputs, inputs) in matrices.items():
            weight = torch.randn(outputs, inputs) * inputs**-0.5 * (attention_scale if "attn" in name else 1)
            if bits > 8:
                tensors[f"{prefix}.{name}.weight"] = weight.half()
            else:
                packed = gptq.quantize_rtn(weight, bits=bits, group_size=GROUP)
                tensors |= {f"{prefix}.{name}.{part}": tensor for part, tensor in packed.items()}
            if biases and "attn" in name:
                tensors[f"{prefix}.{name}.bias"] = torch.randn(outputs).half()
        for name, width in vectors.items():
            tensors[f"{prefix}.{name}.weight"] = (torch.rand(width) + 0.5).half()
    config = {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": head_dim,
        "intermediate_size": mlp_size,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "attention_bias": biases,
    }
    if bits <= 8:
        config["quantization_config"] = {"bits": bits, "group_size": GROUP, "quant_method": "gptq"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | settings))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder
