"""The decode step for Hopper: its stream is plain torch's, its replies repeat to the bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda.decode import DecodeStep, HopperStep, Layer, LayerOnTape, Weights
from qwenchat.engine.cuda.kernels import sample
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.cuda.kernels.hopper import tape
from qwenchat.engine.cuda.kernels.hopper.sizes import Shape
from qwenchat.engine.cuda.linear import RowLayout
from qwenchat.engine.cuda.packed import Packed, join, pair
from qwenchat.engine.generate import Engine
from qwenchat.engine.kv_cache import KVCache, LayerCache
from qwenchat.engine.model import Qwen, Rotary
from qwenchat.engine.plan import ON_GPUS, ON_HOPPER, Plan, new_runner, pack
from tests.engine import random_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
        reason="needs a Hopper GPU",
    ),
]

CONTEXT, LAYERS, VOCABULARY = 1100, 2, 320
CUDA = torch.device("cuda")
SEVEN = Shape(4096, 32, 32, 11008)
"""A 7B of the first two generations."""
APART = Shape(3584, 28, 4, 18944)
"""Qwen2.5-7B: keys and values have blocks of their own, and a block's units fall to three groups."""
SHARED = Shape(4096, 32, 8, 12288)
"""Qwen3-8B: the blocks of four heads have the rows of their keys and values."""
SMALL = Shape(1536, 12, 2, 8960)
"""Qwen2.5-1.5B: some blocks have no part in attention."""


