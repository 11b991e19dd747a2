"""From a model's name to a backend that answers: :func:`load`, the way in from Python.

Owns what happens on that way, and in which order: the folder, the device and the dtype, what is told of each
stage, what "auto" does where a model does not fit. Everything heavy is imported when a model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from qwenchat.backends.importing import no_garbage_collection, torch_libraries_opening
from qwenchat.backends.native import NativeBackend
from qwenchat.engine.cpu.layout import MOST_THREADS
from qwenchat.errors import CheckpointError, InsufficientMemoryError, ModelError, QwenchatError, UsageError
from qwenchat.language import tr
from qwenchat.tokenizer import QwenTokenizer

if TYPE_CHECKING:
    import torch

    from qwenchat.engine.cpu.team import Team
    from qwenchat.engine.memory import Need

Arguments = ParamSpec("Arguments")
Progress = Callable[[str, float | None], None]
"""Told a stage's name and the fraction done, None where it cannot be known."""


class Routine(str):
    """A stage that every load passes through: to be seen while it lasts, but no news in a log."""

    __slots__ = ()


IMPORTING, LOADING, PREPARING = map(Routine, ("importing torch", "loading weights", "preparing kernels"))
COMPILING = "compiling kernels, once"

_TRITON_CACHE = "TRITON_CACHE_DIR"
DTYPES = ("auto", "float32", "bfloat16", "float16")
KV_CACHES = ("auto", "int8")


