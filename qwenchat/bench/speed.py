"""Speed of a model on this machine, beside the ceilings it is held to.

Decoding reads every weight once a token, so its ceiling is the memory's read bandwidth over the
bytes of a token; both are measured here, in the same run. A peer, transformers on the very same
weights, can run beside it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from qwenchat.backends.native import NativeBackend
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.model import Qwen


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of one model in one dtype.

    Attributes:
        what: model, device, dtype, kernel.
        decode: tokens/s of 128 new tokens after 64.
        prefill: tokens/s of a prompt of 512.
        token_bytes: bytes of weights read for a token.
        bandwidth: bytes/s that this machine reads from memory.
    """

    what: str
    decode: float
    prefill: float
    token_bytes: int
    bandwidth: float

    @property
    def share(self) -> float:
        """Decoding's share of its ceiling."""
        return self.decode * self.token_bytes / self.bandwidth


def measure(model: NativeBackend, bandwidth: float, *, repeats: int = 3) -> Speed:
    """Times a model of this engine; each figure is the median of ``repeats``."""
    vocabulary = model.engine.config.vocab_size

    def decode() -> float:
        prompt = _prompt(64, vocabulary)
        generation = model.generate(prompt, temperature=0, max_new_tokens=128, ignore_eos=True)
        tokens = sum(1 for _ in generation)
        # The first token falls out of the prefill; the others are what decoding took.
        return (tokens - 1) / generation.stats.decode_seconds

    def prefill() -> float:
        generation = model.generate(_prompt(512, vocabulary), temperature=0, max_new_tokens=1)
        list(generation)
        return 512 / generation.stats.prefill_seconds

    return Speed(
        what=f"{model.name} ({model.description})",
        decode=_median(decode, repeats),
        prefill=_median(prefill, repeats),
        token_bytes=bytes_per_token(model.engine.config, model.engine.dtype),
        bandwidth=bandwidth,
    )


def measure_peer(model: Qwen, bandwidth: float, *, repeats: int = 3) -> Speed:
    """Times transformers' Llama on ``model``'s weights, which it takes over; greedy, with its KV cache."""
    import torch
    from transformers import DynamicCache

    from qwenchat.bench.peer import llama_of

    peer = llama_of(model)
    vocabulary = model.config.vocab_size

    def run(prompt_length: int, new_tokens: int) -> tuple[float, float]:
        """Seconds of the prefill and of each step after it."""
        cache = DynamicCache()
        ids = torch.tensor([_prompt(prompt_length, vocabulary)], device=peer.device)
        with torch.inference_mode():
            started = time.perf_counter()
            step = peer(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            prefilled = time.perf_counter()
            for _ in range(new_tokens):
                step = peer(step.logits[:, -1:].argmax(-1), past_key_values=cache, use_cache=True)
        return prefilled - started, (time.perf_counter() - prefilled) / max(new_tokens, 1)

    return Speed(
        what=f"transformers ({str(peer.dtype).removeprefix('torch.')})",
        decode=_median(lambda: 1 / run(64, 127)[1], repeats),
        prefill=_median(lambda: 512 / run(512, 0)[0], repeats),
        token_bytes=bytes_per_token(model.config, peer.dtype),
        bandwidth=bandwidth,
    )


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of weights that one decoded token reads: every matrix once; the embedding's row is nothing."""
    attention = 4 * config.hidden_size**2
    mlp = 3 * config.hidden_size * config.mlp_size
    lm_head = config.vocab_size * config.hidden_size
    return (config.num_layers * (attention + mlp) + lm_head) * dtype.itemsize


def read_bandwidth(device: torch.device, *, repeats: int = 5) -> float:
    """Bytes/s at which ``device`` reads 1 GiB that no cache holds; the best of ``repeats``."""
    import torch

    block = torch.ones(2**28, dtype=torch.float32, device=device)

    def read() -> float:
        started = time.perf_counter()
        block.sum().item()
        return block.numel() * block.element_size() / (time.perf_counter() - started)

    return max(read() for _ in range(repeats))


def seconds_to_first_token(arguments: Sequence[str], *, repeats: int = 3) -> float:
    """From starting ``qwenchat ask`` in a process of its own to the first piece of its answer; the median."""

    def ask() -> float:
        command = [
            sys.executable,
            "-m",
            "qwenchat",
            "ask",
            "--quiet",
            "--stream-json",
            *arguments,
            "Say hello.",
        ]
        started = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            seconds = time.perf_counter() - started
            process.kill()
        return seconds

    return _median(ask, repeats)


def _median(figure: Callable[[], float], repeats: int) -> float:
    figure()  # warm
    return statistics.median(figure() for _ in range(repeats))


_prompts_made = 0


def _prompt(length: int, vocabulary: int) -> list[int]:
    """Token ids that no earlier prompt began with, so that no cached prefix is reused."""
    global _prompts_made
    _prompts_made += 1
    return [(31 * i + 7 * _prompts_made) % vocabulary for i in range(length)]
