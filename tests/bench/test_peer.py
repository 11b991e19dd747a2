"""transformers is timed on the same weights, in the same protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qwenchat.bench import peer
from qwenchat.bench.protocol import Protocol
from qwenchat.bench.random_weights import Shape, random_model

CPU = torch.device("cpu")
PLAN = Protocol((8, 16), 20, 30, 5)


@pytest.mark.usefixtures("tiny_shapes")
def test_transformers_gets_the_first_reply_and_the_prompt(ticking: Callable[[], float]) -> None:
    config = replace(Shape("qwen-7b-chat", "fp16").config, use_dynamic_ntk=False, use_logn_attn=False)
    model = random_model(config, device=CPU, dtype=torch.float32, layout=None)
    for block in model.layers:
        block.attention.qkv.bias.zero_()
    result = peer.measure(model, "transformers", PLAN, clock=ticking)
    assert [d.tokens for d in result.decodes] == [8]
    assert (result.decodes[0].speed, result.first_token) == (1, 1)
    assert result.format == "float32"


@pytest.mark.usefixtures("tiny_shapes")
def test_a_qwen_that_is_no_llama_is_refused() -> None:
    model = random_model(Shape("qwen-7b-chat", "fp16").config, device=CPU, dtype=torch.float32, layout=None)
    with pytest.raises(ValueError, match="Llama"):
        peer.measure(model, "transformers", PLAN)
