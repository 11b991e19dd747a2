"""The ceilings' arithmetic, where the result is known beforehand."""

from __future__ import annotations

import pytest
import torch

from qwenchat.bench import ceilings
from qwenchat.bench.ceilings import Ceilings, average_bytes, prefill_operations, weight_bytes
from qwenchat.bench.random_weights import SHAPES
from qwenchat.bench.timing import best_seconds

CPU = torch.device("cpu")
H100 = Ceilings(read=3.0e12, copy=3.0e12, multiply=7e14)
INT8, KV = int(7.82e9), 2 * 32 * 4096 * 2


def test_the_7b_in_int8_cannot_pass_what_an_h100_reads() -> None:
    assert H100.decode(INT8, KV, 2048) == pytest.approx(359, abs=1)
    assert H100.decode(INT8, KV, 8192) == pytest.approx(301, abs=1)


def test_the_ceiling_of_a_reply_is_that_of_its_tokens_one_by_one() -> None:
    tokens, weights, per_position = 50, 1000, 7
    seconds = sum((weights + per_position * context) / H100.read for context in range(1, tokens + 1))
    assert H100.decode(weights, per_position, tokens) == pytest.approx(tokens / seconds)
    assert average_bytes(weights, per_position, 1) == weights + per_position


def test_the_ceiling_falls_as_the_context_grows() -> None:
    speeds = [H100.decode_at(INT8, KV, context) for context in (1, 1024, 8192)]
    assert speeds == sorted(speeds, reverse=True)


def test_a_token_reads_every_matrix_once() -> None:
    c = SHAPES["qwen-7b-chat"]
    per_layer = c.hidden_size * 3 * c.hidden_size + c.hidden_size**2 + 3 * c.hidden_size * c.mlp_size
    assert weight_bytes(c, 2) == 2 * (32 * per_layer + c.vocab_size * c.hidden_size)


def test_the_operations_of_a_prefill_are_two_a_weight_and_the_pairs_that_see_each_other() -> None:
    c = SHAPES["qwen-7b-chat"]
    once, twice = prefill_operations(c, 1), prefill_operations(c, 2)
    matrices = (weight_bytes(c, 1) - c.vocab_size * c.hidden_size) * 2
    pair = 4 * c.num_layers * c.hidden_size
    assert once == 2 * weight_bytes(c, 1) + pair
    assert twice - once == matrices + 2 * pair  # the second token sees two
    assert prefill_operations(c, 1, cached=9) - once == 9 * pair


@pytest.mark.usefixtures("tiny_shapes")
def test_a_device_is_measured_in_every_dtype() -> None:
    found = ceilings.measure(CPU, torch.bfloat16, repeats=1)
    assert min(found.read, found.copy, found.multiply) > 0


def test_the_first_run_does_not_count_and_the_best_does() -> None:
    times = iter([0.0, 9.0, 10.0, 13.0])  # the starts and ends of two runs: 9 s and 3 s
    calls = []
    assert best_seconds(lambda: calls.append(1), CPU, repeats=2, clock=lambda: next(times)) == 3.0
    assert len(calls) == 3
