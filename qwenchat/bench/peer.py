"""transformers' Llama on the weights of our Qwen: a peer for speed, an oracle for logits.

Without biases, NTK and LogN the two architectures are one; ``qkv`` is Llama's three projections stacked.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwenchat.bench.protocol import Protocol, Result
    from qwenchat.bench.timing import Clock
    from qwenchat.engine.model import Qwen

MOST_TOKENS = 128
"""Of a reply: on a GPU each of them takes it a tenth of a second."""


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
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for i, block in enumerate(model.layers):
        ours = dict(block.named_parameters())
        rows = (c.query_size, c.key_value_size, c.key_value_size)
        query, key, value = ours["attention.qkv.weight"].split(rows)
        theirs = {
            "input_layernorm": ours["attention_norm.weight"],
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": ours["attention.output.weight"],
            "post_attention_layernorm": ours["mlp_norm.weight"],
            "mlp.gate_proj": ours["mlp.gate.weight"],
            "mlp.up_proj": ours["mlp.up.weight"],
            "mlp.down_proj": ours["mlp.down.weight"],
        }
        weights |= {f"model.layers.{i}.{name}.weight": weight for name, weight in theirs.items()}
    config = LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.mlp_size,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_key_value_heads,
        head_dim=c.head_dim,
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


def measure(model: Qwen, name: str, protocol: Protocol, *, clock: Clock = perf_counter) -> Result:
    """Times transformers' Llama on the weights of ``model``, which it takes over; greedy, with its KV cache.

    Args:
        model: unpacked.
        name: of the row.
        protocol: of which it gets the first reply, :data:`MOST_TOKENS` of it, and the prompt.

    Raises:
        ValueError: the model is no Llama.
    """
    import random
    import statistics

    import torch
    from transformers import DynamicCache

    from qwenchat.bench.ceilings import prefill_operations, weight_bytes
    from qwenchat.bench.protocol import Decode, Result
    from qwenchat.bench.timing import wait

    llama = llama_of(model)
    config, device = model.config, llama.device
    numbers = random.Random(0)  # noqa: S311 - no secret
    protocol = protocol.within(config.max_position_embeddings)

    def run(prompt: int, tokens: int) -> Decode:
        cache = DynamicCache()
        ids = torch.tensor([numbers.choices(range(config.vocab_size), k=prompt)], device=device)
        arrivals = []
        wait(device)
        started = clock()
        with torch.inference_mode():
            for _ in range(tokens):
                step = llama(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids = step.logits[:, -1:].argmax(-1)
                wait(device)
                arrivals.append(clock() - started)
        return Decode(tuple(arrivals))

    run(protocol.prompt, 2)  # warm
    first_token = statistics.median(run(protocol.prompt, 1).arrivals[0] for _ in range(3))
    c = config
    return Result(
        name=name,
        format=str(llama.dtype).removeprefix("torch."),
        published=None,
        device=str(device),
        dtype=str(llama.dtype).removeprefix("torch."),
        kernels="transformers",
        protocol=protocol,
        weights=weight_bytes(config, llama.dtype.itemsize),
        per_position=2 * c.num_layers * c.key_value_size * llama.dtype.itemsize,
        decodes=[run(1, min(MOST_TOKENS, protocol.tokens[0]))],
        first_token=first_token,
        prefill_operations=prefill_operations(config, protocol.prompt),
    )
