"""Names of models and the folders they stand for on this machine.

Knows the built-in model and the published Qwen chat checkpoints by name, and where a checkpoint may
lie: our own data folder, or the Hugging Face cache. Looks, never fetches; only the built-in model is
made on first use.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from qwenchat import folders
from qwenchat.errors import ModelNotFoundError
from qwenchat.language import tr
from qwenchat.models import demo

AUTO = "auto"
DEMO = "demo"

KNOWN = tuple(
    f"Qwen/Qwen-{size}-Chat{form}" for size in ("7B", "1_8B", "14B", "72B") for form in ("-Int8", "-Int4", "")
)
"""The first-generation Qwen chats that this engine reads."""

Progress = Callable[[str, float | None], None]


def demo_title() -> str:
    """What the built-in model is, in words."""
    return tr("the built-in model ({name})", name="SmolLM2-135M-Instruct")


def locate(model: str | Path, *, progress: Progress | None = None) -> Path:
    """The checkpoint folder that ``model`` stands for; makes the built-in model if it is not there yet.

    Args:
        model: a folder, a known name, or "demo".
        progress: told what is done, while the built-in model is fetched.

    Raises:
        ModelNotFoundError: nothing on this machine has that name.
        DownloadError: the built-in model could not be fetched.
    """
    if str(model) == DEMO:
        return demo.ensure(made_models_dir(), progress=progress)
    folder = find(model)
    if folder is None:
        raise _not_found(str(model))
    return folder


def check(model: str) -> None:
    """Looks for a model without loading it.

    Raises:
        ModelNotFoundError: nothing has that name.
    """
    if model not in (AUTO, DEMO) and find(model) is None:
        raise _not_found(model)


def find(model: str | Path) -> Path | None:
    """The folder of a checkpoint that is on this machine, or None."""
    try:
        folder = Path(model).expanduser()
        if folder.is_dir():
            return folder
    except (OSError, RuntimeError, ValueError):  # no such user, too long, no permission, a null byte
        return None
    name = full_name(str(model))
    if name is None:
        return None
    ours = checkpoints_dir() / name
    return ours if _holds_checkpoint(ours) else _in_hub_cache(name)


def full_name(name: str) -> str | None:
    """A known checkpoint's full name from any way to write it, or None: "qwen-7b-chat-int8" will do."""
    wanted = name.lower().removeprefix("qwen/").replace("1.8b", "1_8b")
    return next((known for known in KNOWN if known.lower() == f"qwen/{wanted}"), None)


def checkpoints_dir() -> Path:
    """Where checkpoints of the user's lie, by their full names."""
    return folders.data_dir() / "models"


def made_models_dir() -> Path:
    """Where models lie that this program made and can make again."""
    return folders.cache_dir() / "models"


def _in_hub_cache(name: str) -> Path | None:
    """The snapshot that the Hub's own cache holds as ``main``."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repo = cache / f"models--{name.replace('/', '--')}"
    try:
        revision = (repo / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        return None
    snapshot = repo / "snapshots" / revision
    return snapshot if revision and _holds_checkpoint(snapshot) else None


def _holds_checkpoint(folder: Path) -> bool:
    """Whether there are weights; a cache may hold a config alone."""
    return (folder / "config.json").exists() and any(folder.glob("*.safetensors"))


def _not_found(name: str) -> ModelNotFoundError:
    known = full_name(name)
    if known:
        return ModelNotFoundError(
            tr("{model} is not on this machine", model=known),
            tr("put the checkpoint into {folder}, or give a folder", folder=checkpoints_dir() / known),
        )
    short = {k.removeprefix("Qwen/").lower(): k for k in KNOWN} | {DEMO: DEMO}
    close = difflib.get_close_matches(name.lower().removeprefix("qwen/"), short, n=1)
    if close:
        hint = tr("did you mean {name}?", name=short[close[0]])
    else:
        hint = tr("give a checkpoint folder, a known name, or demo")
    return ModelNotFoundError(tr("there is no model or folder called {name}", name=name), hint)
