"""Timing of a device's work: with its own events on a GPU, with the clock on a CPU.

Knows nothing of what the work is.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

Clock = Callable[[], float]
"""Seconds since some moment in the past."""


def best_seconds(
    work: Callable[[], object], device: torch.device, *, repeats: int, clock: Clock = perf_counter
) -> float:
    """The shortest of ``repeats`` runs, after one that does not count."""
    work()
    return min(_seconds(work, device, clock) for _ in range(repeats))


def graph_seconds(
    launch: Callable[[], object],
    device: torch.device,
    *,
    replays: int,
    repeats: int,
    reset: Callable[[], object],
) -> float:
    """Seconds of what ``launch`` puts on the current stream, replayed as a CUDA graph; the best of some rows.

    Args:
        launch: kernels alone, nothing that waits for them.
        replays: in a row, timed as one, so that the start of a graph hides behind the one before it.
        repeats: rows.
        reset: brings the buffers back to where the first launch finds them; before every row, not timed.
    """
    with torch.inference_mode(), torch.cuda.device(device):
        reset()
        # Once outside the graph: that compiles the kernels, and loads them.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            launch()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            launch()

        def row() -> None:
            for _ in range(replays):
                graph.replay()

        seconds = []
        for _ in range(repeats + 1):
            reset()
            torch.cuda.synchronize()
            seconds.append(_seconds(row, device) / replays)
        return min(seconds[1:])


def wait(device: torch.device) -> None:
    """Waits until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(work: Callable[[], object], device: torch.device, clock: Clock = perf_counter) -> float:
    if device.type != "cuda":
        started = clock()
        work()
        return clock() - started
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3
