"""Completion of model names: offers those alone that the command will accept.

Each function is for one thing to be done with a model. All look, and fetch nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.errors import QwenchatError
from qwenchat.models import about, catalog, places, published, records, removal


def to_load() -> Iterator[str]:
    """Models that can be chatted with now; the built-in model is made if need be."""
    return _once(catalog.AUTO, catalog.DEMO, *_here())


def to_show() -> Iterator[str]:
    """Models that can be shown: the published chats, and what is here."""
    return _once(*_here(), *_published())


def to_pull() -> Iterator[str]:
    """Models to fetch, or to verify: the published chats, and others that were pulled."""
    found = (place.name for place in places.everywhere() if place.source != "folder")
    pulled = (record.name for record in records.everything())
    return _once(catalog.DEMO, *_published(), *filter(places.is_name, (*found, *pulled)))


def to_check() -> Iterator[str]:
    """Models that have a folder, complete or not."""
    begun = (place.name for place in places.everywhere() if places.is_folder(place.folder))
    return _once(*_here(), *filter(places.is_name, begun))


def to_quantize() -> Iterator[str]:
    """The checkpoints that are here in float, and that our own engine reads."""
    for place in catalog.on_this_machine():
        said = about.of(place.folder)
        floats = (said.format, said.quantization) == ("safetensors", None)
        if floats and said.model_type in ARCHITECTURES:
            yield place.name


def to_export() -> Iterator[str]:
    """The checkpoints of the first Qwen generation that are here, in float or quantised."""
    for place in catalog.on_this_machine():
        said = about.of(place.folder)
        if (said.model_type, said.format) == ("qwen", "safetensors"):
            yield place.name


def to_imitate() -> Iterator[str]:
    """The published chats, whose shapes can be filled with random weights."""
    return (known.short for known in published.KNOWN)


def to_remove() -> Iterator[str]:
    """Models that lie, complete or not, where this program may change anything."""
    built_in = [catalog.DEMO] if catalog.place_of(catalog.DEMO) else []
    names = (*(place.name for place in places.everywhere()), *(each.name for each in records.everything()))
    return _once(*built_in, *filter(_is_removable, dict.fromkeys(names)))


def _is_removable(name: str) -> bool:
    try:
        removal.plan(name)
    except QwenchatError:
        return False
    return catalog.path_of(name) is None


def _here() -> Iterable[str]:
    return (place.name for place in catalog.on_this_machine())


def _published() -> Iterable[str]:
    return (known.name for known in published.KNOWN)


def _once(*names: str) -> Iterator[str]:
    """Each name once, and of the published chats the short ones behind all others."""
    yield from dict.fromkeys(names)
    yield from (known.short for known in published.KNOWN if known.name in names)
