"""A checkpoint, loaded into our own engine.

Owns the order of what happens on that way and what is told of each stage. Everything heavy is imported
when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.backends.devices import pick_device, pick_dtype, predict_names
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.backends.native.codes import is_candidate, load_in_codes, survey_in_codes
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
    tell_no_system,
    tell_shortened,
    tell_unfit,
)
from qwenchat.backends.torch_import import torch_libraries_opening
from qwenchat.errors import ModelError, Phrase, QwenchatError
from qwenchat.humanize import in_gib

if TYPE_CHECKING:
    import torch

    from qwenchat.backends.native.place import Place
    from qwenchat.backends.prompt import Prompt
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.cpu.team import Team
    from qwenchat.engine.memory import Need
    from qwenchat.engine.plan import Plan


def load_native(folder: Path, request: LoadRequest) -> NativeBackend:
    """Loads the checkpoint in ``folder``, or a GGUF file.

    Raises:
        NotComputedError: it is of a kind that our engine does not compute; said before a weight is read.
        ModelError: it is unusable, or memory does not suffice.
        UsageError: the request has a value that it cannot have on this machine or with this model.
    """
    seen = _see(folder, request)
    if is_candidate(seen.place, request):
        loaded = _load_in_codes(request, seen)
        if loaded is not None:
            return loaded
    return _load_with_torch(request, seen)


def _load_in_codes(request: LoadRequest, seen: _Seen) -> NativeBackend | None:
    """The way without torch, for quantised checkpoints on a CPU; None if the other one has to be taken."""
    from qwenchat.engine.generate import Engine
    from qwenchat.engine.memory import check_memory

    prompt = seen.place.prompt(request)
    _, dtype = predict_names(request.device, request.dtype)

    def fit(need: Need) -> Need:
        need = _fitted(need, "cpu", request, seen)
        _tell_memory(request, need, check_memory(need, device="cpu", dtype=dtype))
        return need

    found = load_in_codes(
        seen.place,
        request,
        seen.window,
        fit=fit,
        relabelled=lambda: _tell_relabelled(request),
    )
    if found is None:
        return None
    kernels = kernels_told(found.team.name, found.team)
    tell_no_system(request, prompt.system)
    return NativeBackend(
        Engine(found.runner, context=found.context, prompt_lookup=request.prompt_lookup),
        prompt,
        seen.place.defaults,
        name=request.name,
        description=_describe(seen.place, request, device="cpu", dtype=found.dtype, kernels=kernels),
    )


def _fitted(need: Need, device: torch.device | str, request: LoadRequest, seen: _Seen) -> Need:
    """The need with a shorter context where memory asks for it, and nobody for a long one."""
    from qwenchat.engine.memory import shortened

    if request.context is not None or not request.settle or not seen.place.has_template:
        return need
    fitted = shortened(need, device)
    if fitted.context < need.context:
        tell_shortened(request, fitted.context, need.context)
    return fitted


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


def _describe(place: Place, request: LoadRequest, *, device: str, dtype: str, kernels: str) -> Phrase:
    return Phrase(
        "{quant}, {device} {dtype}{cache}, {kernels}",
        quant=_quantised(place),
        device=device,
        dtype=dtype,
        cache=Phrase(", int8 KV cache") if request.kv_cache == "int8" else "",
        kernels=kernels,
    )


def _quantised(place: Place) -> str:
    """How the weights are stored, in a word or two."""
    if place.head is not None:
        return f"GGUF {place.head.file.kind}"
    quant = place.config.quant
    return Phrase("unquantised") if quant is None else f"Int{quant.bits}"


def _load_with_torch(request: LoadRequest, seen: _Seen) -> NativeBackend:
    found = _look(request, seen)
    config, checkpoint = seen.place.config, seen.place.checkpoint()
    if seen.place.in_codes:
        kind = _quantised(seen.place)
        request.notice(
            Phrase(
                "{name}: its weights ({kind}) are made floats, which take more memory",
                name=request.name,
                kind=kind,
            )
        )
    from qwenchat.engine.generate import Engine
    from qwenchat.engine.plan import new_runner, pack
    from qwenchat.engine.weights.loader import load_model, weigh

    on_gpu = found.device.type == "cuda"
    stage = (COMPILING if open_triton_cache(found.device) else PREPARING) if on_gpu else None
    open_team = partial(open_cpu_kernels, request.threads, request.progress, request.notice)
    how = _plan(config, found, request, open_team)
    needed = weigh(
        checkpoint,
        device=found.device,
        dtype=found.dtype,
        context=seen.window,
        layout=how.layout,
        int8_cache=found.int8_cache,
    )
    window = _fitted(needed, found.device, request, seen).context
    weights = load_model(
        checkpoint,
        device=found.device,
        dtype=found.dtype,
        context=window,
        progress=lambda fraction: request.progress(LOADING, fraction),
        preflight=lambda need, free: _tell_memory(request, need, free),
        layout=how.layout,
        int8_cache=found.int8_cache,
        relabelled=lambda: _tell_relabelled(request),
    )
    kernels = pack(weights, how, found.dtype, int8_cache=found.int8_cache)
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
        seen.place,
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
    tell_no_system(request, found.prompt.system)
    return NativeBackend(
        engine,
        found.prompt,
        seen.place.defaults,
        name=request.name,
        description=description,
    )


def check_native(folder: Path, request: LoadRequest, open_team: Callable[[], Team]) -> str | None:
    """Goes the way of :func:`load_native` up to the weights.

    Args:
        open_team: opens the CPU kernels, or raises CannotCompile.

    Returns:
        The system prompt that the model has of itself; None where it has no place for one.

    Raises:
        QwenchatError: as loading it would, or chatting with it.
    """
    from qwenchat.engine.memory import check_memory
    from qwenchat.engine.weights.loader import weigh

    seen = _see(folder, request)
    found = _look(request, seen)
    _ = found.prompt.tokenizer  # there is one
    layout = _plan(seen.place.config, found, request, open_team).layout
    in_codes = None
    if seen.place.head is not None and layout is not None and found.device.type == "cpu":
        in_codes = survey_in_codes(seen.place, request, seen.window)
    if in_codes is None:
        needed = weigh(
            seen.place.checkpoint(),
            device=found.device,
            dtype=found.dtype,
            context=seen.window,
            layout=layout,
            int8_cache=found.int8_cache,
        )
    else:
        needed = in_codes.needed
    check_memory(_fitted(needed, found.device, request, seen), device=found.device, dtype=found.dtype)
    return found.prompt.system


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the checkpoint says of itself, and what the request makes of it."""

    place: Place
    window: int


def _see(folder: Path, request: LoadRequest) -> _Seen:
    """Check what can be wrong before anything is opened that takes time."""
    from qwenchat.backends.native.place import look

    place = look(folder)
    config, defaults = place.config, place.defaults
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
    return _Seen(place, window)


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything else that is known before a weight is read with torch."""

    prompt: Prompt
    device: torch.device
    dtype: torch.dtype
    int8_cache: bool


def _look(request: LoadRequest, seen: _Seen) -> _Found:
    request.progress(IMPORTING, None)
    with torch_libraries_opening():  # meanwhile, for a vocabulary takes a third of a second
        prompt = seen.place.prompt(request)
    device = pick_device(request.device)
    dtype = pick_dtype(request.dtype, device)
    return _Found(prompt, device, dtype, request.kv_cache == "int8")


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
