"""GGUF files of a repository, which often has many: which of them are one model, and what each is called.

Owns the form of "org/model:Q4_K_M". The kind is what the files' names end with, as the Hub's other programs
have it: ``model-q4_k_m.gguf``, or ``model-q4_k_m-00001-of-00002.gguf`` and its other parts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SUFFIX = ".gguf"
PROPOSED = "Q4_K_M"
"""The kind that is proposed where a repository has it."""
_KIND = re.compile(
    r"(?:.*[-._])?((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|B?F16|FP16|F32|FP32|MXFP4\w*))", re.IGNORECASE | re.ASCII
)
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.DOTALL)
_ASKED = re.compile(r"[\w.-]{1,190}", re.ASCII)
_NO_MODELS = ("mmproj", "imatrix")  # what they are beside one
_SAME = {"FP16": "F16", "FP32": "F32"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One model among the GGUF files of a repository.

    Attributes:
        kind: what it is called there: "Q4_K_M"; the files' name where that does not tell them apart.
        stem: of the files' names.
        files: their names, the first part first.
    """

    kind: str
    stem: str
    files: tuple[str, ...]

    def is_called(self, asked: str) -> bool:
        """True if it is what somebody asked for, in any case."""
        return asked.lower() == self.stem.lower() or _plain(asked) == _plain(self.kind)


def split(name: str) -> tuple[str, str]:
    """A repository's name, and the kind behind a colon; "" where there is none."""
    repository, _, kind = name.partition(":")
    return repository, kind.upper() if _KIND.fullmatch(kind) else kind


def is_kind(text: str) -> bool:
    """True if a text can be what a choice is called."""
    return bool(_ASKED.fullmatch(text))


def choices(names: Iterable[str]) -> list[Choice]:
    """The models among the files of these names."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        stem = name[: -len(SUFFIX)]
        if name.lower().endswith(SUFFIX) and stem and not name.lower().startswith(_NO_MODELS):
            part = _PART.fullmatch(stem)
            groups.setdefault(part[1] if part else stem, []).append(name)
    kinds = {stem: _kind_of(stem) for stem in groups}
    times = Counter(kinds.values())
    return [
        Choice(kinds[stem] if kinds[stem] and times[kinds[stem]] == 1 else stem, stem, tuple(files))
        for stem, files in groups.items()
    ]


def parts(name: str) -> list[str]:
    """All parts of the file that one is the first part of; the file alone where it is no part."""
    part = _PART.fullmatch(name[: -len(SUFFIX)])
    if part is None or not 1 <= int(part[3]) <= 512:
        return [name]
    return [
        f"{part[1]}-{number:05}-of-{part[3]}{name[-len(SUFFIX) :]}" for number in range(1, int(part[3]) + 1)
    ]


def _kind_of(stem: str) -> str:
    found = _KIND.fullmatch(stem)
    return found[1].upper() if found else ""


def _plain(kind: str) -> str:
    return _SAME.get(kind.upper(), kind.upper())
