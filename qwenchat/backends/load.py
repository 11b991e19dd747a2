"""From a model's name to a backend that answers: :func:`load`, the way in from Python.

Owns which backend reads a checkpoint; which checkpoint "auto" is, says ``choose``. Everything heavy is
imported when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar, get_args

from qwenchat.backends.request import DEFAULT_CHECKPOINT, LoadRequest
from qwenchat.backends.torch_import import no_garbage_collection
from qwenchat.errors import (
    CheckpointError,
    InsufficientMemoryError,
    Names,
    NotComputedError,
    Phrase,
    UsageError,
)
from qwenchat.models.progress import Progress
from qwenchat.settings import choices

if TYPE_CHECKING:
    from qwenchat.backends.local import Model
    from qwenchat.engine.cpu.team import Team

Arguments = ParamSpec("Arguments")
T = TypeVar("T")

BACKENDS = _, NATIVE, HUGGINGFACE = get_args(choices.Backend)


def load(
    model: str | Path = "auto",
    *,
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    context: int | None = None,
    kv_cache: str = "auto",
    prompt_lookup: choices.PromptLookup = "auto",
    threads: int | None = None,
    settle: bool = True,
    complete: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Model:
    """Loads a model.

    Args:
        model: a checkpoint folder, a known name, "demo" for the built-in model, or "auto" for
            ``checkpoint`` if it is on this machine and fits its memory, else the built-in one.
        checkpoint: a folder or a known name.
        backend: "native" for our own engine, which reads Qwen's generations, Llama and Mistral; "huggingface"
            for transformers; or "auto" for our own where it can, else transformers.
        device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.
        dtype: "float32", "bfloat16", "float16", or "auto" for what the device does well.
        context: tokens of prompt and reply together; by default what the model was trained on.
        kv_cache: "auto" to hold keys and values in the dtype, "int8" in half of float16's memory.
        prompt_lookup: whether a reply is guessed ahead where it repeats what was said: "auto" where that is
            faster and changes no reply, "on" wherever it can be, or "off".
        threads: on a CPU; by default as many as there are physical cores for this process.
        settle: where memory does not suffice, settle for less: a shorter context, or with "auto" the
            built-in model. Else that is an error.
        complete: go on with a text instead of answering in a chat, which base models can do as well: the one
            message that the model then takes is its prompt as it is.
        progress: told of each stage.
        notice: told in one line what "auto" chose.

    Raises:
        ModelError: there is no such model, it is unusable, or memory does not suffice.
        UsageError: an argument has a value it cannot have.
    """
    return load_requested(
        LoadRequest(
            model,
            checkpoint=checkpoint,
            backend=backend,
            device=device,
            dtype=dtype,
            context=context,
            kv_cache=kv_cache,
            prompt_lookup=prompt_lookup,
            threads=threads,
            settle=settle,
            complete=complete,
            progress=progress or (lambda stage, fraction: None),
            notice=notice or (lambda line: None),
        )
    )


def load_requested(request: LoadRequest) -> Model:
    """Loads the model that a request means; errors are those of :func:`load`."""
    from qwenchat.backends.choose import choose_model, within_demo
    from qwenchat.backends.devices import predict_room
    from qwenchat.models import catalog, fitting

    def attempt(wanted: LoadRequest, reason: str | None) -> Model:
        first = wanted.name == catalog.DEMO and catalog.place_of(catalog.DEMO) is None
        folder = catalog.locate(wanted.model, progress=wanted.progress, notice=wanted.notice)
        if reason is not None:
            wanted, told = within_demo(wanted, folder)
            request.notice(Phrase("{message}; {hint}", message=reason, hint=told))
        loaded = load_folder(folder, wanted)
        if reason is None and request.name == catalog.AUTO:
            request.notice(Phrase("answering with {model}", model=wanted.model))
        if first and (offer := fitting.next_step(predict_room("cpu"))):
            request.notice(offer)
        return loaded

    return choose_model(request, attempt)


def _drop_frames(load: Callable[Arguments, Model]) -> Callable[Arguments, Model]:
    """Of a load that memory does not suffice for, nothing stays in memory while its error is kept."""

    @wraps(load)
    def loading(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Model:
        try:
            return load(*args, **kwargs)
        except InsufficientMemoryError as error:
            message, hint, in_chat = error.message, error.hint, error.in_chat
        # Another one: the first holds the frames that it went through, and with them what had been loaded.
        raise InsufficientMemoryError(message, hint, in_chat=in_chat)

    return loading


@no_garbage_collection()
@_drop_frames
def load_folder(folder: Path, request: LoadRequest) -> Model:
    """Loads the checkpoint in ``folder``, or a GGUF file; errors are those of :func:`load`."""
    from qwenchat.backends.native.load import load_native

    def huggingface() -> Model:
        from qwenchat.backends.huggingface.load import load_huggingface

        return load_huggingface(folder, request)

    return _by_its_reader(folder, request, lambda: load_native(folder, request), huggingface)


def check_folder(folder: Path, request: LoadRequest, *, open_team: Callable[[], Team]) -> str | None:
    """Goes the way of :func:`load_folder` up to the weights.

    Args:
        open_team: opens the CPU kernels, or raises CannotCompile.

    Returns:
        The system prompt that the model has of itself; None where it has no place for one.

    Raises:
        QwenchatError: as loading it would, or chatting with it.
    """
    from qwenchat.backends.native.load import check_native

    def huggingface() -> str | None:
        from qwenchat.backends.huggingface.load import check_huggingface

        return check_huggingface(folder, request)

    return _by_its_reader(folder, request, lambda: check_native(folder, request, open_team), huggingface)


def check_readable(folder: Path, request: LoadRequest) -> None:
    """Goes the way of :func:`load_folder` up to the weights, whatever memory there is.

    Raises:
        QwenchatError: as chatting with it would.
    """
    from qwenchat.engine.cpu.compiled import CannotCompile

    def no_kernels() -> Team:
        raise CannotCompile("nothing is to be computed")

    with suppress(InsufficientMemoryError):
        check_folder(folder, request, open_team=no_kernels)


def _by_its_reader(
    folder: Path, request: LoadRequest, native: Callable[[], T], huggingface: Callable[[], T]
) -> T:
    """What the backend that reads a checkpoint makes of it; with "auto" the next one, where ours cannot."""
    readers = _readers(folder, request.backend)
    if readers[0] == HUGGINGFACE:
        return huggingface()
    try:
        return native()
    except NotComputedError as error:
        if HUGGINGFACE not in readers:
            raise
        reason = error.message
    request.notice(Phrase("{reason}; transformers runs it, which is slower", reason=reason))
    return huggingface()


def _readers(folder: Path, backend: str) -> tuple[str, ...]:
    """The backends that may read a checkpoint, the one to try first before the other: those asked for."""
    if backend not in BACKENDS:
        raise UsageError("the backend is {value!r}, expected {names}", value=backend, names=Names(BACKENDS))
    reads, kind = backends_for(folder)
    if backend == "auto":
        return reads
    if backend not in reads:
        raise CheckpointError(
            "{name}: the {backend} backend does not read {kind}",
            "leave out --backend: {other} reads it",
            in_chat="start qwenchat without --backend: {other} reads it",
            name=folder,
            backend=backend,
            kind=kind,
            other=reads[0],
        )
    return (backend,)


def backends_for(folder: Path) -> tuple[tuple[str, ...], str]:
    """The backends that may read a checkpoint: ours the architectures that it knows, transformers most.

    What both may read, ours is to try first: whether it computes it shows in more than the model's type. What
    has a vocabulary of the first Qwen generation, as the built-in model does, is for ours alone.

    Returns:
        Their names, and what the checkpoint is, in a word.

    Raises:
        CheckpointError: there is no readable ``config.json``, or there are several GGUF files.
    """
    from qwenchat.backends.huggingface.files import gguf_file, refuse_several
    from qwenchat.backends.native.place import has_own_vocabulary
    from qwenchat.engine.architectures import ARCHITECTURES
    from qwenchat.files.json_values import read_json

    if gguf_file(folder) is not None:
        return (NATIVE, HUGGINGFACE), "GGUF"
    refuse_several(folder)
    kind = read_json(folder / "config.json").get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        return (HUGGINGFACE,), f"model_type {kind!r}"
    if not has_own_vocabulary(folder, kind):
        return (NATIVE, HUGGINGFACE), f"model_type {kind!r}"
    vocabulary = "" if kind == "qwen" else " with a .tiktoken vocabulary"
    return (NATIVE,), f"model_type {kind!r}{vocabulary}"
