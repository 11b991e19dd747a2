"""A model on our own engine. How it gets into memory is in ``load``, beside this."""

from __future__ import annotations

from qwenchat.backends.local import Model


class NativeBackend(Model):
    """A loaded model on our own engine."""
