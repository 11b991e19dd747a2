"""Loading to a CUDA device: the bits that the CPU gets, little memory besides the weights, no thread left."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import qwenchat
from qwenchat.engine.cuda.linear import RowLayout
from qwenchat.engine.generate import Engine
from qwenchat.engine.memory import Need
from qwenchat.engine.weights import gptq, loader
from qwenchat.engine.weights.staging import CudaLane, Staging, Stored
from qwenchat.errors import InsufficientMemoryError
from tests.engine.model_tensors import tensors_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = {t for t in threading.enumerate() if t.name.startswith("reader-")}
    yield
    assert {t for t in threading.enumerate() if t.name.startswith("reader-")} == before


def load(folder: Path, device: torch.device, dtype: torch.dtype, packed: bool) -> nn.Module:
    layout = RowLayout(dtype) if packed else None
    return loader.load_model(folder, device=device, dtype=dtype, context=64, layout=layout)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "name", ["fp16", "gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order"]
)
def test_what_is_loaded_is_the_same_to_the_bit(
    golden_folder: Callable[[str], Path],
    name: str,
    dtype: torch.dtype,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = golden_folder(name)
    expected = tensors_of(
        loader.load_model(
            folder, device=CPU, dtype=dtype, context=64, layout=RowLayout(dtype) if packed else None
        )
    )
    for piece, ahead in ((4096, 50_000), (8 << 20, 256 << 20)):
        monkeypatch.setattr(loader, "Staging", partial(Staging, piece=piece, ahead=ahead))
        found = tensors_of(
            loader.load_model(
                folder, device=CUDA, dtype=dtype, context=64, layout=RowLayout(dtype) if packed else None
            )
        )
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Int8 checkpoint of 600 MB."""
    folder = tmp_path_factory.mktemp("large")
    hidden, mlp, vocabulary, layers = 2048, 5504, 32000, 6
    config = {
        "model_type": "qwen", "hidden_size": hidden, "num_attention_heads": 16, "kv_channels": 128,
        "intermediate_size": 2 * mlp, "seq_length": 256, "vocab_size": vocabulary,
        "num_hidden_layers": layers, "layer_norm_epsilon": 1e-6,
        "quantization_config": {"bits": 8, "group_size": 128, "quant_method": "gptq"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    tensors = {
        name: torch.randn(vocabulary, hidden, dtype=torch.float16) * 0.02
        for name in ("transformer.wte.weight", "lm_head.weight")
    }
    tensors["transformer.ln_f.weight"] = torch.ones(hidden, dtype=torch.float16)
    for i in range(layers):
        h = f"transformer.h.{i}"
        tensors |= {f"{h}.{ln}.weight": torch.ones(hidden, dtype=torch.float16) for ln in ("ln_1", "ln_2")}
        tensors[f"{h}.attn.c_attn.bias"] = torch.randn(3 * hidden).half()
        for layer, inputs, outputs in (
            ("attn.c_attn", hidden, 3 * hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.w1", hidden, mlp),
            ("mlp.w2", hidden, mlp),
            ("mlp.c_proj", mlp, hidden),
        ):
            codes = torch.randint(0, 256, (inputs, outputs), dtype=torch.uint8)
            scales = torch.full((inputs // 128, outputs), 1e-4, dtype=torch.float16)
            zeros = torch.full((inputs // 128, outputs), 128, dtype=torch.uint8)
            packed = gptq.pack(codes, scales, zeros, bits=8)
            tensors |= {f"{h}.{layer}.{part}": tensor for part, tensor in packed.items()}
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    return folder


def load_large(folder: Path, **kwargs: Any) -> nn.Module:
    return loader.load_model(
        folder, device=CUDA, dtype=torch.float16, context=256, layout=RowLayout(torch.float16), **kwargs
    )


def test_large_matrices_in_many_pieces_are_the_same_to_the_bit_every_time(large: Path) -> None:
    expected = tensors_of(
        loader.load_model(
            large, device=CPU, dtype=torch.float16, context=256, layout=RowLayout(torch.float16)
        )
    )
    for _ in range(4):
        found = tensors_of(load_large(large))
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key


def test_loading_takes_no_more_memory_than_was_said(large: Path) -> None:
    needs: list[Need] = []
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = load_large(large, preflight=lambda need, free: needs.append(need))
    torch.cuda.synchronize()
    taken, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    (need,) = needs
    # The allocator rounds up.
    assert taken <= need.weights + (8 << 20)
    assert peak <= need.weights + need.reading + (8 << 20)
    del model


def test_copies_wait_for_what_the_memory_was_used_for_before(large: Path) -> None:
    """Memory that is let go of while a kernel still reads it goes to the next tensor, not too early."""
    path = large / "model.safetensors"
    size = 4 << 20
    stored = [Stored(str(i), path, 4096 + i * 997, (size,), torch.uint8) for i in range(32)]
    content = path.read_bytes()
    with Staging(CUDA, piece=1 << 20, ahead=2 * size) as staging:
        found = []
        for (tensor,) in staging.bring([s] for s in stored):
            total = torch.zeros((), dtype=torch.int64, device=CUDA)
            for _ in range(20):  # keeps the caller's stream behind
                total += tensor.long().sum()
            found.append(total)
            del tensor
        sums = [int(total) for total in found]
    for s, total in zip(stored, sums, strict=True):
        part = torch.frombuffer(bytearray(content[s.offset : s.offset + size]), dtype=torch.uint8)
        assert total == 20 * int(part.long().sum())


def test_the_callers_stream_may_be_any(golden_folder: Callable[[str], Path]) -> None:
    folder = golden_folder("gptq_int8")
    expected = tensors_of(
        loader.load_model(
            folder, device=CPU, dtype=torch.float16, context=64, layout=RowLayout(torch.float16)
        )
    )
    with torch.cuda.stream(torch.cuda.Stream()):
        found = tensors_of(
            loader.load_model(
                folder, device=CUDA, dtype=torch.float16, context=64, layout=RowLayout(torch.float16)
            )
        )
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_an_interrupt_leaves_the_device_usable(large: Path) -> None:
    def interrupt(fraction: float) -> None:
        if fraction > 0.4:
            raise KeyboardInterrupt

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with pytest.raises(KeyboardInterrupt):
        load_large(large, progress=interrupt)
    gc.collect()  # the error held what had been loaded
    assert torch.cuda.memory_allocated() - before < 64 << 20
    assert load_large(large) is not None


def test_buffers_are_pinned_and_marks_are_heard() -> None:
    lane = CudaLane(CUDA)
    with lane.thread():
        source = lane.buffer(1 << 20)
        assert source.is_pinned()
        source.fill_(7)
        target = torch.empty(1 << 20, dtype=torch.uint8, device=CUDA)
        mark = lane.copy(target, source, lane.here())
    lane.done(mark)
    lane.join(mark)
    assert bool((target == 7).all())
    lane.drain()


def test_memory_that_runs_out_is_an_error_the_model_survives(large: Path) -> None:
    model = qwenchat.load(large, device="cuda")
    expected = list(model.generate([1, 2, 3], temperature=0, max_new_tokens=4))
    # All but a few megabytes are taken by somebody else.
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    try:
        with pytest.raises(InsufficientMemoryError, match="memory ran out"):
            Engine(model.engine.runner, context=200_000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert list(model.generate([1, 2, 3], temperature=0, max_new_tokens=4)) == expected
