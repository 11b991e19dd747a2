"""The map of the package, which help(qwenchat) shows."""

from __future__ import annotations

import re
from pathlib import Path

import qwenchat

PACKAGE = Path(qwenchat.__file__).parent


def names_on_the_map() -> set[str]:
    """The modules and folders that the map names, a folder within another as "engine/cpu"."""
    names: set[str] = set()
    outer = ""
    for line in (qwenchat.__doc__ or "").partition("From Python")[0].splitlines():
        if entry := re.match(r" {4}(\w+) +\S", line):
            outer = entry[1]
            names.add(outer)
        elif entry := re.match(r" {6}(\w+(?:, \w+)*) +\S", line):
            names.update(f"{outer}/{name}" for name in entry[1].split(", "))
    return names


def test_the_map_names_every_wing_and_every_module_beside_them() -> None:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")}
    wings = {name for name in folders - {"."} if name.count("/") < 2}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "interrupts"}  # told with __main__
    assert names_on_the_map() == wings | modules
