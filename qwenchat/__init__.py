"""Chat in the terminal with local Qwen models.

The map of the package; each package's docstring says what it owns:

    cli         the command line: parse, call, turn errors into one line and an exit code
    config      the settings and where each came from
    errors      everything that can go wrong, as one family
    tokenizer   text to token ids and back
    chat        pure values: messages, events, ChatML, the context window
    backends    where tokens come from
    engine      token ids in, token ids out: the checkpoint reader, the model, sampling
    models      checkpoints on disk: names, folders, the built-in model
    terminal    what a person sees
    bench       speed and fidelity, measured

From Python, :func:`load` is the way in::

    import qwenchat

    model = qwenchat.load("demo")
    for event in model.chat([{"role": "user", "content": "hi"}], temperature=0):
        print(event.text, end="")

Importing this module loads nothing heavy; :func:`load` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwenchat.backends.native import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    if name == "load":
        from qwenchat.backends.native import load

        return load
    raise AttributeError(f"module 'qwenchat' has no attribute {name!r}")
