"""Chat in the terminal with local Qwen models.

The map of the package: a folder is a subject; each module says in its first lines what it owns.

Where a command goes::

    __main__      the entry point
    interrupts    Ctrl-C, heard from the first line to the last
    cli           the command line, a file a command; app puts them together; context, flags, completion,
                  output and exit_codes are what they share
    terminal      what a person sees: loop and chat; commands, input (the prompt), render (the live view);
                  console and theme; sanitize is the one gate for a model's text

What a chat is::

    chat          pure values: messages, conversation (a tree), the context window, ChatML, a turn; backend
                  is the protocol between a chat and a model
    sessions      chats on the disk: store, format, listing, autosave, resume, export
    settings      schema says which there are, sources where they come from, file reads the config file

Where tokens come from::

    backends      load and what it is asked: native runs our engine, huggingface transformers for other models
    models        checkpoints: names, places, checking, removal; hub fetches them, builtin makes the built-in
                  one, quantize makes Int8 and Int4 of floats
    engine        token ids in, token ids out: generate is the loop, model the architecture, sampling; weights
                  reads checkpoints, cpu and cuda compute
    tokenizer     text to token ids and back
    doctor        what a chat depends on, looked at
    bench         speed, measured against the machine's ceilings

What all use::

    errors        everything that can go wrong, as one family; phrases, which whoever tells them translates
    i18n          English and Chinese
    files         files opened with limits, written whole or not at all, locked
    paths         the folders where files are kept
    text          texts compared as people do
    humanize      sizes and times for a person
    version       the version

From Python, :func:`load` is the way in::

    import qwenchat

    model = qwenchat.load("demo")
    for event in model.chat([{"role": "user", "content": "hi"}], temperature=0):
        print(event.text, end="")

Importing this module loads nothing heavy; :func:`load` does.
"""

from __future__ import annotations

from qwenchat.version import __version__

TYPE_CHECKING = False  # typing's own is imported in 5 ms, in which Ctrl-C is not heard yet
if TYPE_CHECKING:
    from qwenchat.backends.load import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    if name == "load":
        from qwenchat.backends.load import load

        return load
    raise AttributeError(f"module 'qwenchat' has no attribute {name!r}")
