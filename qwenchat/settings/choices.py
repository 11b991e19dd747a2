"""The words that settings are one of: once for the check, the help and whoever acts on them.

Imports nothing but typing, so that a backend need not load the settings to know them.
"""

from __future__ import annotations

from typing import Literal

Backend = Literal["auto", "native", "huggingface"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
KVCache = Literal["auto", "int8"]
PromptLookup = Literal["auto", "on", "off"]
Overflow = Literal["drop", "error"]
Theme = Literal["terminal", "dark", "light", "mono"]
Keys = Literal["emacs", "vi"]
Language = Literal["auto", "en", "zh"]
