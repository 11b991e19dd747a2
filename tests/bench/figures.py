"""Figures that are known, for the tests of what tells them."""

from __future__ import annotations

from qwenchat.bench.ceilings import Ceilings
from qwenchat.bench.protocol import CARD, Decode, Memory, Protocol, Result
from qwenchat.bench.report import Report

GIB = 2**30


def result(name: str = "qwen-7b-chat-int8", protocol: Protocol = CARD, **fields: object) -> Result:
    values: dict[str, object] = {
        "name": name,
        "format": "Int8",
        "published": "qwen-7b-chat",
        "device": "cuda",
        "dtype": "float16",
        "kernels": "Triton, CUDA graph",
        "protocol": protocol,
        "weights": 7_820_000_000,
        "per_position": 524_288,
        "decodes": [Decode(tuple((i + 1) / 300 for i in range(n))) for n in protocol.tokens],
        "encode_memory": Memory(int(9.6 * GIB), 10 * GIB),
        "generate_memory": Memory(int(12.6 * GIB), 13 * GIB),
        "first_token": 0.08,
        "next_turn": 0.02,
        "reused": protocol.old,
        "prefill_operations": 28 * 10**12,
    }
    return Result(**{**values, **fields})  # type: ignore[arg-type]


def report_of(*results: Result) -> Report:
    machine = {"device": "NVIDIA H100 80GB HBM3", "torch": "torch 2.13.0"}
    ceilings = {"float16": Ceilings(3.0e12, 2.9e12, 7e14), "float32": Ceilings(3.0e12, 2.9e12, 5e13)}
    return Report(machine, "qwenchat bench", ceilings, results)
