"""What a table under ``[remotes]`` may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qwenchat.engine.sampling import Range
from qwenchat.settings.kinds import LARGEST, InRange, Kind, Text, Truth

FIELDS: Mapping[str, Kind] = {
    "url": Text(pattern=r"https?://[^\s#?/@]+(/[^\s#?]*)?"),
    "model": Text(1),
    "key_file": Text(1),
    "key_env": Text(pattern=r"[A-Za-z_][A-Za-z0-9_]*"),
    "ca_file": Text(1),
    "context": InRange(Range("a whole number, 16 or more", 16, LARGEST, whole=True)),
    "silence": InRange(Range("a number of seconds, 1 or more", 1, 10**6)),
    "allow_http": Truth(),
}
"""Its fields; what they are for says :class:`~qwenchat.settings.remotes.Remote`."""
NEEDED = ("url",)


def is_name(name: str) -> bool:
    """Whether a remote can have a name: neither a path nor a URL, nor a model's that is built in."""
    return re.fullmatch(r"[\w-]{1,64}", name) is not None and name not in ("auto", "demo")
