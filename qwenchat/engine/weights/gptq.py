"""The GPTQ checkpoint layout, as auto-gptq writes it: packing, unpacking, rounding.

Owns the meaning of ``qweight``, ``qzeros``, ``scales`` and ``g_idx``. Knows nothing of files or of
the model that the weights belong to.

A matrix of ``out`` rows and ``in`` columns is stored transposed, in groups along ``in``:

    qweight  int32 [in * bits / 32, out]       codes, 32 / bits of them to a word, lowest bits first
    qzeros   int32 [groups, out * bits / 32]   zero points, packed along ``out``, stored minus one
    scales   float [groups, out]
    g_idx    int32 [in]                        the group of each input; permuted under act-order

and its values are ``scales[g_idx] * (codes - zeros[g_idx])``. Source of the layout:
``QuantLinear.pack`` and ``forward`` of auto-gptq 0.7.1. The ``gptq_v2`` format stores the zero
points as they are, not minus one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Codes:
    """A checkpoint's four tensors for one matrix, and what is to be known to read them.

    Attributes:
        bits: of a code, 4 or 8.
        group: inputs that share a scale, where there is no ``g_idx``.
        zeros_minus_one: whether the zero points are stored minus one.
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor | None
    bits: int
    group: int
    zeros_minus_one: bool = True

    @property
    def inputs(self) -> int:
        return self.qweight.shape[0] * 32 // self.bits

    @property
    def outputs(self) -> int:
        return self.qweight.shape[1]

    def zeros(self) -> Tensor:
        """The zero points, uint8 [groups, out]."""
        zeros = unpack_words(self.qzeros.t(), self.bits).t()
        # uint8 arithmetic wraps, as the original's mask does.
        return (zeros + 1) & (2**self.bits - 1) if self.zeros_minus_one else zeros


def join(parts: Sequence[Codes]) -> Codes | None:
    """Matrices with the same inputs made one, the outputs of each after the other's.

    None where their inputs are in groups of different kinds: such a matrix has no codes of its own.
    """
    first, *others = parts
    if not others:
        return first
    for other in others:
        if (first.g_idx is None) != (other.g_idx is None):
            return None
        if first.g_idx is not None and other.g_idx is not None and not torch.equal(first.g_idx, other.g_idx):
            return None
    qweight, qzeros, scales = (
        torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("qweight", "qzeros", "scales")
    )
    return replace(first, qweight=qweight, qzeros=qzeros, scales=scales)


def split(tensors: Mapping[str, Tensor], outputs: Sequence[int], *, bits: int) -> list[dict[str, Tensor]]:
    """A matrix's tensors made those of several matrices with so many outputs; :func:`join` undoes it."""
    counts = {"qweight": outputs, "scales": outputs, "qzeros": [count * bits // 32 for count in outputs]}
    parts = {name: tensors[name].split_with_sizes(list(count), dim=1) for name, count in counts.items()}
    return [
        {name: pieces[i].contiguous() for name, pieces in parts.items()} | {"g_idx": tensors["g_idx"]}
        for i in range(len(outputs))
    ]


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """Packs ``codes`` [n, m], values below ``2**bits``, along dimension 0 into int32 [n * bits / 32, m]."""
    per_word = 32 // bits
    rows = codes.shape[0]
    if rows % per_word:
        raise ValueError(f"{rows} rows cannot be packed {per_word} to a word")
    shifts = torch.arange(per_word, dtype=torch.int64) * bits
    words = (codes.to(torch.int64).view(rows // per_word, per_word, -1) << shifts[None, :, None]).sum(dim=1)
    # The top code may set bit 31: fold into the signed range that int32 has.
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """Unpacks int32 ``words`` [n, m] along dimension 0 into uint8 [n * 32 / bits, m]."""
    rows, columns = words.shape
    # Little-endian bytes of a word hold its codes from the lowest up.  [n, m, 4]
    codes = words.reshape(-1).view(torch.uint8).view(rows, columns, 4)
    if bits == 4:
        codes = torch.stack((codes & 0xF, codes >> 4), dim=-1).view(rows, columns, 8)
    return codes.transpose(1, 2).reshape(-1, columns)


def pack(codes: Tensor, scales: Tensor, zeros: Tensor, *, bits: int) -> dict[str, Tensor]:
    """A checkpoint's four tensors for one matrix, groups in order (no act-order).

    Args:
        codes: uint8 [in, out].
        scales: float16 [groups, out].
        zeros: uint8 [groups, out], at least 1 (the layout stores them minus one).
        bits: 4 or 8.
    """
    inputs, groups = codes.shape[0], scales.shape[0]
    group_size = -(-inputs // groups)
    return {
        "qweight": pack_words(codes, bits),
        "qzeros": pack_words((zeros - 1).T, bits).T.contiguous(),
        "scales": scales,
        "g_idx": (torch.arange(inputs) // group_size).to(torch.int32),
    }


def quantize_rtn(weight: Tensor, *, bits: int, group_size: int) -> dict[str, Tensor]:
    """Rounds a matrix to the nearest code, symmetrically, and packs it.

    Args:
        weight: float32 [out, in]; ``in`` is a multiple of ``group_size``.
        bits: 4 or 8.
        group_size: inputs that share a scale.
    """
    outputs, inputs = weight.shape
    grouped = weight.T.reshape(inputs // group_size, group_size, outputs)  # [groups, size, out]
    middle = 2 ** (bits - 1)
    # Rounded to fp16 before the codes are chosen, because that is the scale they will meet again.
    scales = (grouped.abs().amax(dim=1) / (middle - 1)).to(torch.float16)  # [groups, out]
    divisor = torch.where(scales == 0, torch.ones_like(scales), scales).float()
    codes = (grouped / divisor[:, None, :]).round() + middle
    codes = codes.clamp_(0, 2**bits - 1).to(torch.uint8).view(inputs, outputs)
    return pack(codes, scales, torch.full_like(scales, middle, dtype=torch.uint8), bits=bits)


def dequantize(stored: Codes) -> Tensor:
    """The matrix behind a checkpoint's four tensors, float32 [out, in].

    Without ``g_idx`` the groups are taken in order. Shapes and the range of ``g_idx`` are the
    loader's to check.
    """
    codes = unpack_words(stored.qweight, stored.bits)  # [in, out]
    zeros, scales, g_idx = stored.zeros(), stored.scales.float(), stored.g_idx
    inputs, groups = codes.shape[0], scales.shape[0]
    if g_idx is None or _groups_in_order(g_idx, groups):
        weight = codes.view(groups, inputs // groups, -1).float()
        weight -= zeros[:, None, :].float()
        weight *= scales[:, None, :]
        weight = weight.view(inputs, -1)
    else:
        groups_of_inputs = g_idx.long()
        weight = codes.float()
        weight -= zeros[groups_of_inputs].float()
        weight *= scales[groups_of_inputs]
    return weight.T


def _groups_in_order(g_idx: Tensor, groups: int) -> bool:
    inputs = g_idx.shape[0]
    if inputs % groups:
        return False
    in_order = torch.arange(inputs, dtype=g_idx.dtype, device=g_idx.device) // (inputs // groups)
    return bool(torch.equal(g_idx, in_order))
