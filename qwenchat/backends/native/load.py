"""A first-generation Qwen checkpoint, loaded into our own engine.

Owns the order of what happens on that way and what is told of each stage. Everything heavy is imported
when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.backends.devices import pick_device, pick_dtype
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.backends.native.codes import is_candidate, load_in_codes
from qwenchat.backends.native.kernel_cache import open_cpu_kernels, open_triton_cache
from qwenchat.backends.native.qwen_prompt import QwenPrompt, no_vocabulary
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
    seen = _see(folder, request)
    if is_candidate(seen.config, request):
        loaded = _load_in_codes(folder, request, seen)
        if loaded is not None:
            return loaded
    return _load_with_torch(folder, request, seen)


def _load_in_codes(folder: Path, request: LoadRequest, seen: _Seen) -> NativeBackend | None:
    """The way without torch, for quantised checkpoints on a CPU; None if the other one has to be taken."""
    from qwenchat.engine.generate import Engine

    tokenizer = _read_tokenizer(folder, seen.config.vocab_size)
    found = load_in_codes(
        folder,
        request,
        seen.window,
        preflight=lambda need, free: _tell_memory(request, need, free),
        relabelled=lambda: _tell_relabelled(request),
    )
    if found is None:
        return None
    kernels = kernels_told(found.team.name, found.team)
    return NativeBackend(
        Engine(found.runner, context=seen.window, prompt_lookup=request.prompt_lookup),
        QwenPrompt(tokenizer, name=request.name, complete=request.complete),
        seen.defaults,
        name=request.name,
        description=_describe(seen.config, request, device="cpu", dtype=found.dtype, kernels=kernels),
    )


def _tell_memory(request: LoadRequest, need: Need, free: int) -> None:
    line = Phrase("needs {needed} GiB, {free} GiB free", needed=in_gib(need.total), free=in_gib(free))
    request.progress(QuietStage(line), None)


def _tell_relabelled(request: LoadRequest) -> None:
    request.notice(
        Phrase(
            "{name}: its zero points are stored otherwise than its label says (gptq or gptq_v2); "
            "they are read as they are stored",
            name=request.name,
        )
    )


def _describe(config: ModelConfig, request: LoadRequest, *, device: str, dtype: str, kernels: str) -> Phrase:
    return Phrase(
        "{quant}, {device} {dtype}{cache}, {kernels}",
        quant=f"Int{config.quant.bits}" if config.quant else Phrase("unquantised"),
        device=device,
        dtype=dtype,
        cache=Phrase(", int8 KV cache") if request.kv_cache == "int8" else "",
        kernels=kernels,
    )


def _load_with_torch(folder: Path, request: LoadRequest, seen: _Seen) -> NativeBackend:
    found = _look(folder, request, seen)
    config, window = seen.config, seen.window
    from qwenchat.engine.generate import Engine
    from qwenchat.engine.plan import new_runner, pack
    from qwenchat.engine.weights.loader import load_model

    on_gpu = found.device.type == "cuda"
    stage = (COMPILING if open_triton_cache(found.device) else PREPARING) if on_gpu else None
    open_team = partial(open_cpu_kernels, request.threads, request.progress, request.notice)
    how = _plan(config, found, request, open_team)
    weights = load_model(
        folder,
        device=found.device,
        dtype=found.dtype,
        context=window,
        progress=lambda fraction: request.progress(LOADING, fraction),
        preflight=lambda need, free: _tell_memory(request, need, free),
        layout=how.layout,
        int8_cache=found.int8_cache,
        relabelled=lambda: _tell_relabelled(request),
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
    description = _describe(
        config,
        request,
        device=str(found.device),
        dtype=str(found.dtype).removeprefix("torch."),
        kernels=kernels_told(kernels.name, how.team),
    )
    try:
        runner = new_runner(kernels.model, kernels.weights, int8_cache=found.int8_cache)
        engine = Engine(runner, context=window, prompt_lookup=request.prompt_lookup)
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
        QwenPrompt(found.tokenizer, name=request.name, complete=request.complete),
        seen.defaults,
        name=request.name,
        description=description,
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

    seen = _see(folder, request)
    found = _look(folder, request, seen)
    if found.tokenizer is None:
        raise no_vocabulary(request.name)
    needed = weigh(
        folder,
        device=found.device,
        dtype=found.dtype,
        context=seen.window,
        layout=_plan(seen.config, found, request, open_team).layout,
        int8_cache=found.int8_cache,
    )
    check_memory(needed, device=found.device, dtype=found.dtype)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the checkpoint's JSON says, and what the request makes of it."""

    config: ModelConfig
    defaults: GenerationDefaults
    window: int


def _see(folder: Path, request: LoadRequest) -> _Seen:
    """Check what can be wrong before anything is opened that takes time."""
    from qwenchat.engine.config import read_generation_defaults, read_model_config

    config = read_model_config(folder)
    defaults = read_generation_defaults(folder)
    tell_unfit(defaults, request)
    if not (defaults.chats or request.complete):
        raise base_model(Phrase("{name}: its chat_format is raw", name=request.name))
    window = pick_context(request.context, config.seq_length, config.max_position_embeddings)
    if config.sliding_window is not None and request.context is None:
        request.notice(
            Phrase(
                "{name}: its attention slides over {tokens} tokens; the context is no longer than that",
                name=request.name,
                tokens=config.sliding_window,
            )
        )
    return _Seen(config, defaults, window)


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything else that is known before a weight is read with torch."""

    tokenizer: QwenTokenizer | None
    device: torch.device
    dtype: torch.dtype
    int8_cache: bool


def _look(folder: Path, request: LoadRequest, seen: _Seen) -> _Found:
    request.progress(IMPORTING, None)
    with torch_libraries_opening():  # meanwhile, for a vocabulary takes a third of a second
        tokenizer = _read_tokenizer(folder, seen.config.vocab_size)
    device = pick_device(request.device)
    dtype = pick_dtype(request.dtype, device)
    return _Found(tokenizer, device, dtype, request.kv_cache == "int8")


def _plan(config: ModelConfig, found: _Found, request: LoadRequest, open_team: Callable[[], Team]) -> Plan:
    import torch

    from qwenchat.engine.plan import plan

    if request.threads is not None and found.device.type != "cuda":
        torch.set_num_threads(request.threads)
    return plan(config, found.device, found.dtype, open_team)


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
