"""The parts of a GGUF file that was split: which they are, by their names and by what they say of themselves.

``llama-gguf-split`` names them NAME-00001-of-00003.gguf and so on. The first has the metadata of the whole;
in each ``split.no`` is its number, counted from 0, and ``split.count`` how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from qwenchat.errors import CheckpointError, quoted

_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)
_MOST_PARTS = 512


def parts_of(path: Path, metadata: Mapping[str, object]) -> list[Path]:
    """All parts of the whole that a file is a part of, or the file alone.

    Raises:
        CheckpointError: its name does not say which part it is, or another is missing.
    """
    count = _count(path, metadata)
    if count == 1:
        return [path]
    name = _NAME.fullmatch(path.name)
    if name is None or int(name[3]) != count or not 1 <= int(name[2]) <= count:
        raise CheckpointError(
            "{name}: this is one of {count} parts of a GGUF file, and its name does not say which",
            "name the parts as they were: NAME-00001-of-00003.gguf and so on",
            name=path,
            count=count,
        )
    parts = [path.with_name(f"{name[1]}-{n:05}-of-{name[3]}{name[4]}") for n in range(1, count + 1)]
    for number, part in enumerate(parts, 1):
        if not part.exists():
            raise CheckpointError(
                "{name}: part {number} of {count} of this GGUF file is missing: {file}",
                "fetch it, and put it beside the others",
                name=path,
                number=number,
                count=count,
                file=part.name,
            )
    return parts


def first_parts(paths: list[Path]) -> list[Path]:
    """Of several GGUF files those that stand for a model: of one that was split the first part alone."""
    names = {path.name for path in paths}
    return [path for path in paths if _begin(path) == path.name or _begin(path) not in names]


def check_part(path: Path, metadata: Mapping[str, object], number: int, count: int) -> None:
    """Raises CheckpointError where a part says that it is another than its name says."""
    said = metadata.get("split.no"), metadata.get("split.count")
    if said != (number, count):
        raise CheckpointError(
            "{name}: this is named part {number} of {count}, and it says split.no {no} and split.count {of}",
            "its name is another's; fetch it again",
            name=path,
            number=number + 1,
            count=count,
            no=quoted(said[0]),
            of=quoted(said[1]),
        )


def _begin(path: Path) -> str:
    """The name of the first part; the file's own where it is no part."""
    name = _NAME.fullmatch(path.name)
    return path.name if name is None else f"{name[1]}-00001-of-{name[3]}{name[4]}"


def _count(path: Path, metadata: Mapping[str, object]) -> int:
    count = metadata.get("split.count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST_PARTS:
        raise CheckpointError(
            "{name}: split.count is {value}, expected a whole number up to {most}",
            name=path,
            value=quoted(count),
            most=_MOST_PARTS,
        )
    return max(1, count)
