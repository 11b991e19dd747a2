"""Chat in the terminal with local Qwen models.

The map of the package; each module's docstring says what it owns.

Where a command goes::

    __main__      the entry point
    cli           the commands: parse, call; cli_sessions has those about sessions, cli_models about
                  models, cli_quantize quantising, cli_doctor the doctor, cli_setup config, cli_bench
                  the benchmark; cli_parser tells what makes no sense, cli_help is --help; options has the
                  shared flags, cli_output what they share in telling
    start         what a chat begins with: settings, a session, flags over both
    oneshot       ask and pipes: one question, one answer
    exits         the one place where an error becomes a line and an exit code; interrupts hears Ctrl-C
                  from the first line to the last, signals says what it means to a reply
    terminal      what a person sees: the REPL, its commands, the live view

What a chat is::

    chat          pure values: messages, events, ChatML, the tree of turns, the context window
    turn          one turn, whoever shows it: fitted, streamed, kept
    sessions      the folder of session files; session_file is the format, session_listing finds and
                  searches, session_lines tells, exports makes documents (webpage is the HTML), atomic and
                  textfile write; locks keeps other processes out, typed_lines is the history of the prompt
    fences        the code in a Markdown text; dialect, the marks within its lines

Where tokens come from::

    backends      the protocol between a chat and a model, and what is behind it: our engine, or
                  transformers for any other chat model of the Hub
    engine        token ids in, token ids out: the checkpoint reader, the model, sampling; in cpu and kernels
                  what computes on a CPU and on a GPU
    models        checkpoints on disk: names, places, pulling, checking, quantising, the built-in
                  model; model_lines tells them, meter how a transfer gets on
    doctor        what this machine makes of a chat
    tokenizer     text to token ids and back
    bench         speed and fidelity, measured

What all use::

    caseless      texts compared as people do; normal_forms, Unicode's
    config        where settings come from; settings which there are, config_file reads the file, folders
                  says where files are kept
    errors        everything that can go wrong, as one family
    language      English or Chinese; chinese has the texts, chinese_help those of --help

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
