"""Chat in the terminal with local Qwen models.

The map of the package, from what a user calls down to what all stand on. A folder imports those below it
and none above; each module's docstring says what it owns.

What a user calls::

    __main__      the entry point; interrupts hears Ctrl-C from its first line to the last
    cli           the command line: app parses and calls, one file a command; context has what they share
                  (flags, settings, JSON, quiet), completion what a shell offers, exit_codes turns an error
                  into a line and a code

What a person sees and asks for::

    terminal      the chat: loop reads a line and runs it, chat is what the commands act on; console, notices
                  and theme, and sanitize, the one gate before a terminal
      input       the prompt: its line, keys, pastes, history, completion, attached files
      render      Markdown as a stream, and the live view
      commands    the commands of the chat, /help among them
    server        a model over HTTP, in the protocols of OpenAI, Anthropic, ollama, a file for each: app has
                  the paths, exchange answers a request, guard says who is let in
    doctor        what this machine and this installation make of a chat
    bench         the speed of a model, measured, beside what the machine could do
    evals         what a model knows and can, measured: the model card's tables; task is what one is made of,
                  run asks, records keeps, report tells

What they stand on::

    sessions      chats as files: store, file, format, listing and search, autosave, export, resume
    backends      from a model's name to a backend that answers: load, request, devices; local is what the
                  two engines share
      prompts     a model's own chat template, run in a sandbox: messages to token ids
      door        a model that a server of this user's has loaded already, through a Unix socket
      remote      a model on a server of OpenAI's protocol, over HTTP
      native      our own engine, for Qwen's generations, Llama and Mistral, from safetensors and GGUF
      huggingface transformers, for any other chat model of the Hub, without running its code
    tools         what a model can call: the forms of prompt and reply, adapter puts one before a backend;
                  interpreter runs Python for it, in a worker that keeps variables
      hf_agent    the agent of transformers.tools: tasks done by code that the model writes
    settings      which there are (schema), where they come from (sources), the config file
    models        checkpoints on disk: catalog knows names, places where they lie; checking, removing
      hub         pulling from the Hub and from ModelScope
      builtin     the small built-in model, made from a GGUF file
      quantize    an Int8 or Int4 checkpoint from a float one
      export      a first-generation Qwen as a Qwen2 folder or a GGUF file
      writing     what both write: piece by piece, so that it goes on where it stopped

What a chat and a model are::

    chat          pure values: messages and events, the tree of turns, the context window, ChatML; backend is
                  the protocol between a chat and a model, turn one turn of it
    engine        token ids in, token ids out: loop is the one loop, generate and shared drive it, for one
                  reply at a time and for several; runner is what it asks of whatever runs a model,
                  prefix_cache what a prompt reuses; the architecture, the KV cache, sampling, the plan of
                  kernels
      weights     from a checkpoint's files to a device
      cpu, cuda   the kernels of either, and what runs a token through them
    tokenizer     Qwen's BPE: text to token ids and back
    gguf          GGUF files: the container and its parts, the tensors' formats, the vocabulary

What all use::

    errors        everything that can go wrong, as one family, in English
    sandbox       a program run confined: policy in, result out; Landlock and namespaces, else what there is
      trial       attempts to get out of it, each of which it must deny
    i18n          whoever tells, translates: English or Chinese
    files         opening, locking, writing whole or not at all; JSON from untrusted files
    text          comparing as people do
    humanize      sizes, times and ranges as a person reads them
    paths         where files are kept
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
