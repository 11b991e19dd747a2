"""Random weights in the published shapes: their names, and that they are what loading makes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from qwenchat.bench import random_weights
from qwenchat.bench.random_weights import SHAPES, Shape, formats_of, published_chat, random_model, shape_of
from qwenchat.engine.cuda.linear import PackedLinear, RowLayout
from qwenchat.engine.plan import Plan, pack
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.errors import UsageError
from tests.bench_fixtures import tiny_of

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("qwen-7b-chat-int8", Shape("qwen-7b-chat", "int8")),
        ("Qwen/Qwen-7B-Chat-Int4", Shape("qwen-7b-chat", "int4")),
        ("qwen-7b-chat", Shape("qwen-7b-chat", "fp16")),
        ("qwen-14b-chat-fp16", Shape("qwen-14b-chat", "fp16")),
        ("Qwen-1_8B-Chat", Shape("qwen-1.8b-chat", "fp16")),
        ("qwen-1.8b-chat-int8", Shape("qwen-1.8b-chat", "int8")),
        ("qwen2.5-0.5b-bf16", Shape("qwen2.5-0.5b-instruct", "bf16")),
        ("qwen2.5-7b-int4", Shape("qwen2.5-7b-instruct", "int4")),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", Shape("qwen2.5-7b-instruct", "int8")),
        ("qwen2.5-coder-7b", Shape("qwen2.5-coder-7b-instruct", "bf16")),
        ("qwen3-8b-bf16", Shape("qwen3-8b", "bf16")),
    ],
)
def test_a_published_model_is_known_by_its_name(name: str, shape: Shape) -> None:
    assert shape_of(name) == shape
    assert shape_of(shape.name) == shape


@pytest.mark.parametrize("name", ["qwen-8b-chat", "demo", "qwen-7b-chat-int3", "qwen2.5-7b-\nint8", ""])
def test_another_name_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match="qwen-7b-chat"):
        shape_of(name)


def test_formats_come_in_the_order_in_which_they_are_named() -> None:
    assert formats_of("int4, fp16,INT8,int4") == ("int4", "fp16", "int8")
    with pytest.raises(UsageError, match="int8, int4, fp16"):
        formats_of("int8,int2")


def test_the_7b_has_the_bytes_that_its_shapes_say() -> None:
    # 7.82 GB a token, as measured of the published Int8 checkpoint's tensors; the embedding beside it.
    whole = random_weights.bytes_of(Shape("qwen-7b-chat", "int8").config, 2, packed=True)
    embedding = 151936 * 4096 * 2
    assert whole - embedding == pytest.approx(7.82e9, rel=0.002)
    assert random_weights.bytes_of(Shape("qwen-7b-chat", "fp16").config, 2, packed=True) == pytest.approx(
        15.44e9, rel=1e-3
    )


def test_a_model_of_the_published_shapes_is_recognised_in_every_format() -> None:
    for chat in ("qwen-7b-chat", "qwen-72b-chat", "qwen2.5-7b-instruct", "qwen3-8b"):
        assert published_chat(Shape(chat, "int4").config) == chat
    assert published_chat(replace(SHAPES["qwen-7b-chat"], num_layers=31)) is None


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("name", ["int8", "int4", "fp16"])
def test_a_random_model_equals_itself_packed_or_not(name: str) -> None:
    config = Shape("qwen-7b-chat", name).config
    packed, floats = (
        random_model(config, device=CPU, dtype=torch.float32, layout=layout)
        for layout in (RowLayout(torch.float32), None)
    )
    kinds = {type(m).__name__ for n, m in packed.named_modules() if n.endswith("qkv")}
    assert kinds == {"Linear" if name == "fp16" else PackedLinear.__name__}
    ids = list(range(1, 20))
    expected = TorchRunner(floats).logits(ids)
    assert torch.equal(TorchRunner(packed).logits(ids), expected)
    before = copy.deepcopy(floats)
    pack(floats, Plan(), torch.float32)
    after = TorchRunner(floats).logits(ids)
    assert (after - TorchRunner(before).logits(ids)).abs().max() < 1e-4


@pytest.mark.usefixtures("tiny_shapes")
def test_activations_stay_finite_over_many_layers_in_half_precision() -> None:
    config = replace(Shape("qwen-7b-chat", "int8").config, num_layers=32)
    model = random_model(config, device=CPU, dtype=torch.bfloat16, layout=None)
    logits = TorchRunner(model).logits(list(range(30)))
    assert bool(logits.isfinite().all())
    assert 0.2 < float(logits.std()) < 5


@pytest.mark.usefixtures("tiny_shapes")
def test_the_same_seed_makes_the_same_model() -> None:
    config = Shape("qwen-7b-chat", "int8").config
    one, two = (random_model(config, device=CPU, dtype=torch.float32, layout=None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("chat", ["qwen2.5-0.5b-instruct", "qwen3-8b"])
def test_models_of_later_generations_are_made_too(chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(random_weights.SHAPES, chat, tiny_of(chat))
    config = Shape(chat, "int4").config
    model = random_model(config, device=CPU, dtype=torch.float32, layout=RowLayout(torch.float32))
    assert (model.lm_head.weight is model.embedding.weight) == config.tie_word_embeddings
    logits = TorchRunner(model).logits(list(range(30)))
    assert bool(logits.isfinite().all())
    assert 0.2 < float(logits.std()) < 5
