"""The program and what is around it: versions, settings, folders, the Hub, packages that some commands need.

Loads nothing heavy but torch, to see whether it can be.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from qwenchat import paths
from qwenchat.doctor.findings import Finding
from qwenchat.errors import InsufficientMemoryError, cannot_import
from qwenchat.files.opening import reason_of
from qwenchat.humanize import size_text
from qwenchat.i18n.language import tr
from qwenchat.models.hub import client
from qwenchat.models.hub.errors import endpoint
from qwenchat.models.places import hub_cache
from qwenchat.settings import sources
from qwenchat.version import __version__

if TYPE_CHECKING:
    from qwenchat.settings.sources import ResolvedSettings


_FULL = 50 * 10**6
"""Bytes; a disk with less is as good as full: no model fits on it, and a long session may not."""


def program() -> Finding:
    """The program, and what it runs on."""
    version, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    text = f"qwenchat {__version__}, Python {version}, {system}"
    facts = {"qwenchat": __version__, "python": version, "system": system, "executable": sys.executable}
    return Finding("program", "good", text, facts=facts)


def torch() -> Finding:
    """The engine's packages; bad where torch cannot be imported."""
    try:
        from torch import __version__ as version
    except Exception as error:  # noqa: BLE001 - a broken installation fails in many ways
        told = cannot_import(error) if isinstance(error, ImportError) else None
        if isinstance(told, InsufficientMemoryError):
            return Finding("torch", "bad", told.message, told.hint)
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return Finding(
            "torch",
            "bad",
            tr("torch cannot be imported: {reason}", reason=reason),
            tr("install it again: pip install --force-reinstall torch"),
        )
    versions = {"torch": str(version)} | {name: _version(name) for name in ("numba", "triton")}
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return Finding("torch", "good", text, facts=versions)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def settings(resolved: ResolvedSettings) -> Finding:
    """The settings' sources, and those that are not the defaults."""
    path = paths.config_path()
    rows = sources.describe(resolved)
    changed = {key: (value, origin) for key, value, origin in rows if origin != sources.DEFAULT}
    there = str(path) if path.exists() else tr("{path} not found; using the defaults", path=path)
    said = [there]
    for key, (value, origin) in changed.items():
        said.append(tr("{value} ({origin})", value=f"{key} = {value}", origin=origin))
    unknown = sources.unknown_variables()
    facts = {
        "path": str(path),
        "exists": path.exists(),
        "settings": {key: {"value": value, "origin": origin} for key, value, origin in rows},
        "unknown_variables": unknown,
    }
    return Finding(
        "settings", "note" if unknown else "good", tr("; ").join(said), tr("; ").join(unknown), facts
    )


def places() -> Iterator[Finding]:
    """The folders; without ``sessions`` no chat is saved, without the others no model is fetched."""
    places = {
        "sessions": paths.data_dir() / "sessions",
        "cache": paths.cache_dir(),
        "checkpoints": hub_cache(),
    }
    for area, place in places.items():
        try:
            nearest = next(folder for folder in (place, *place.parents) if folder.exists())
            free = shutil.disk_usage(nearest).free
        except OSError as error:
            yield Finding(area, "bad", tr("{path}: {reason}", path=place, reason=reason_of(error)))
            continue
        facts = {"folder": str(place), "exists": place.exists(), "free_bytes": free}
        elsewhere = tr("QWENCHAT_HOME and HF_HOME name other places")
        if not os.access(nearest, os.W_OK | os.X_OK):
            yield Finding(area, "bad", tr("{folder} cannot be written", folder=place), elsewhere, facts)
        elif free < _FULL:
            text = tr("{folder} is on a full disk: {free} free", folder=place, free=size_text(free))
            yield Finding(area, "bad", text, elsewhere, facts)
        else:
            text = tr("{folder}, {free} free", folder=place, free=size_text(free))
            yield Finding(area, "good", text, facts=facts)


def the_hub() -> Finding:
    """Reach the Hub: true if checkpoints can be fetched."""
    reason = client.reachable()
    token = bool(os.environ.get("HF_TOKEN"))
    facts = {"endpoint": endpoint(), "reachable": reason is None, "reason": reason, "token": token}
    if reason is None:
        return Finding("hub", "good", tr("{endpoint} answers", endpoint=endpoint()), facts=facts)
    text = tr("{endpoint} cannot be reached: {reason}", endpoint=endpoint(), reason=reason)
    return Finding("hub", "note", text, tr("what is on this machine works without it"), facts)


def auto_gptq() -> Finding:
    """auto-gptq, which quantising needs and nothing else."""
    version = _version("auto_gptq")
    facts = {"auto-gptq": version}
    if version:
        return Finding("quantize", "good", f"auto-gptq {version}", facts=facts)
    hint = tr("it has wheels for Linux and Windows on x86-64, up to Python 3.11")
    text = tr("auto-gptq is not installed, so qwenchat quantize does not work")
    return Finding("quantize", "note", text, hint, facts)
