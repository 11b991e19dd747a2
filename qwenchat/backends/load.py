"""From a model's name to a backend that answers: :func:`load`, the way in from Python.

Owns what "auto" does where a model does not fit, and which backend reads a checkpoint. Everything heavy is
imported when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, get_args

from qwenchat.backends.request import Progress, Request
from qwenchat.backends.torch_import import no_garbage_collection
from qwenchat.errors import CheckpointError, InsufficientMemoryError, Names, Phrase, UsageError
from qwenchat.settings import choices

if TYPE_CHECKING:
    from qwenchat.backends.local import Model
    from qwenchat.engine.cpu.team import Team

Arguments = ParamSpec("Arguments")

BACKENDS = _, NATIVE, HUGGINGFACE = get_args(choices.Backend)


def load(
    model: str | Path = "auto",
    *,
    checkpoint: str | Path = "Qwen/Qwen-7B-Chat-Int8",
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    context: int | None = None,
    kv_cache: str = "auto",
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
        backend: "native" for our own engine, which reads the first Qwen generation; "huggingface" for
            transformers; or "auto" for the one that reads the checkpoint.
        device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.
        dtype: "float32", "bfloat16", "float16", or "auto" for what the device does well.
        context: tokens of prompt and reply together; by default what the model was trained on.
        kv_cache: "auto" to hold keys and values in the dtype, "int8" in half of float16's memory.
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
    from qwenchat.engine.config import read_model_config
    from qwenchat.models import catalog

    def load_named(name: str | Path, window: int | None = context, backend: str = backend) -> Model:
        folder = catalog.locate(name, progress=progress)
        return load_folder(
            folder,
            name=str(name),
            backend=backend,
            device=device,
            dtype=dtype,
            context=window,
            kv_cache=kv_cache,
            threads=threads,
            settle=settle,
            complete=complete,
            progress=progress,
            notice=notice,
        )

    def fall_back(reason: str) -> Model:
        folder = catalog.locate(catalog.DEMO, progress=progress)
        most = read_model_config(folder).max_position_embeddings
        short = context is not None and context > most
        told = Phrase("answering with {model}", model=catalog.demo_title())
        if short:
            told = Phrase(
                "answering with {model} and its {tokens} tokens", model=catalog.demo_title(), tokens=most
            )
        tell(Phrase("{message}; {hint}", message=reason, hint=told))
        # The backend that was named is for the checkpoint: the built-in model has one alone.
        return load_named(catalog.DEMO, most if short else context, "auto")

    if str(model) != catalog.AUTO:
        return load_named(model)
    tell = notice or (lambda line: None)
    if catalog.find(checkpoint) is None:
        return fall_back(Phrase("{model} is not on this machine", model=checkpoint))
    try:
        loaded = load_named(checkpoint)
    except InsufficientMemoryError as error:
        if not settle:
            raise
        reason = Phrase("{path}: {reason}", path=checkpoint, reason=error.message)
    else:
        tell(Phrase("answering with {model}", model=checkpoint))
        return loaded
    return fall_back(reason)


def _lets_go(load: Callable[Arguments, Model]) -> Callable[Arguments, Model]:
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
@_lets_go
def load_folder(
    folder: Path,
    *,
    name: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    context: int | None = None,
    kv_cache: str = "auto",
    threads: int | None = None,
    settle: bool = True,
    complete: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Model:
    """Loads the checkpoint in ``folder``, or a GGUF file; arguments and errors are those of :func:`load`."""
    request = Request(
        name=name or folder.name,
        device=device,
        dtype=dtype,
        context=context,
        kv_cache=kv_cache,
        threads=threads,
        settle=settle,
        complete=complete,
        progress=progress or (lambda stage, fraction: None),
        notice=notice or (lambda line: None),
    )
    if _reader(folder, backend) == NATIVE:
        from qwenchat.backends.native.load import load_native

        return load_native(folder, request)
    from qwenchat.backends.huggingface.load import load_huggingface

    return load_huggingface(folder, request)


def check_folder(folder: Path, request: Request, *, backend: str, open_team: Callable[[], Team]) -> None:
    """Goes the way of :func:`load_folder` up to the weights.

    Args:
        open_team: opens the CPU kernels, or raises CannotCompile.

    Raises:
        QwenchatError: as loading it would, or chatting with it.
    """
    if _reader(folder, backend) == NATIVE:
        from qwenchat.backends.native.load import check_native

        check_native(folder, request, open_team)
    else:
        from qwenchat.backends.huggingface.load import check_huggingface

        check_huggingface(folder, request)


def check_readable(folder: Path, request: Request, *, backend: str = "auto") -> None:
    """Goes the way of :func:`load_folder` up to the weights, whatever memory there is.

    Raises:
        QwenchatError: as chatting with it would.
    """
    from qwenchat.engine.cpu.compiled import CannotCompile

    def no_kernels() -> Team:
        raise CannotCompile("nothing is to be computed")

    with suppress(InsufficientMemoryError):
        check_folder(folder, request, backend=backend, open_team=no_kernels)


def _reader(folder: Path, backend: str) -> str:
    """The backend that reads a checkpoint, which must be the one that was asked for."""
    if backend not in BACKENDS:
        raise UsageError("the backend is {value!r}, expected {names}", value=backend, names=Names(BACKENDS))
    reads, kind = backend_for(folder)
    if backend not in ("auto", reads):
        raise CheckpointError(
            "{name}: the {backend} backend does not read {kind}",
            "leave out --backend: {other} reads it",
            in_chat="start qwenchat without --backend: {other} reads it",
            name=folder,
            backend=backend,
            kind=kind,
            other=reads,
        )
    return reads


def backend_for(folder: Path) -> tuple[str, str]:
    """The backend that reads a checkpoint: ours the first Qwen generation, transformers everything else.

    Returns:
        Its name, and what the checkpoint is, in a word.

    Raises:
        CheckpointError: there is no readable ``config.json``, or there are several GGUF files.
    """
    from qwenchat.backends.huggingface.files import gguf_file, refuse_several
    from qwenchat.files.json_values import read_json

    if gguf_file(folder) is not None:
        return HUGGINGFACE, "GGUF"
    refuse_several(folder)
    kind = read_json(folder / "config.json").get("model_type")
    return NATIVE if kind == "qwen" else HUGGINGFACE, f"model_type {kind!r}"
