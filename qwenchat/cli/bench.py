"""``qwenchat bench``: how fast a model is on this machine, and how far from what the machine could do.

Owns the command's options. The order of the work is ``bench.run``'s, what is measured ``bench.protocol``'s,
how it is told ``bench.tables``'s.

stdout gets the tables and, as its last line, one JSON object; what is being done goes to stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from qwenchat.cli import completion
from qwenchat.cli.completion import models_to, weight_formats, words_of
from qwenchat.cli.context import Context
from qwenchat.cli.flags import Device
from qwenchat.cli.output import print_object, print_tables
from qwenchat.errors import UsageError


def _option(help_text: str, *names: str, metavar: str, **extra: Any) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, show_default=False, **extra)


_RANDOM_WEIGHTS = (
    "Random weights in the shapes of a published model: qwen-7b-chat-int8, qwen2.5-7b-int4, qwen3-8b-bf16."
)
_FORMATS = "Formats of the random weights, one after the other: int8,int4,fp16."
_CONTEXTS = "Time a token after prompts of so many tokens too: 2048,8192,32768."
_MODEL = "A checkpoint folder, a known name, or demo."
_KV_CACHE = "KV cache format: auto or int8."
_DTYPE = "Number format: auto, float32, bfloat16 or float16, or several."
_TOKENS = "New tokens of each reply; by default 2048,8192 on a GPU and 128 on a CPU."
_LEAST_CONTEXT = 16
_REMOTE = "Time a model on a server: tokens/s, the wait for the first token, and its tail."
_LOAD = "Time a process from its start to its first token; random weights go to disk for it."


def bench(
    ctx: typer.Context,
    model: Annotated[
        str | None, _option(_MODEL, "--model", "-m", metavar="MODEL", autocompletion=models_to("load"))
    ] = None,
    random_weights: Annotated[
        str | None, _option(_RANDOM_WEIGHTS, metavar="NAME", autocompletion=models_to("imitate"))
    ] = None,
    formats: Annotated[str | None, _option(_FORMATS, metavar="LIST", autocompletion=weight_formats)] = None,
    device: Device = None,
    dtype: Annotated[str | None, _option(_DTYPE, metavar="LIST", autocompletion=words_of("dtype"))] = None,
    tokens: Annotated[str | None, _option(_TOKENS, metavar="LIST")] = None,
    contexts: Annotated[str | None, _option(_CONTEXTS, metavar="LIST")] = None,
    kv_cache: Annotated[
        str | None, _option(_KV_CACHE, metavar="KIND", autocompletion=words_of("kv_cache"))
    ] = None,
    threads: Annotated[
        int | None, _option("Threads on a CPU; by default its physical cores.", metavar="COUNT")
    ] = None,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Time each kernel of the decode step too.")
    ] = False,
    load: Annotated[bool, typer.Option("--load", help=_LOAD)] = False,
    folder: Annotated[
        Path | None, _option("Where --load writes random weights, and leaves them.", metavar="FOLDER")
    ] = None,
    chart: Annotated[
        Path | None, _option("Draw the speed against the context into an SVG file.", metavar="FILE")
    ] = None,
    peer: Annotated[bool, typer.Option("--peer", help="Time transformers on the same weights too.")] = False,
    remote: Annotated[
        str | None, _option(_REMOTE, metavar="URL#MODEL", autocompletion=completion.remotes)
    ] = None,
    concurrency: Annotated[
        str | None, _option("With --remote, replies waited for at once: 1,8,32.", metavar="LIST")
    ] = None,
    key_file: Annotated[Path | None, _option("With --remote, a file with its key.", metavar="FILE")] = None,
) -> None:
    """Benchmark a model, beside the machine's ceilings and the model card's figures.

    The replies begin at a context of one token, with the sampler on and nothing that ends them, as the
    card's do. The tables go to stdout, the last line is JSON.
    """
    context: Context = ctx.obj
    flags = context.flags
    if remote is not None:
        given = (model, random_weights, formats, device, dtype, contexts, kv_cache, threads, folder, chart)
        if any(value is not None for value in given) or kernels or load or peer:
            raise UsageError(
                "--remote takes --concurrency, --tokens and --key-file alone", "leave the others out"
            )
        _bench_remote(context, remote, _numbers("--concurrency", concurrency or "1"), tokens, key_file)
        return
    if concurrency is not None or key_file is not None:
        raise UsageError("--concurrency and --key-file are for --remote")
    if random_weights is not None and model is not None:
        raise UsageError("--model and --random-weights cannot be combined", "choose one")
    if random_weights is None and formats is not None:
        raise UsageError("--formats is for --random-weights", "a checkpoint has a format of its own")
    if random_weights is not None and peer:
        raise UsageError("--peer needs a checkpoint", "-m demo is one")
    if chart is not None and not chart.absolute().parent.is_dir():
        raise UsageError("there is no folder {folder}", folder=chart.absolute().parent)
    lengths = None if tokens is None else _numbers("--tokens", tokens)
    positions = () if contexts is None else _numbers("--contexts", contexts, least=_LEAST_CONTEXT)
    name = model or flags.settings["model"] or "demo"
    if random_weights is None:
        from qwenchat.models import catalog

        catalog.check(name)  # before torch is imported

    import shlex

    from qwenchat.bench import report, run, tables
    from qwenchat.bench.chart import draw
    from qwenchat.files.text import write_text
    from qwenchat.terminal import console

    def tell(line: str) -> None:
        if not flags.settings["quiet"]:
            console.say(line, "progress")

    request = run.Request(
        model=name,
        random_weights=random_weights,
        formats=formats,
        device=device or flags.settings["device"] or "auto",
        dtypes=_words(dtype or flags.settings["dtype"] or "auto"),
        tokens=lengths,
        contexts=positions,
        kv_cache=kv_cache or flags.settings["kv_cache"] or "auto",
        threads=flags.settings["threads"] if threads is None else threads,
        kernels=kernels,
        load=load,
        folder=folder,
        peer=peer,
    )
    command = shlex.join(["qwenchat", *sys.argv[1:]])
    figures = run.measure(request, command=command, tell=tell)
    print_tables(*tables.tables(figures))
    if chart is not None:
        write_text(chart, draw(*report.lines(figures)), overwrite=True)
    print_object(report.figures(figures))


def _bench_remote(
    context: Context, name: str, at_once: tuple[int, ...], tokens: str | None, key_file: Path | None
) -> None:
    """Times a model on a server."""
    import shlex
    from contextlib import closing
    from dataclasses import replace

    from qwenchat.backends.remote.load import load_remote
    from qwenchat.bench import served, served_tables
    from qwenchat.i18n.language import told, tr
    from qwenchat.settings.remotes import remote_of

    (length,) = _numbers("--tokens", tokens or "128")[:1]
    found = remote_of(name, context.settings.remotes)
    if found is None:
        raise UsageError("{name} is no URL of a server, and no remote of the config file", name=name)
    if key_file is not None:
        found = replace(found, key_file=str(key_file), key_env="")
    with closing(load_remote(found, notice=context.say)) as model:
        endless = model.without_end()
        context.say(tr("warming up"))
        served.warm(model)
        levels = []
        for count in at_once:
            context.say(tr("{count} at once", count=count))
            levels.append(served.measure(model, count, length))
            for failure in levels[-1].failures[:1]:
                context.say(told(failure))
        title = tr("{value} ({origin})", value=model.name, origin=model.description)
        print_tables(*served_tables.tables(title, levels, length))
        if not endless:
            context.say(tr("the server ends replies by itself: they may be shorter"))
        command = shlex.join(["qwenchat", *sys.argv[1:]])
        print_object(served_tables.figures(model.name, model.description, levels, length, command))
    if not any(level.replies for level in levels):
        raise levels[0].failures[0]


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",")))


def _numbers(option: str, text: str, least: int = 1) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < least:
        raise UsageError(
            "{option} is {text}, expected numbers from {least} with commas between them",
            option=option,
            text=repr(text),
            least=least,
        )
    return numbers
