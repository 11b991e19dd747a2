"""Products of many tokens with a layer's matrices on tape, for prefill: launchers of the sources here.

Between the products lie ``laid`` inputs: [inputs / 64, padded tokens, 64], as ``inputs.cu`` says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.cuda.kernels.hopper.compiled import SHARED, Launch, kernel
from qwenchat.engine.cuda.kernels.hopper.sizes import BLOCKS, HEAD_DIM, Options, Shape
from qwenchat.engine.cuda.kernels.hopper.tape import Tape
from qwenchat.engine.kv_cache import LayerCache
from qwenchat.engine.model import Positions

QKV, PROJECTION, UP_GATE, DOWN = range(4)
"""A tape's matrices."""

_TOKENS = (64, 128, 256)
"""Tokens of a tile, as ``product.cu`` can have them."""
_SPLITS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream: x [T, hidden], and what is still to be added to it.

    Attributes:
        x: floats.
        parts: float32 [splits, hidden / 16, T, 16], or None.
    """

    x: Tensor
    parts: Tensor | None = None


class _Product(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tape", "x", "bias", "added", "out", "parts")),
        *((name, ctypes.c_int) for name in ("tokens", "padded", "splits")),
    ]  # fmt: skip


class _Inputs(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "parts", "sum", "weight", "order", "out")),
        *((name, ctypes.c_int) for name in ("token_stride", "head_stride", "tokens", "padded", "splits")),
        ("eps", ctypes.c_float),
    ]  # fmt: skip


class _Turn(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "qkv", "cosine", "sine", "logn", "q_norm", "k_norm", "query", "keys", "values", "key_scales",
            "value_scales",
        )),
        *((name, ctypes.c_int) for name in ("tokens", "start", "capacity")),
        ("eps", ctypes.c_float),
    ]  # fmt: skip


class Products:
    """Multiplies with matrices of one kind.

    Args:
        tape: one of those that it is for.
        dtype: float16 or bfloat16.
        normed: whether queries and keys have norms.
    """

    def __init__(self, tape: Tape, dtype: torch.dtype, *, normed: bool = False) -> None:
        self._dtype, self._device, self._shape = dtype, tape.data.device, tape.shape
        self._starts = tape.sizes.starts()
        self._options = _options(tape.shape, tape.bits, dtype, zeros=tape.zeros, normed=normed)
        hidden = tape.shape.hidden
        self._rows = (tape.shape.rows, hidden, BLOCKS * tape.shape.both, hidden)
        self._found: dict[tuple[int, int], tuple[int, int]] = {}
        self._launches: dict[tuple[int, int], tuple[_Product, Launch]] = {}
        self._of_inputs: dict[str, tuple[_Inputs, Launch]] = {}
        self._turn: tuple[_Turn, Launch] | None = None

    def normed(
        self, stream: Stream, weight: Tensor, eps: float, order: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The stream behind a norm, laid, its inputs in ``order``; and x, with what was to be added to it."""
        x, parts = stream.x, stream.parts
        out = _room(x, self._shape.hidden, x.shape[0])
        whole = x if parts is None else torch.empty_like(x)
        self._lay(x, self._strides, x.shape[0], out, parts, whole, weight, eps, order)
        return out, whole

    def laid(self, heads: Tensor) -> Tensor:
        """Inputs [heads, T, head_dim], wherever heads and tokens lie, laid."""
        assert heads.stride(2) == 1
        tokens = heads.shape[1]
        out = _room(heads, self._shape.hidden, tokens)
        self._lay(heads, (heads.stride(1), heads.stride(0)), tokens, out)
        return out

    def whole(self, stream: Stream) -> Tensor:
        """The stream's x with what is to be added to it."""
        x = stream.x
        if stream.parts is None:
            return x
        whole = torch.empty_like(x)
        self._lay(x, self._strides, x.shape[0], None, stream.parts, whole)
        return whole

    def turn(
        self,
        qkv: Tensor,
        where: Positions,
        cache: LayerCache,
        start: int,
        norms: HeadNorms | None = None,
    ) -> Tensor:
        """The rotated queries [heads, T, head_dim]; puts the rotated keys, and the values, into the cache.

        Its twin is :func:`qwenchat.engine.cuda.kernels.prefill.rotate_twin`.

        Args:
            qkv: [T, rows of q, k, v].
            where: the positions of these tokens.
            cache: one layer's.
            start: the first token's position.
            norms: of queries and keys, which come before the rotation.
        """
        tokens, heads = qkv.shape[0], self._shape.heads
        query = qkv.new_empty(heads, tokens, HEAD_DIM)
        if self._turn is None:
            fields = _Turn()
            function = kernel("turn.cu", "turn", self._options)
            self._turn = fields, Launch(function, heads * 16, fields, early=True)
        fields, launch = self._turn
        fields.qkv, fields.query = qkv.data_ptr(), query.data_ptr()
        fields.cosine, fields.sine, fields.logn = map(_address, (where.cos, where.sin, where.logn))
        fields.keys, fields.values = cache.keys.data_ptr(), cache.values.data_ptr()
        fields.key_scales, fields.value_scales = map(_address, (cache.key_scales, cache.value_scales))
        if norms is not None:
            fields.q_norm, fields.k_norm = norms.query.data_ptr(), norms.key.data_ptr()
            fields.eps = norms.eps
        fields.tokens, fields.start, fields.capacity = tokens, start, cache.keys.shape[1]
        launch(tokens)
        return query

    def hidden(self, both: Tensor) -> Tensor:
        """The MLP's hidden units, laid, of what up and gate give."""
        out = _room(both, BLOCKS * self._shape.laid, both.shape[0])
        fields, launch = self._kernel("hidden")
        fields.x, fields.out = both.data_ptr(), out.data_ptr()
        fields.padded = out.shape[1]
        launch(both.shape[0])
        return out

    def multiply(
        self, tape: Tape, which: int, laid: Tensor, tokens: int, bias: Tensor | None = None
    ) -> Tensor:
        """The product with q, k, v, or with up and gate: [T, rows], the latter's as they are on the tape."""
        out = torch.empty(tokens, self._rows[which], dtype=self._dtype, device=self._device)
        self._product(tape, which, laid, tokens, 1, out=out, bias=bias)
        return out

    def add(self, tape: Tape, which: int, laid: Tensor, x: Tensor) -> Stream:
        """x [T, hidden] and the product with the output projection, or with down."""
        tokens = x.shape[0]
        _, splits = self._best(which, tokens)
        if splits == 1:
            out = torch.empty_like(x)
            self._product(tape, which, laid, tokens, 1, out=out, added=x)
            return Stream(out)
        parts = torch.empty(splits, self._shape.hidden // 16, tokens, 16, device=self._device)
        self._product(tape, which, laid, tokens, splits, parts=parts)
        return Stream(x, parts)

    def _product(
        self, tape: Tape, which: int, laid: Tensor, tokens: int, splits: int, *, out: Tensor | None = None,
        bias: Tensor | None = None, added: Tensor | None = None, parts: Tensor | None = None,
    ) -> None:  # fmt: skip
        size, _ = self._best(which, tokens)
        fields, launch = self._launch(which, size)
        fields.tape = tape.data.data_ptr() + self._starts[which]
        fields.x, fields.bias, fields.added = laid.data_ptr(), _address(bias), _address(added)
        fields.out, fields.parts = _address(out), _address(parts)
        fields.tokens, fields.padded, fields.splits = tokens, laid.shape[1], splits
        tiles = self._rows[which] // 128 * -(-tokens // size) * splits
        launch(min(tiles, self._multiprocessors))

    def _best(self, which: int, tokens: int) -> tuple[int, int]:
        """Tokens of a tile, and parts of its inputs: those with which the multiprocessors are done first."""
        found = self._found.get((which, tokens))
        if found is None:
            found = self._found[which, tokens] = self._search(which, tokens)
        return found

    def _search(self, which: int, tokens: int) -> tuple[int, int]:
        every = [(size, splits) for size in _TOKENS for splits in (_SPLITS if which % 2 else (1,))]

        def time(choice: tuple[int, int]) -> float:
            """Microseconds on an H200, about."""
            size, splits = choice
            tiles = self._rows[which] // 128 * -(-tokens // size) * splits
            inputs = BLOCKS * self._shape.laid if which == DOWN else self._shape.hidden
            steps = inputs // 64 / splits
            parts = 0.011 * splits * tokens if splits > 1 else 0
            return -(-tiles // self._multiprocessors) * (steps * (0.3 + 0.0018 * size) + 2) + parts

        return min(every, key=time)

    @property
    def _strides(self) -> tuple[int, int]:
        """Those of a row's tokens and heads."""
        return self._shape.hidden, HEAD_DIM

    @cached_property
    def _multiprocessors(self) -> int:
        return torch.cuda.get_device_properties(self._device).multi_processor_count

    def _launch(self, which: int, size: int) -> tuple[_Product, Launch]:
        found = self._launches.get((which, size))
        if found is None:
            options = _of_product(self._options, which, size)
            fields = _Product()
            function = kernel("product.cu", "product", options, SHARED)
            found = fields, Launch(function, 384, fields, shared=SHARED, early=True)
            self._launches[which, size] = found
        return found

    def _lay(
        self, x: Tensor, strides: tuple[int, int], tokens: int, out: Tensor | None,
        parts: Tensor | None = None, whole: Tensor | None = None, weight: Tensor | None = None,
        eps: float = 0.0, order: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Launches what lays inputs; ``strides`` are those of tokens and heads."""
        fields, launch = self._kernel("inputs")
        fields.x, fields.parts, fields.sum = x.data_ptr(), _address(parts), _address(whole)
        fields.weight, fields.order, fields.out = _address(weight), _address(order), _address(out)
        fields.token_stride, fields.head_stride = strides
        fields.tokens, fields.eps = tokens, eps
        fields.padded = 0 if out is None else out.shape[1]
        fields.splits = 0 if parts is None else parts.shape[0]
        launch(tokens)

    def _kernel(self, name: str) -> tuple[_Inputs, Launch]:
        found = self._of_inputs.get(name)
        if found is None:
            fields = _Inputs()
            threads = 512 if name == "hidden" else self._shape.hidden // 8
            found = fields, Launch(kernel("inputs.cu", name, self._options), threads, fields, early=True)
            self._of_inputs[name] = found
        return found


def sources(shape: Shape, bits: int, dtype: torch.dtype, *, normed: bool) -> Iterator[tuple[str, Options]]:
    """The sources that weights of so many bits need, with their options; without zero points."""
    options = _options(shape, bits, dtype, zeros=False, normed=normed)
    yield "inputs.cu", options
    yield "turn.cu", options
    for size in reversed(_TOKENS):
        for which in range(4):
            yield "product.cu", _of_product(options, which, size)


def _options(shape: Shape, bits: int, dtype: torch.dtype, *, zeros: bool, normed: bool) -> Options:
    of_codes = ("BITS", bits), ("ZEROS", int(zeros)), ("BF16", int(dtype == torch.bfloat16))
    return (*shape.options, ("NORMED", int(normed)), *of_codes)


def _of_product(options: Options, which: int, size: int) -> Options:
    return (*options, ("MATRIX", which), ("NT", size))


def _room(x: Tensor, inputs: int, tokens: int) -> Tensor:
    """Room for inputs that will be laid."""
    return x.new_empty(inputs // 64, -(-tokens // 8) * 8, 64)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def laid_twin(x: Tensor, bits: int) -> Tensor:
    """The plain twin of laying inputs [T, inputs] for weights of so many bits; what is padded is zero."""
    tokens, inputs = x.shape
    # A piece has four pairs of the 16 or 32 inputs that are next to one another.
    pieces = x.view(tokens, -1, 4, 2 if bits == 16 else 4, 2).transpose(2, 3).reshape(tokens, -1, 8, 8)
    place = torch.arange(8, device=x.device)
    turned = place ^ (torch.arange(tokens, device=x.device) % 8)[:, None]
    pieces = pieces[torch.arange(tokens, device=x.device)[:, None], :, turned]  # [T, place, inputs / 64, 8]
    out = x.new_zeros(_room(x, inputs, tokens).shape)
    out[:, :tokens] = pieces.permute(2, 0, 1, 3).flatten(2)
    return out


def hidden_twin(both: Tensor, shape: Shape) -> Tensor:
    """The plain twin of :meth:`Products.hidden` before it is laid: [T, inputs]."""
    rows = both.view(len(both), BLOCKS, -1).float()
    up, gate = rows[..., : shape.units], rows[..., shape.units : 2 * shape.units]
    units = F.pad(up * F.silu(gate), (0, shape.laid - shape.units))
    return units.flatten(1).to(both.dtype)
