"""Names of models and what they stand for on this machine.

Knows the built-in model, the published chats in all their spellings, any repository's name, and folders and
GGUF files by their path. Looks, never fetches; only the built-in model is made on first use. Where things lie
is ``places``'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path

from qwenchat import paths
from qwenchat.errors import ModelNotFoundError, Names, Phrase
from qwenchat.models import gguf_choices, places, published
from qwenchat.models.builtin import demo
from qwenchat.models.places import LocalCheckpoint
from qwenchat.models.progress import Progress

AUTO = "auto"
DEMO = "demo"


def demo_title() -> str:
    """The built-in model's name for a person."""
    return Phrase("the built-in model ({name})", name="SmolLM2-135M-Instruct")


def locate(
    model: str | Path,
    *,
    progress: Progress | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> Path:
    """Find what ``model`` names: a checkpoint's folder or a GGUF file; makes the built-in model if need be.

    Args:
        model: a folder, a GGUF file, a model's name, or "demo".
        progress: told what is done, while the built-in model is fetched.
        notice: told if it is there, but as an older version made it.

    Raises:
        ModelNotFoundError: nothing on this machine has that name.
        DownloadError: the built-in model could not be fetched.
    """
    if str(model) == DEMO:
        return demo.ensure(made_models_dir(), progress=progress, notice=notice)
    path = find(model)
    if path is None:
        raise not_found(str(model))
    return path


def check(model: str) -> None:
    """Looks for a model without loading it.

    Raises:
        ModelNotFoundError: nothing has that name.
    """
    if model not in (AUTO, DEMO) and find(model) is None:
        raise not_found(model)


def find(model: str | Path) -> Path | None:
    """The folder of a whole checkpoint, or the GGUF file, that is on this machine; else None."""
    path = path_of(model)
    if path is not None:
        return path
    place = place_of(str(model))
    return place.folder if place else None


def place_of(model: str) -> LocalCheckpoint | None:
    """Find a complete model on this machine; None if there is none. The built-in one is not made."""
    if model == DEMO:
        folder = demo.is_cached(made_models_dir())
        return LocalCheckpoint(DEMO, folder, "demo") if folder else None
    path = path_of(model)
    if path is not None:
        path = path.absolute()
        known = next((place for place in places.everywhere() if place.folder == path), None)
        return known or LocalCheckpoint(path.name or str(path), path, "folder")
    name = full_name(model) or (model if places.is_plain(model) else None)  # ours need no organisation
    if name is None:
        return None
    whole = next((place for place in places.find(name) if place.complete), None)
    only = places.kinds(name) if whole is None and places.is_name(name) else []
    return only[0] if len(only) == 1 else whole


def path_of(model: str | Path) -> Path | None:
    """The folder or GGUF file that a text is the path of; None if there is none."""
    try:
        path = Path(model).expanduser()
        is_model = path.is_dir() or (path.suffix.lower() == ".gguf" and path.is_file())
    except (OSError, RuntimeError, ValueError):  # no such user, too long, no permission, a null byte
        return None
    return path if is_model and str(model) else None


def full_name(model: str) -> str | None:
    """The "org/model" that a text means: a published chat in any spelling, or a repository's name.

    Either may have the kind of a GGUF file behind it: "org/model:Q4_K_M". To the Hub capitals are the same as
    small letters: what is here is meant by both.
    """
    repository, kind = gguf_choices.split(model)
    if ":" in model and not gguf_choices.is_kind(kind):
        return None
    known = published.of(repository)
    if known is None and not places.is_name(repository):
        return None
    name = known.name if known else repository
    all_here = {gguf_choices.split(place.name)[0] for place in places.everywhere()}
    here = {each for each in all_here if each.lower() == name.lower()}
    name = name if name in here else min(here, default=name)
    return f"{name}:{kind}" if kind else name


def on_this_machine() -> Iterator[LocalCheckpoint]:
    """Every whole checkpoint that is found: the built-in model, ours, the Hub's and ModelScope's caches."""
    built_in = place_of(DEMO)
    if built_in:
        yield built_in
    yield from (place for place in places.everywhere() if place.complete)


def made_models_dir() -> Path:
    """The folder of models that this program made and can make again."""
    return paths.cache_dir() / "models"


def not_found(model: str) -> ModelNotFoundError:
    """The error for a model that is not on this machine."""
    if model == DEMO:  # no name of the Hub, but one that can be fetched
        return _not_here(Phrase("{model} is not downloaded", model=DEMO), DEMO)
    name = full_name(model)
    if name:
        if here := places.kinds(name) if places.is_name(name) else []:
            return ModelNotFoundError(
                Phrase("{model} is here as {names}", model=name, names=Names(place.name for place in here)),
                Phrase("give one of these names"),
            )
        message = Phrase("{model} is not downloaded", model=name)
        if any(not place.complete and places.is_folder(place.folder) for place in places.find(name)):
            message = Phrase("{model} is not fully downloaded", model=name)
        known = published.of(name)
        return _not_here(message, f"{name}:{known.kind}" if known and known.kind else name)
    close = near(model)
    if close:
        hint = Phrase("did you mean {name}?", name=close)
    else:
        hint = Phrase("give a checkpoint folder, a known name, or demo")
    return ModelNotFoundError(Phrase("there is no model or folder called {name}", name=model), hint)


def _not_here(message: str, name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        message,
        Phrase("qwenchat models pull {name} downloads it", name=name),
        in_chat=Phrase("download it outside the chat: qwenchat models pull {name}", name=name),
    )


def near(model: str) -> str | None:
    """The name of a published chat, or "demo", that somebody may have meant."""
    names = {**published.names(), DEMO: DEMO}
    close = difflib.get_close_matches(model.lower().replace("_", "."), names, n=1)
    return names[close[0]] if close else None