@dataclass(frozen=True)
class Kind:
    """What a layer's matrices are like."""

    bits: int
    zeros: bool = False
    ordered: bool = False
    dtype: torch.dtype = torch.float16
    shape: Shape = SEVEN
    bias: bool = True
    normed: bool = False

    def __str__(self) -> str:
        marks = [name for name in ("zeros", "ordered", "normed") if getattr(self, name)]
        return "-".join((str(self.bits), str(self.dtype)[6:], str(self.shape.hidden), *marks))

    def matrix(self, outputs: int, inputs: int, *, bias: bool = False, ordered: bool = False) -> Packed:
        """A matrix whose products with a normal row are about normal again; drawn on the GPU."""
        added = torch.randn(outputs, device=CUDA).to(self.dtype) if bias else None
        if self.bits == 16:
            values = torch.randn(outputs, inputs, device=CUDA) * inputs**-0.5
            return Packed(values.to(self.dtype), inputs, 16, bias=added)
        codes = torch.randint(0, 256, (outputs, inputs * self.bits // 8), dtype=torch.uint8, device=CUDA)
        groups = outputs, inputs // 128
        spread = 2**self.bits / 12**0.5
        zeros = torch.randint(0, 2**self.bits, groups, dtype=torch.uint8, device=CUDA)
        return Packed(
            codes.view(torch.int8) if self.bits == 8 else codes,
            inputs,
            self.bits,
            scales=((torch.rand(groups, device=CUDA) + 0.5) / spread * inputs**-0.5).half(),
            zeros=zeros if self.zeros else None,
            perm=torch.randperm(inputs, device=CUDA).int() if ordered and self.ordered else None,
            bias=added,
        )

    def layer(self) -> tuple[Packed, Packed, Packed, Packed, Packed]:
        qkv, output, mlp, _, down = self.shape.matrices
        up = self.matrix(*mlp, ordered=True)
        return (
            self.matrix(*qkv, bias=self.bias, ordered=True),
            self.matrix(*output),
            up,
            replace(self.matrix(*mlp), perm=up.perm),
            self.matrix(*down, ordered=True),
        )

    def norms(self) -> HeadNorms | None:
        """Of queries and keys."""
        query, key = (0.5 + torch.rand(2, 128, device=CUDA)).to(self.dtype)
        return HeadNorms(query, key, 1e-6) if self.normed else None

    def tape(self, matrices: tuple[Packed, ...]) -> tape.Tape:
        assert tape.misfit(self.shape, *matrices) is None
        return tape.lay(self.shape, *matrices, zeros=self.zeros)


KINDS = [
    Kind(8),
    Kind(4),
    Kind(16),
    Kind(8, zeros=True, ordered=True),
    Kind(4, zeros=True, ordered=True, dtype=torch.bfloat16),
    Kind(16, dtype=torch.bfloat16),
    Kind(8, shape=APART),
    Kind(4, shape=APART, zeros=True, ordered=True),
    Kind(16, shape=APART, dtype=torch.bfloat16),
    Kind(8, shape=SHARED, zeros=True, bias=False, normed=True),
    Kind(4, shape=SHARED, dtype=torch.bfloat16, bias=False, normed=True),
    Kind(16, shape=SHARED, dtype=torch.bfloat16, bias=False, normed=True),
    Kind(8, shape=SMALL),
    Kind(4, shape=SMALL, zeros=True),
    Kind(16, shape=SMALL),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def shapes(layers: int, shape: Shape = SEVEN, *, normed: bool = False) -> ModelConfig:
    """A model's, with few layers and a small vocabulary."""
    s = shape
    c = random_model.config(heads=s.heads, head_dim=128, mlp_size=s.mlp, vocab_size=VOCABULARY, layers=layers)
    return replace(c, use_logn_attn=True, seq_length=512, num_key_value_heads=s.key_heads, qk_norm=normed)


class Twins:
    """A model for the kernel and for its twin, with a cache for each, filled alike."""

    def __init__(self, kind: Kind, *, int8: bool) -> None:
        torch.manual_seed(0)
        hidden = kind.shape.hidden
        c = shapes(LAYERS, kind.shape, normed=kind.normed)
        layers, tapes = [], []
        for _ in range(LAYERS):
            norms = 0.5 + torch.rand(2, hidden, device=CUDA).to(kind.dtype)
            matrices = qkv, proj, up, gate, down = kind.layer()
            head_norms = kind.norms()
            tapes.append(LayerOnTape(norms[0], norms[1], kind.tape(matrices), head_norms))
            layers.append(Layer(norms[0], pair(qkv, 64), proj, norms[1], join(up, gate), down, head_norms))
        embedding = torch.randn(VOCABULARY, hidden, device=CUDA).to(kind.dtype)
        # A head that gives the stream as it is.
        head = Packed(torch.eye(hidden, device=CUDA, dtype=torch.float16), hidden, 16)
        rest = torch.ones(hidden, device=CUDA), head
        self.kernel = self._step(HopperStep, c, Weights(embedding, (), *rest, tapes), kind, int8=int8)
        self.twin = self._step(DecodeStep, c, Weights(embedding, layers, *rest), kind, int8=int8)

    def _step(
        self, step: type[DecodeStep], c: ModelConfig, weights: Weights, kind: Kind, *, int8: bool
    ) -> DecodeStep:
        cache = KVCache.of(c, CONTEXT, dtype=kind.dtype, device=CUDA, int8=int8)
        torch.manual_seed(1)
        for i in range(LAYERS):
            part = cache.layer(i)
            for codes, scales in ((part.keys, part.key_scales), (part.values, part.value_scales)):
                filling = torch.randint(-127, 128, codes.shape, dtype=torch.int8, device=CUDA)
                codes.copy_(filling if int8 else filling / 80)
                if scales is not None:
                    scales.uniform_(0.002, 0.02)
        state = sample.State(VOCABULARY, CONTEXT, CUDA)
        return step(c, weights, cache, Rotary(c, CONTEXT, CUDA), state, pdl=False)

    def stream(self, token: int, position: int) -> Tensor:
        """What the kernel gives for a token."""
        self.kernel.state.token.fill_(token)
        self.kernel.state.position.fill_(position)
        self.kernel.launch(("layers",))
        return self.kernel.x.clone()


@pytest.fixture(params=[False, True], ids=["", "int8-cache"])
def int8(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the cache has 8 bits; afterwards the memory is free again."""
    yield request.param
    torch.cuda.empty_cache()


def normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean() + 1e-6)


def assert_near(ours: LayerCache, theirs: LayerCache, position: int) -> None:
    """A token's keys and values are those that plain torch makes of it, but for what rounding moves."""
    int8 = ours.key_scales is not None
    for a, b in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
        new, wanted = a[:, position].float(), b[:, position].float()
        assert (new - wanted).abs().max() <= (2 if int8 else wanted.abs().max() * 2**-6)
        assert torch.equal(a[:, position + 1 :], b[:, position + 1 :])
    for c, d in ((ours.key_scales, theirs.key_scales), (ours.value_scales, theirs.value_scales)):
        if c is not None and d is not None:
            torch.testing.assert_close(c[:, position], d[:, position], rtol=1e-2, atol=0)


@each_kind
@torch.inference_mode()
def test_the_stream_is_that_of_plain_torch_and_the_same_each_time(
    kind: Kind, int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins = Twins(kind, int8=int8)
    put, layers = LayerCache.put, range(LAYERS)

    def put_the_same(part: LayerCache, keys: Tensor, values: Tensor, start: int) -> None:
        # A code that is rounded the other way moves a short context: once seen to be near, the kernel's own.
        put(part, keys, values, start)
        address = part.keys.data_ptr()
        i = next(i for i in layers if twins.twin.cache.layer(i).keys.data_ptr() == address)
        ours = twins.kernel.cache.layer(i)
        assert_near(ours, part, start)
        for name in ("keys", "values", *(("key_scales", "value_scales") if int8 else ())):
            getattr(part, name)[:, start] = getattr(ours, name)[:, start]

    monkeypatch.setattr(LayerCache, "put", put_the_same)
    for position in (0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 600, 1000, 1001):
        token = position % VOCABULARY
        found = twins.stream(token, position)
        for _ in range(20):
            assert torch.equal(twins.stream(token, position), found)
        expected = twins.twin.twin(token, position)
        off = float((normed(found) - expected).norm() / expected.norm())
        assert off < (1e-2 if int8 or kind.dtype == torch.bfloat16 else 1e-3), position


@pytest.mark.parametrize("kind", [Kind(8), Kind(16)], ids=str)
@pytest.mark.parametrize("where", ["norm", "bias", "embedding"])
@torch.inference_mode()
def test_a_number_that_is_none_reaches_the_logits_and_goes_with_its_token(kind: Kind, where: str) -> None:
    twins = Twins(kind, int8=False)
    before = twins.stream(5, 40)
    weights = twins.kernel.weights
    if where == "embedding":
        weights.embedding[5, 3] = torch.nan
        assert twins.stream(5, 40).isnan().any()
        assert torch.isfinite(twins.stream(6, 40)).all()
        return
    layer = weights.tapes[1]
    of = layer.mlp_norm if where == "norm" else layer.tape.bias
    kept = of[7].clone()
    of[7] = torch.nan
    broken = HopperStep(
        twins.kernel.config, weights, twins.kernel.cache, twins.kernel.rotary, twins.kernel.state, pdl=False
    )
    broken.launch(("layers",))
    assert broken.x.isnan().all()
    of[7] = kept
    torch.testing.assert_close(twins.stream(5, 40), before, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [SEVEN, APART, SHARED], ids=["first", "apart", "shared"])
@torch.inference_mode()
def test_a_model_of_such_shapes_runs_on_it(shape: Shape, int8: bool) -> None:
    torch.manual_seed(3)
    with CUDA:
        model = Qwen(shapes(LAYERS, shape, normed=shape is SHARED)).half()
    model.requires_grad_(False)
    prompt = random.Random(4).choices(range(VOCABULARY), k=300)
    wanted = Engine(new_runner(model, None), context=512).logits(prompt)
    kernels = pack(model, Plan(RowLayout(torch.float16)), torch.float16)
    assert (kernels.name, kernels.unsupported_reason) == (ON_HOPPER, None)
    engine = Engine(new_runner(kernels.model, kernels.weights, int8_cache=int8), context=512)
    rows = engine.logits(prompt)
    assert (rows - wanted).norm() < 1e-2 * wanted.norm()
    reply = list(engine.generate(prompt, max_new_tokens=200))
    assert list(engine.generate(prompt, max_new_tokens=200)) == reply
    # Each token is the best by the forward of prefill too, but for what rounding moves.
    rows = engine.logits(prompt + reply)[len(prompt) - 1 : -1]
    lead = rows.amax(-1) - rows[torch.arange(len(reply)), torch.tensor(reply)]
    assert lead.max() < 0.05 * rows.std()


def test_a_model_that_does_not_fit_says_why_and_takes_triton() -> None:
    with CUDA:
        model = Qwen(random_model.config(heads=4, head_dim=32, mlp_size=256, vocab_size=VOCABULARY)).half()
    kernels = pack(model, Plan(RowLayout(torch.float16)), torch.float16)
    assert (kernels.name, kernels.unsupported_reason) == (
        ON_GPUS,
        "its shapes are not those that the kernel is made for",
    )
