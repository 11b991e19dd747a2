"""A first-generation Qwen checkpoint, loaded into our own engine.

Owns the order of what happens on that way and what is told of each stage. Everything heavy is imported
when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.backends.devices import pick_device, pick_dtype
from qwenchat.backends.native.backend import NativeBackend, no_vocabulary
from qwenchat.backends.native.kernel_cache import open_cpu_kernels, open_triton_cache
from qwenchat.backends.request import (
    COMPILING,
    IMPORTING,
    LOADING,
    PREPARING,
    LoadRequest,
    QuietStage,
    base_model,
    pick_context,
    tell_unfit,
)
from qwenchat.backends.torch_import import torch_libraries_opening
from qwenchat.errors import CheckpointError, ModelError, Phrase, QwenchatError
from qwenchat.humanize import in_gib
from qwenchat.tokenizer import QwenTokenizer

if TYPE_CHECKING:
    import torch

    from qwenchat.engine.config import GenerationDefaults, ModelConfig
    from qwenchat.engine.cpu.team import Team
    from qwenchat.engine.memory import Need
    from qwenchat.engine.plan import Plan


def load_native(folder: Path, request: LoadRequest) -> NativeBackend:
    """Loads the checkpoint in ``folder``.

    Raises:
        ModelError: it is unusable, or memory does not suffice.
        UsageError: the request has a value that it cannot have on this machine or with this model.
    """
    found = _look(folder, request)
    config, window = found.config, found.window
    from qwenchat.engine.generate import Engine
    from qwenchat.engine.plan import new_runner, pack
    from qwenchat.engine.weights.loader import load_model

    def tell_memory(need: Need, free: int) -> None:
        line = Phrase(
            "needs {needed} GiB, {free} GiB free",
            needed=in_gib(need.total),
            free=in_gib(free),
        )
        request.progress(QuietStage(line), None)

    on_gpu = found.device.type == "cuda"
    stage = (COMPILING if open_triton_cache(found.device) else PREPARING) if on_gpu else None
    how = _plan(found, request, lambda: open_cpu_kernels(request.threads, request.progress, request.notice))
    weights = load_model(
        folder,
        device=found.device,
        dtype=found.dtype,
        context=window,
        progress=lambda fraction: request.progress(LOADING, fraction),
        preflight=tell_memory,
        layout=how.layout,
        int8_cache=found.int8_cache,
        relabelled=lambda: request.notice(
            Phrase(
                "{name}: its zero points are stored otherwise than its label says (gptq or gptq_v2); "
                "they are read as they are stored",
                name=request.name,
            )
        ),
    )
    kernels = pack(weights, how, found.dtype)
    if kernels.unsupported_reason:
        request.notice(
            Phrase(
                "falling back from the {kind} kernels to {path}: {reason}",
                kind="CUDA C++" if kernels.weights else "CUDA" if on_gpu else "CPU",
                path=kernels_told(kernels.name, how.team),
                reason=kernels.unsupported_reason,
            )
        )
    if kernels.weights and stage:
        request.progress(stage, None)
    quant = f"Int{config.quant.bits}" if config.quant else Phrase("unquantised")
    number = str(found.dtype).removeprefix("torch.")
    cache = Phrase(", int8 KV cache") if found.int8_cache else ""
    description = Phrase(
        "{quant}, {device} {dtype}{cache}, {kernels}",
        quant=quant,
        device=found.device,
        dtype=number,
        cache=cache,
        kernels=kernels_told(kernels.name, how.team),
    )
    try:
        runner = new_runner(kernels.model, kernels.weights, int8_cache=found.int8_cache)
        engine = Engine(runner, context=window)
    except QwenchatError:
        raise
    except Exception as error:
        if kernels.weights is None:
            raise
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(
            "the CUDA kernels cannot be compiled: {reason}",
            "use --device cpu",
            in_chat="start qwenchat with --device cpu",
            reason=f"{type(error).__name__}: {first_line}",
        ) from error
    return NativeBackend(
        engine,
        found.tokenizer,
        found.defaults,
        name=request.name,
        description=description,
        complete=request.complete,
    )


def check_native(folder: Path, request: LoadRequest, open_team: Callable[[], Team]) -> None:
    """Goes the way of :func:`load_native` up to the weights.

    Args:
        open_team: opens the CPU kernels, or raises CannotCompile.

    Raises:
        QwenchatError: as loading it would, or chatting with it.
    """
    from qwenchat.engine.memory import check_memory
    from qwenchat.engine.weights.loader import weigh

    found = _look(folder, request)
    if found.tokenizer is None:
        raise no_vocabulary(request.name)
    needed = weigh(
        folder,
        device=found.device,
        dtype=found.dtype,
        context=found.window,
        layout=_plan(found, request, open_team).layout,
        int8_cache=found.int8_cache,
    )
    check_memory(needed, device=found.device, dtype=found.dtype)


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything known before a weight is read: the checkpoint's JSON and vocabulary, and the request."""

    config: ModelConfig
    defaults: GenerationDefaults
    window: int
    tokenizer: QwenTokenizer | None
    device: torch.device
    dtype: torch.dtype
    int8_cache: bool


def _look(folder: Path, request: LoadRequest) -> _Found:
    """Check what can be wrong before seconds go into torch and the weights."""
    from qwenchat.engine.config import read_generation_defaults, read_model_config

    config = read_model_config(folder)
    defaults = read_generation_defaults(folder)
    tell_unfit(defaults, request)
    if not (defaults.chats or request.complete):
        raise base_model(Phrase("{name}: its chat_format is raw", name=request.name))
    window = pick_context(request.context, config.seq_length, config.max_position_embeddings)
    request.progress(IMPORTING, None)
    with torch_libraries_opening():  # meanwhile, for a vocabulary takes a third of a second
        tokenizer = _read_tokenizer(folder, config.vocab_size)
    device = pick_device(request.device)
    dtype = pick_dtype(request.dtype, device)
    return _Found(config, defaults, window, tokenizer, device, dtype, request.kv_cache == "int8")


def _plan(found: _Found, request: LoadRequest, open_team: Callable[[], Team]) -> Plan:
    import torch

    from qwenchat.engine.plan import plan

    if request.threads is not None and found.device.type != "cuda":
        torch.set_num_threads(request.threads)
    return plan(found.config, found.device, found.dtype, open_team)


def kernels_told(name: str, team: Team | None) -> str:
    """The kernels' name for a person, with the number of threads where there are any."""
    if team is None:
        return Phrase(name)
    return Phrase.of_number(
        team.threads, "{kind} kernels on 1 thread", "{kind} kernels on {count} threads", kind=team.kind
    )


def _read_tokenizer(folder: Path, vocab_size: int) -> QwenTokenizer | None:
    """The folder's tokenizer, held against the model; None where there is none, to run ids alone."""
    if not any(folder.glob("*.tiktoken")):
        return None
    tokenizer = QwenTokenizer.from_folder(folder, vocab_size)
    if tokenizer.n_vocab > vocab_size:
        raise CheckpointError(
            "{folder}: the vocabulary has {tokens} tokens, the model {size}",
            "the .tiktoken file belongs to another checkpoint",
            folder=folder,
            tokens=tokenizer.n_vocab,
            size=vocab_size,
        )
    return tokenizer
