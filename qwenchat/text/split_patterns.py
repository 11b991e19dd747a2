"""The regular expressions that split a text into pieces, within which tokens are merged; by family."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SIGNS_AND_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

SPLIT_PATTERNS = {
    # All generations of Qwen.
    "qwen": rf"{_WORDS}\p{{N}}{_SIGNS_AND_SPACES}",
    "llama3": rf"{_WORDS}\p{{N}}{{1,3}}{_SIGNS_AND_SPACES}",
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # GPT-2's pattern applied between single digits, which are cut out first: so white space
    # before a digit stays in one piece, as it does before the end.
    "smollm": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
}

# tiktoken's regular expression engine aborts on white space without end (a million spaces; 400,000
# were well), so runs are cut to this length beforehand.
_MAX_WHITESPACE_RUN = 50_000
_WHITESPACE_RUN = re.compile(rf"\s{{{_MAX_WHITESPACE_RUN}}}")


def cut_whitespace(text: str) -> Iterator[str]:
    """``text`` in one piece, unless white space in it runs longer than the splitter can stand."""
    start = 0
    for run in _WHITESPACE_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]
