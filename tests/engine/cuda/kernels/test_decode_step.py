"""A whole decode step: it gives what its twins give, and what the model's own forward gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.architectures import ARCHITECTURES, Architecture
from qwenchat.engine.cuda import decode
from qwenchat.engine.cuda.decode import PARTS, DecodeStep
from qwenchat.engine.cuda.kernels import sample
from qwenchat.engine.cuda.kernels.attention import Shape
from qwenchat.engine.cuda.kernels.gemv import Tiles
from qwenchat.engine.cuda.linear import RowLayout
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Qwen, Rotary
from qwenchat.engine.positions import ntk_alpha
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.weights.loader import load_model
from tests.engine import golden, llama_checkpoint

# One block that takes all rows: what the interpreter is fastest with.
ONE_BLOCK = {
    (kernel, bits): Tiles(512 if kernel in ("swiglu", "head") else 128, 8, 1)
    for kernel, bits in [*decode.TILES, ("head", 8), ("head", 4)]
}
CONTEXT = 64


def a_step(model: Qwen, device: torch.device, *, int8: bool) -> DecodeStep:
    """The decode step of a model, with an empty cache."""
    weights = decode.assemble(model)
    assert weights is not None
    c = model.config
    cache = KVCache.of(c, CONTEXT, dtype=weights.embedding.dtype, device=device, int8=int8)
    rotary = Rotary(c, CONTEXT, device)
    if device.type == "cuda":
        return DecodeStep(c, weights, cache, rotary, sample.State(c.vocab_size, CONTEXT, device), pdl=False)
    # The interpreter runs blocks one after the other: the sampler's could not wait for each other.
    state = sample.State(c.vocab_size, CONTEXT, device, blocks=1)
    shape = Shape(splits=2, positions=32, warps=4)
    return DecodeStep(c, weights, cache, rotary, state, pdl=False, tiles=ONE_BLOCK, attention_shape=shape)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "dtype", "int8", "rounding"),
    [
        ("fp16", torch.float16, False, 5e-3),
        ("ntk_logn", torch.float32, False, 1e-5),
        ("gptq_int8", torch.float16, True, 5e-3),
        ("gptq_int4", torch.bfloat16, False, 3e-2),
        ("gptq_int4_asym_g32", torch.float32, False, 1e-4),
        (golden.ONE_ORDER, torch.float32, True, 1e-4),
    ],
)
def test_a_step_equals_its_twin_and_the_models_forward(
    device: torch.device, tmp_path: Path, name: str, dtype: torch.dtype, int8: bool, rounding: float
) -> None:
    folder = golden.copy(name, tmp_path)
    model = load_model(folder, device=device, dtype=dtype, context=CONTEXT, layout=RowLayout(dtype))
    step = a_step(model, device, int8=int8)
    prompt = max(golden.prompts(name), key=len)  # beyond the trained context, where LogN and NTK begin
    assert len(prompt) > model.config.seq_length
    step.rotary.set_alpha(ntk_alpha(model.config, len(prompt)))
    ids = torch.tensor([*prompt, 7], device=device)
    logits = model(ids[:-1], step.cache, step.rotary)[0]

    expected = model(ids[-1:], step.cache, step.rotary)[0]
    twins = step.twin(7, len(prompt))
    # The sampler is part of the step, and so is what it leaves for the next one.
    step.state.begin(logits, SamplingParams(temperature=0.0), torch.empty(0, dtype=torch.float64), prompt)
    step.state.token.fill_(7)
    step.state.position.fill_(len(prompt))
    step.state.logits.fill_(float("nan"))
    step.x.fill_(float("nan"))
    step.hidden.fill_(float("nan"))
    step.launch()
    found = step.state.logits
    print(
        f"{name}: {distance(found, twins):.1e} from the twins, {distance(found, expected):.1e} from forward"
    )
    # A number of the cache may be rounded the other way, to 8 bits or, in the interpreter, to bfloat16.
    exact = step.cache.layer(0).keys.dtype in (torch.float16, torch.float32)
    assert distance(found, twins) < (1e-4 if exact else 1e-3)
    assert distance(found, expected) < rounding
    if device.type == "cuda":
        torch.cuda.synchronize()
    assert int(step.state.tokens[0]) == int(step.state.token) == int(found.argmax())
    assert int(step.state.position) == len(prompt) + 1


@torch.inference_mode()
@pytest.mark.parametrize(
    ("bits", "dtype", "int8", "norms", "rounding"),
    [
        (16, torch.float32, False, False, 1e-5),
        (8, torch.float32, False, False, 1e-3),  # its products are of whole numbers
        (4, torch.float16, True, False, 2e-2),
        (16, torch.float32, True, True, 1e-3),
        (8, torch.float16, False, True, 2e-2),
    ],
)
def test_a_step_of_a_model_whose_heads_share_keys_and_values(
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bits: int,
    dtype: torch.dtype,
    int8: bool,
    norms: bool,
    rounding: float,
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "normed", Architecture("normed", qk_norm=True))  # type: ignore[arg-type]
    kind = "normed" if norms else "llama"
    folder = llama_checkpoint.write(tmp_path, bits=bits, norms=norms, model_type=kind)
    model = load_model(folder, device=device, dtype=dtype, context=CONTEXT, layout=RowLayout(dtype))
    assert model.config.query_size > model.config.hidden_size
    step = a_step(model, device, int8=int8)
    ids = torch.randint(0, 64, (21,)).to(device)
    model(ids[:-1], step.cache, step.rotary)
    expected = model(ids[-1:], step.cache, step.rotary)[0]
    twins = step.twin(int(ids[-1]), 20)
    step.state.token.fill_(int(ids[-1]))
    step.state.position.fill_(20)
    step.launch(PARTS[:-1])
    # Attention is sharp here: a score that is a little off moves more than in a model that was trained.
    assert distance(step.state.logits, twins) < 1e-3
    assert distance(step.state.logits, expected) < rounding


def test_weights_whose_mlp_has_its_inputs_in_two_orders_are_left_to_plain_torch(tmp_path: Path) -> None:
    folder = golden.copy("gptq_int8_act_order", tmp_path)
    cpu = torch.device("cpu")
    model = load_model(
        folder, device=cpu, dtype=torch.float32, context=CONTEXT, layout=RowLayout(torch.float32)
    )
    ids = torch.tensor(golden.prompts("gptq_int8")[0])

    def logits() -> torch.Tensor:
        cache = KVCache.of(model.config, CONTEXT, dtype=torch.float32, device=cpu)
        with torch.inference_mode():
            return model(ids, cache, Rotary(model.config, CONTEXT, cpu))

    before = logits()
    assert decode.assemble(model) is None
    assert torch.equal(logits(), before)
