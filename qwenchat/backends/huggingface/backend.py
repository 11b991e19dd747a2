"""A chat model of the Hub on transformers. How it gets into memory is in ``load``, beside this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenchat.backends.local import Model

if TYPE_CHECKING:
    from qwenchat.backends.huggingface.runner import HubRunner
    from qwenchat.engine.generate import Engine


class HuggingFaceBackend(Model):
    """A loaded model of the Hub.

    Attributes:
        engine: token ids in, token ids out.
    """

    engine: Engine[HubRunner]
