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
) -> None:
    """Benchmark a model, beside the machine's ceilings and the model card's figures.

    The replies begin at a context of one token, with the sampler on and nothing that ends them, as the
    card's do. The tables go to stdout, the last line is JSON.
    """
    context: Context = ctx.obj
    flags = context.flags
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
