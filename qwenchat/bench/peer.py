"""transformers' Llama on the weights of our Qwen: a peer for speed, an oracle for logits.

Without biases, NTK and LogN the two architectures are one: ``w2`` is Llama's gate, ``w1`` its up
projection, and ``c_attn`` its three projections stacked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwenchat.engine.model import Qwen


def llama_of(model: Qwen) -> Any:
    """A ``LlamaForCausalLM`` that shares ``model``'s weights.

    Raises:
        ValueError: the model has what Llama has not: biases that are not zero, NTK or LogN.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    if c.use_dynamic_ntk or c.use_logn_attn or any(bool(b.any()) for b in biases):
        raise ValueError("only a Qwen without biases, NTK and LogN is a Llama")
    weights = {
        "model.embed_tokens.weight": model.transformer.wte.weight,
        "model.norm.weight": model.transformer.ln_f.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for i, block in enumerate(model.transformer.h):
        ours = dict(block.named_parameters())
        query, key, value = ours["attn.c_attn.weight"].chunk(3)
        theirs = {
            "input_layernorm": ours["ln_1.weight"],
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": ours["attn.c_proj.weight"],
            "post_attention_layernorm": ours["ln_2.weight"],
            "mlp.gate_proj": ours["mlp.w2.weight"],
            "mlp.up_proj": ours["mlp.w1.weight"],
            "mlp.down_proj": ours["mlp.c_proj.weight"],
        }
        weights |= {f"model.layers.{i}.{name}.weight": weight for name, weight in theirs.items()}
    config = LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.mlp_size,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_heads,
        rms_norm_eps=c.norm_eps,
        rope_theta=c.rope_base,
        max_position_embeddings=c.max_position_embeddings,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    llama.load_state_dict(weights, assign=True)
    # Its rotary tables are no weights and are still on the meta device.
    llama.model.rotary_emb = type(llama.model.rotary_emb)(config, device=model.lm_head.weight.device)
    return llama.eval()
