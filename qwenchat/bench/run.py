"""Runs a benchmark: checks that it can be run, measures the ceilings, then one model after the other.

Each model is freed before the next is made, so that the largest decides what memory is needed.
"""

from __future__ import annotations

import importlib.util
import platform
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from qwenchat.backends.devices import pick_device, pick_dtype
from qwenchat.backends.load import check_folder, load_requested
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.backends.native.kernel_cache import open_cpu_kernels
from qwenchat.backends.request import KV_CACHES, LoadRequest
from qwenchat.bench import ceilings, checkpoint, peer, protocol, random_weights, start
from qwenchat.bench.measure import free
from qwenchat.bench.measure import measure as measure_subject
from qwenchat.bench.protocol import Loaded, Protocol, Result, Subject, Tell
from qwenchat.bench.random_weights import Shape
from qwenchat.bench.report import Report
from qwenchat.engine import plan as linear
from qwenchat.engine.cpu.cores import physical_cores, processor_name
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.memory import check_memory, need
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import Phrase, UsageError
from qwenchat.i18n.language import tr
from qwenchat.models import catalog

_PATIENCE = 60
"""Seconds that all prompts, and all replies, may take on a CPU before they are made shorter."""
_PLENTY = 16
"""Tokens of context of an engine that is made only to be taken apart."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to measure.

    Attributes:
        model: a folder, a known name, or demo; where ``random_weights`` is None.
        random_weights: the name of a published model whose shapes are filled at random.
        formats: of these, as a list with commas; None for the name's own.
        device, dtypes: as the settings have them.
        tokens: lengths of the replies; None for what suits the device.
        contexts: at which a token is timed after a prompt; those that a model has not are left out.
        kv_cache: "auto" or "int8".
        threads: on a CPU; None for its physical cores.
        kernels: time each kernel.
        load: time a process of its own to its first token.
        folder: where the random weights for that are kept; None for a temporary folder.
        peer: time transformers too.
    """

    model: str
    random_weights: str | None = None
    formats: str | None = None
    device: str = "auto"
    dtypes: tuple[str, ...] = ("auto",)
    tokens: tuple[int, ...] | None = None
    contexts: tuple[int, ...] = ()
    kv_cache: str = "auto"
    threads: int | None = None
    kernels: bool = False
    load: bool = False
    folder: Path | None = None
    peer: bool = False


def measure(request: Request, *, command: str, tell: Tell) -> Report:
    """Measures everything that was asked for.

    Args:
        command: how it was asked for, for the report.
        tell: told what is being done.

    Raises:
        UsageError: something that was asked for makes no sense.
        ModelError: there is no such model, it is unusable, or memory does not suffice.
    """
    if request.kv_cache not in KV_CACHES:
        raise UsageError("--kv-cache is {kind}, expected auto or int8", kind=repr(request.kv_cache))
    LoadRequest(request.model, threads=request.threads)  # refuses what cannot be
    shapes = _shapes(request)
    device = pick_device(request.device)
    dtypes = {name: pick_dtype(name, device) for name in request.dtypes}
    plan = protocol.CARD if device.type == "cuda" else protocol.SMALL
    if request.tokens is not None:
        plan = replace(plan, tokens=request.tokens)
    plan = replace(plan, contexts=request.contexts)
    if request.threads is not None and device.type == "cpu":
        torch.set_num_threads(request.threads)
    for name, dtype in dtypes.items():
        for filled in shapes:
            _plan(request, filled, device, dtype, plan, tell)
        if not shapes and request.model != catalog.AUTO:
            _check_checkpoint(request, device, name, tell)
    limits = {}
    for dtype in dtypes.values():
        tell(tr("what {device} can do at best in {dtype}", device=device, dtype=_name(dtype)))
        limits[_name(dtype)] = ceilings.measure(device, dtype)
        free(device)
    results: list[Result] = []
    for name, dtype in dtypes.items():
        for shape in shapes or (None,):
            if shape is None:
                subject = _checkpoint_subject(request, device, name, tell)
            else:
                subject = _random_subject(request, shape, device, dtype, plan, tell)
            result = measure_subject(
                subject,
                plan,
                kernels=request.kernels,
                sampler=not results,
                seconds=_PATIENCE if device.type == "cpu" else None,
                shorter_replies=request.tokens is None,
                tell=tell,
            )
            results.append(result)
            if request.load:
                result.start = _start(request, shape, device, name, tell)
            if request.peer:
                results.append(_peer(request, device, dtype, plan, tell))
    return Report(_machine(device), command, limits, results)


def _shapes(request: Request) -> list[Shape]:
    if request.random_weights is None:
        return []
    shape = random_weights.shape_of(request.random_weights)
    if request.formats is None:
        return [shape]
    return [replace(shape, format=name) for name in random_weights.formats_of(request.formats)]


