"""Where compiled kernels are kept: the CPU's and Triton's, in our cache folder unless somebody says where."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.backends.request import COMPILING
from qwenchat.models.progress import Progress

if TYPE_CHECKING:
    import torch

    from qwenchat.engine.cpu.team import Team


_TRITON_CACHE = "TRITON_CACHE_DIR"


def open_cpu_kernels(threads: int | None, report: Progress, notice: Callable[[str], None]) -> Team:
    """The threads that run the CPU kernels, which are compiled into our cache folder the first time.

    Raises:
        CannotCompile: there are none, for the reason that it tells.
    """
    from qwenchat.engine.cpu import compiled
    from qwenchat.engine.cpu.cores import default_threads
    from qwenchat.engine.cpu.team import Team

    count = threads or default_threads()
    enter, name = compiled.open_kernels(
        _kernels_folder(), compiling=lambda: report(COMPILING, None), notice=notice
    )
    return Team(enter, count, name)


def _kernels_folder() -> Path:
    """The folder of the CPU kernels: our cache folder, unless NUMBA_CACHE_DIR names another."""
    from qwenchat import paths

    named = os.environ.get("NUMBA_CACHE_DIR")
    return Path(named) / "qwenchat" if named else paths.cache_dir() / "kernels"


def open_triton_cache(device: torch.device) -> bool:
    """Lets Triton keep what it compiles in our cache folder, unless somebody has said where.

    Returns:
        Whether nothing is there yet. (A version's kernels for a kind of GPU have a folder of their own.)
    """
    import torch

    from qwenchat import paths
    from qwenchat.version import __version__

    if not os.environ.get(_TRITON_CACHE):
        major, minor = torch.cuda.get_device_capability(device)
        kind = f"{__version__}-torch{torch.__version__}-sm{major}{minor}"
        os.environ[_TRITON_CACHE] = str(paths.cache_dir() / "triton" / kind)
    try:
        return not any(Path(os.environ[_TRITON_CACHE]).iterdir())
    except OSError:
        return True
