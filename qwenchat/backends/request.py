"""What loading a model has in common, whatever runs it: the request and its stages.

Owns the values that a request may have. Knows neither checkpoints nor backends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from qwenchat.engine.cpu.layout import MOST_THREADS
from qwenchat.errors import CheckpointError, Names, Phrase, UsageError
from qwenchat.models.progress import Progress
from qwenchat.settings import choices

if TYPE_CHECKING:
    from qwenchat.engine.generation_config import GenerationDefaults
    from qwenchat.settings.schema import Settings


class QuietStage(str):
    """A stage that every load passes through: to be seen while it lasts, but no news in a log."""

    __slots__ = ()


IMPORTING, LOADING, PREPARING = map(QuietStage, ("importing torch", "loading weights", "preparing kernels"))
COMPILING = "compiling kernels, once"
KV_CACHES, LOOKUPS = get_args(choices.KVCache), get_args(choices.PromptLookup)
DEFAULT_CHECKPOINT = "Qwen/Qwen-7B-Chat-Int8"
"""What "auto" stands for, where it is on this machine and fits its memory."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """How a model is to be loaded: the argument of everything that loads one, or looks whether it could.

    The fields are the arguments of :func:`qwenchat.backends.load.load`.

    Raises:
        UsageError: a field has a value that it cannot have, whatever the model.
    """

    model: str | Path
    checkpoint: str | Path = DEFAULT_CHECKPOINT
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    context: int | None = None
    kv_cache: str = "auto"
    prompt_lookup: choices.PromptLookup = "auto"
    threads: int | None = None
    settle: bool = True
    complete: bool = False
    progress: Progress = lambda stage, fraction: None
    notice: Callable[[str], None] = lambda line: None

    @classmethod
    def of(cls, settings: Settings, model: str, **more: Any) -> LoadRequest:
        """The request for a model as the settings want it.

        Args:
            more: fields that are no settings.
        """
        return cls(
            model,
            checkpoint=settings.checkpoint,
            backend=settings.backend,
            device=settings.device,
            dtype=settings.dtype,
            context=settings.context,
            kv_cache=settings.kv_cache,
            prompt_lookup=settings.prompt_lookup,
            threads=settings.threads,
            **more,
        )

    @property
    def name(self) -> str:
        """The model's, as it was asked for."""
        return str(self.model)

    def __post_init__(self) -> None:
        if self.kv_cache not in KV_CACHES:
            raise UsageError(
                "the KV cache is {value!r}, expected {names}",
                value=self.kv_cache,
                names=Names(KV_CACHES),
            )
        if self.prompt_lookup not in LOOKUPS:
            raise UsageError(
                "prompt lookup is {value!r}, expected {names}",
                value=self.prompt_lookup,
                names=Names(LOOKUPS),
            )
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            hint = Phrase("give 1 to {most}", most=MOST_THREADS)
            raise UsageError(Phrase("--threads {count} is out of range", count=self.threads), hint)


def base_model(what: str) -> CheckpointError:
    """The error for a checkpoint that is asked to chat and was not made for it.

    Args:
        what: how that shows, beginning with the model's name.
    """
    return CheckpointError(
        what,
        "it is a base model, which goes on with texts: qwenchat ask --complete; "
        "look for its chat or instruct version",
        in_chat="it is a base model, which does not chat; look for its chat or instruct version",
    )


def tell_unfit(defaults: GenerationDefaults, request: LoadRequest) -> None:
    """Tells what a checkpoint says of sampling and cannot be."""
    for line in defaults.unfit:
        request.notice(Phrase("{problem}: left out", problem=line))


def tell_shortened(request: LoadRequest, tokens: int, most: int) -> None:
    """Tells that the context is shorter than the model's, for want of memory."""
    request.notice(Phrase("memory limits the context to {tokens} of {most} tokens", tokens=tokens, most=most))


def pick_context(asked: int | None, trained: int, most: int) -> int:
    """The context window: what was asked for, else what the model was trained on.

    Raises:
        UsageError: it is more than ``most``, or nothing.
    """
    if asked is None:
        return trained
    if not 1 <= asked <= most:
        raise UsageError(
            "--context {asked} is out of range",
            "this model takes 1 to {most} tokens",
            in_chat="this model takes 1 to {most} tokens: start qwenchat with as many",
            asked=asked,
            most=most,
        )
    return asked


def tell_no_system(request: LoadRequest, system: str | None) -> None:
    """Tells where a system prompt goes that the model has no place for."""
    if system is None:
        request.notice(Phrase("this model has no system prompts: yours is put before the first message"))