def load(
    model: str | Path = "auto",
    *,
    checkpoint: str | Path = "Qwen/Qwen-7B-Chat-Int8",
    device: str = "auto",
    dtype: str = "auto",
    context: int | None = None,
    kv_cache: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> NativeBackend:
    """Loads a model.

    Args:
        model: a checkpoint folder, a known name, "demo" for the built-in model, or "auto" for
            ``checkpoint`` if it is on this machine and fits its memory, else the built-in one.
        checkpoint: a folder or a known name.
        device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.
        dtype: "float32", "bfloat16", "float16", or "auto" for what the device does well.
        context: tokens of prompt and reply together; by default what the model was trained on.
        kv_cache: "auto" to hold keys and values in the dtype, "int8" in half of float16's memory.
        threads: on a CPU; by default as many as there are physical cores for this process.
        progress: told of each stage.
        notice: told in one line what "auto" chose.

    Raises:
        ModelError: there is no such model, it is unusable, or memory does not suffice.
        UsageError: an argument has a value it cannot have.
    """
    from qwenchat.engine.config import read_model_config
    from qwenchat.models import catalog

    def load_named(name: str | Path, window: int | None = context) -> NativeBackend:
        folder = catalog.locate(name, progress=progress)
        return load_folder(
            folder,
            name=str(name),
            device=device,
            dtype=dtype,
            context=window,
            kv_cache=kv_cache,
            threads=threads,
            progress=progress,
            notice=notice,
        )

    def fall_back(reason: str) -> NativeBackend:
        folder = catalog.locate(catalog.DEMO, progress=progress)
        most = read_model_config(folder).max_position_embeddings
        short = context is not None and context > most
        told = tr("answering with {model}", model=catalog.demo_title())
        if short:
            told = tr(
                "answering with {model} and its {tokens} tokens", model=catalog.demo_title(), tokens=most
            )
        tell(tr("{message}; {hint}", message=reason, hint=told))
        return load_named(catalog.DEMO, most if short else context)

    if str(model) != catalog.AUTO:
        return load_named(model)
    tell = notice or (lambda line: None)
    if catalog.find(checkpoint) is None:
        return fall_back(tr("{model} is not on this machine", model=checkpoint))
    try:
        backend = load_named(checkpoint)
    except InsufficientMemoryError as error:
        reason = f"{checkpoint}: {error.message}"
    else:
        tell(tr("answering with {model}", model=checkpoint))
        return backend
    return fall_back(reason)


def _lets_go(load: Callable[Arguments, NativeBackend]) -> Callable[Arguments, NativeBackend]:
    """Of a load that memory does not suffice for, nothing stays in memory while its error is kept."""

    @wraps(load)
    def loading(*args: Arguments.args, **kwargs: Arguments.kwargs) -> NativeBackend:
        try:
            return load(*args, **kwargs)
        except InsufficientMemoryError as error:
            message, hint = error.message, error.hint
        # Another one: the first holds the frames that it went through, and with them what had been loaded.
        raise InsufficientMemoryError(message, hint)

    return loading


@no_garbage_collection()
@_lets_go
def load_folder(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    context: int | None = None,
    kv_cache: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> NativeBackend:
    """Loads the checkpoint in ``folder``; arguments and errors are those of :func:`load`."""
    from qwenchat.engine.config import read_generation_defaults, read_model_config

    # What can be wrong is looked at first, before seconds go into torch and the weights.
    report = progress or (lambda stage, fraction: None)
    if kv_cache not in KV_CACHES:
        raise UsageError(f"the KV cache is {kv_cache!r}, expected {', '.join(KV_CACHES)}")
    int8_cache = kv_cache == "int8"
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        hint = tr("give 1 to {most}", most=MOST_THREADS)
        raise UsageError(tr("--threads {count} is out of range", count=threads), hint)
    config = read_model_config(folder)
    defaults = read_generation_defaults(folder)
    window = _pick_context(context, config.seq_length, config.max_position_embeddings)
    report(IMPORTING, None)
    # GNU's OpenMP, which torch has, lets its threads look for work so often before they sleep. Its own number
    # is so high that after a prefill they keep our kernels from the processors for two tokens.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    with torch_libraries_opening():  # meanwhile, for a vocabulary takes a third of a second
        tokenizer = _read_tokenizer(folder, config.vocab_size)
    import torch

    from qwenchat.engine.generate import Engine
    from qwenchat.engine.linear import pack, plan
    from qwenchat.engine.loader import load_model

    def tell_memory(need: Need, free: int) -> None:
        line = tr(
            "needs {needed} GiB, {free} GiB are free",
            needed=f"{need.total / 2**30:.1f}",
            free=f"{free / 2**30:.1f}",
        )
        report(Routine(line), None)

    target = pick_device(device)
    number_type = pick_dtype(dtype, target)
    on_gpu = target.type == "cuda"
    stage = (COMPILING if _begin_triton_cache(target) else PREPARING) if on_gpu else None

    def open_team() -> Team:
        return open_cpu_kernels(threads, report, notice or (lambda line: None))

    if threads is not None and not on_gpu:
        torch.set_num_threads(threads)
    how = plan(config, target, number_type, open_team)
    weights = load_model(
        folder,
        device=target,
        dtype=number_type,
        context=window,
        progress=lambda fraction: report(LOADING, fraction),
        preflight=tell_memory,
        packing=how.packing,
        int8_cache=int8_cache,
    )
    kernels = pack(weights, how, number_type)
    if kernels.why_not and notice:
        kind = "CUDA" if on_gpu else "CPU"
        reason = kernels.why_not
        notice(
            tr(
                "the fast {kind} kernels are not used, but {path}: {reason}",
                kind=kind,
                path=kernels.name,
                reason=reason,
            )
        )
    if kernels.weights and stage:
        report(stage, None)
    quant = f"Int{config.quant.bits}" if config.quant else "unquantised"
    number = str(number_type).removeprefix("torch.")
    cache = ", int8 KV cache" if int8_cache else ""
    description = f"{quant}, {target} {number}{cache}, {kernels.name}"
    try:
        engine = Engine(kernels.model, context=window, weights=kernels.weights, int8_cache=int8_cache)
    except QwenchatError:
        raise
    except Exception as error:
        if kernels.weights is None:
            raise
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(
            tr(
                "the CUDA kernels cannot be compiled: {reason}",
                reason=f"{type(error).__name__}: {first_line}",
            ),
            tr("use --device cpu"),
        ) from error
    return NativeBackend(
        engine,
        tokenizer,
        defaults,
        name=name or folder.name,
        description=description,
    )


def open_cpu_kernels(threads: int | None, report: Progress, notice: Callable[[str], None]) -> Team:
    """The threads that run the CPU kernels, which are compiled into our cache folder the first time.

    Raises:
        CannotCompile: there are none, for the reason that it tells.
    """
    from qwenchat.engine.cpu import compiled
    from qwenchat.engine.cpu.cores import default_threads
    from qwenchat.engine.cpu.team import Team

    count = threads or default_threads()
    enter, name = compiled.open_kernels(
        _kernels_folder(), compiling=lambda: report(COMPILING, None), notice=notice
    )
    return Team(enter, count, name)


def _kernels_folder() -> Path:
    """Where the CPU kernels are kept: in our cache folder, unless somebody has said where Numba's go."""
    from qwenchat import folders

    named = os.environ.get("NUMBA_CACHE_DIR")
    return Path(named) / "qwenchat" if named else folders.cache_dir() / "kernels"


def _read_tokenizer(folder: Path, vocab_size: int) -> QwenTokenizer | None:
    """The folder's tokenizer, held against the model; None where there is none, to run ids alone."""
    if not any(folder.glob("*.tiktoken")):
        return None
    tokenizer = QwenTokenizer.from_folder(folder)
    if tokenizer.n_vocab > vocab_size:
        raise CheckpointError(
            f"{folder}: the vocabulary has {tokenizer.n_vocab} tokens, the model {vocab_size}",
            "the .tiktoken file belongs to another checkpoint",
        )
    return tokenizer


def pick_device(name: str) -> torch.device:
    """The device of that name: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        raise UsageError(f"the device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UsageError(tr("there is no device {name} here", name=name), tr("use --device cpu"))
    return torch.device(name)


def _begin_triton_cache(device: torch.device) -> bool:
    """Lets Triton keep what it compiles in our cache folder, unless somebody has said where.

    Returns:
        Whether nothing is there yet. (A version's kernels for a kind of GPU have a folder of their own.)
    """
    import torch

    from qwenchat import __version__, folders

    if not os.environ.get(_TRITON_CACHE):
        major, minor = torch.cuda.get_device_capability(device)
        kind = f"{__version__}-torch{torch.__version__}-sm{major}{minor}"
        os.environ[_TRITON_CACHE] = str(folders.cache_dir() / "triton" / kind)
    try:
        return not any(Path(os.environ[_TRITON_CACHE]).iterdir())
    except OSError:
        return True


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name, one of :data:`DTYPES`; "auto" for what the device does well.

    Raises:
        UsageError: there is no such dtype.
    """
    import torch

    if name not in DTYPES:
        raise UsageError(f"the dtype is {name!r}, expected {', '.join(DTYPES)}")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.float16
    # Half the bytes are half the time, but only where the processor multiplies bfloat16 itself.
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _pick_context(asked: int | None, trained: int, most: int) -> int:
    if asked is None:
        return trained
    if not 1 <= asked <= most:
        raise UsageError(
            tr("--context {asked} is out of range", asked=asked),
            tr("this model takes 1 to {most} tokens", most=most),
        )
    return asked