def _checkpoint_subject(request: Request, device: torch.device, dtype: str, tell: Tell) -> Subject:
    def load() -> Loaded:
        backend = load_requested(_load_request(request, device, dtype, tell))
        assert isinstance(backend, NativeBackend)
        runner = backend.engine.runner
        kernels = backend.description.rpartition(", ")[2]
        # Of a GraphRunner, whose module cannot be imported where there is no Triton.
        weights = getattr(runner, "weights", None)
        loaded = Loaded(runner.model, weights, kernels)
        backend.close()
        return loaded

    return Subject(request.model, load, request.kv_cache)


def _random_subject(
    request: Request, shape: Shape, device: torch.device, dtype: torch.dtype, plan: Protocol, tell: Tell
) -> Subject:
    def load() -> Loaded:
        how = _plan(request, shape, device, dtype, plan, tell)
        model = random_weights.random_model(shape.config, device=device, dtype=dtype, layout=how.layout)
        kernels = linear.pack(model, how, dtype)
        if kernels.unsupported_reason:
            tell(tr("our kernels are not used: {reason}", reason=kernels.unsupported_reason))
        return Loaded(kernels.model, kernels.weights, kernels.name)

    return Subject(shape.name, load, request.kv_cache)


def _plan(
    request: Request, shape: Shape, device: torch.device, dtype: torch.dtype, plan: Protocol, tell: Tell
) -> linear.Plan:
    """Plan a model of random weights for which memory suffices."""
    how = linear.plan(shape.config, device, dtype, lambda: _open_team(request, tell))
    packed = how.layout is not None
    needed = need(
        shape.config,
        weights=random_weights.bytes_of(shape.config, dtype.itemsize, packed=packed),
        reading=0,
        cuda=device.type == "cuda",
        itemsize=dtype.itemsize,
        context=plan.within(shape.config.max_position_embeddings).longest,
        packed=packed,
        int8_cache=request.kv_cache == "int8",
    )
    check_memory(needed, device=device, dtype=dtype)
    return how


def _check_checkpoint(request: Request, device: torch.device, dtype: str, tell: Tell) -> None:
    """Raises ModelError where a checkpoint cannot be loaded, or memory does not suffice for it."""
    folder = catalog.locate(request.model)
    wanted = _load_request(request, device, dtype, tell)
    check_folder(folder, wanted, open_team=lambda: _open_team(request, tell))


def _load_request(request: Request, device: torch.device, dtype: str, tell: Tell) -> LoadRequest:
    return LoadRequest(
        request.model,
        backend="native",
        device=str(device),
        dtype=dtype,
        context=_PLENTY,
        threads=request.threads,
        notice=tell,
    )


def _open_team(request: Request, tell: Tell) -> Team:
    return open_cpu_kernels(request.threads, lambda stage, fraction: tell(tr(stage)), tell)


def _start(
    request: Request, shape: Shape | None, device: torch.device, dtype: str, tell: Tell
) -> tuple[float, float]:
    """From the start of a process to its first token; a model of random weights is written to disk for it."""
    with ExitStack() as stack:
        model = request.model
        if shape is not None:
            folder = request.folder
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qwenchat-bench-")))
            checkpoint.ensure(folder / shape.name, shape.config, device=device, progress=tell)
            free(device)
            model = str(folder / shape.name)
        tell(tr("{name}: from the start of a process to its first token, twice", name=model))
        return start.seconds_to_first_token(model, device=str(device), dtype=dtype, threads=request.threads)


def _peer(request: Request, device: torch.device, dtype: torch.dtype, plan: Protocol, tell: Tell) -> Result:
    tell(f"transformers, {_name(dtype)}")
    folder = catalog.locate(request.model)
    model = load_model(folder, device=device, dtype=dtype, context=plan.prompt)
    try:
        result = peer.measure(model, "transformers", plan)
    except ValueError as error:
        raise UsageError(
            Phrase("transformers cannot be timed beside {model}", model=request.model), str(error)
        ) from None
    del model
    free(device)
    return result


def _machine(device: torch.device) -> dict[str, str]:
    """The name of what computes."""
    versions = {"torch": f"torch {torch.__version__}"}
    if importlib.util.find_spec("triton") is not None:
        versions["triton"] = f"triton {metadata.version('triton')}"
    if device.type == "cpu":
        versions["numba"] = f"numba {metadata.version('numba')}"
    versions["python"] = f"Python {platform.python_version()}"
    if device.type != "cuda":
        return {"device": _processor(), **versions}
    cuda = f"CUDA {torch.version.cuda}"
    return {"device": torch.cuda.get_device_name(device), "cuda": cuda, **versions, "host": _processor()}


def _processor() -> Phrase:
    """The processor's name and how many of its cores this process may use."""
    return Phrase.of_number(
        physical_cores(), "{processor}, 1 core", "{processor}, {count} cores", processor=processor_name()
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
