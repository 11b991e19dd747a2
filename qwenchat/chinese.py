"""What qwenchat says, in Chinese: each English text of the code and its translation."""

from __future__ import annotations

from collections.abc import Mapping

CHINESE: Mapping[str, str] = {}
