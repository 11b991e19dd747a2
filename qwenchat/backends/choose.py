"""The choice that "auto" makes: the checkpoint of the settings if it is here and fits, else the built-in
model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from qwenchat.backends.request import LoadRequest
from qwenchat.errors import InsufficientMemoryError, Phrase
from qwenchat.models import catalog

Answer = TypeVar("Answer")


def choose_model(request: LoadRequest, attempt: Callable[[LoadRequest, str | None], Answer]) -> Answer:
    """Attempts to answer with the model that a request means, and where that may be, with another one.

    Loading a model and looking whether it could be loaded choose in the same way; what they attempt differs.

    Args:
        attempt: is given the request for the one model to answer with, and why that is the built-in one and
            not the checkpoint; None where nothing was fallen back from.

    Returns:
        What the attempt that did it gave.

    Raises:
        InsufficientMemoryError: the attempt's, where another model may not be taken instead.
    """
    if request.name != catalog.AUTO:
        return attempt(request, None)
    checkpoint = request.checkpoint
    if catalog.find(checkpoint) is None:
        reason = Phrase("{model} is not downloaded", model=checkpoint)
    else:
        try:
            return attempt(replace(request, model=checkpoint), None)
        except InsufficientMemoryError as error:
            if not request.settle:
                raise
            reason = Phrase("{path}: {reason}", path=checkpoint, reason=error.message)
    # The backend that was named is for the checkpoint: the built-in model has one alone.
    return attempt(replace(request, model=catalog.DEMO, backend="auto"), reason)


def within_demo(request: LoadRequest, folder: Path) -> tuple[LoadRequest, Phrase]:
    """The request for the built-in model that was fallen back to, and what it is, in words.

    It has no longer a context than that model takes, though more was asked for.

    Args:
        folder: of the built-in model.
    """
    from qwenchat.engine.config import read_model_config

    most = read_model_config(folder).max_position_embeddings
    if request.context is None or request.context <= most:
        return request, Phrase("answering with {model}", model=catalog.demo_title())
    told = Phrase("answering with {model} and its {tokens} tokens", model=catalog.demo_title(), tokens=most)
    return replace(request, context=most), told
