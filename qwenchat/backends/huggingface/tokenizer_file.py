"""What a tokenizer.json may hold, looked at before the tokenizers library makes something of it.

The library takes minutes for a control token of megabytes, and a kilobyte for each word; it has no limits.
"""

from __future__ import annotations

import json
import re
from typing import Any

from qwenchat import json_files
from qwenchat.language import tr

# Far above any published tokenizer's: of the largest, 260,000 words and 6,400 added tokens.
_MOST_VALUES = 5 * 2**19
_MOST_NAMED = 2**19
_MOST_ADDED, _MOST_LETTERS = 2**14, 2**18
_LIST = re.compile(r'"added_tokens"\s*:\s*(?=\[)')
_ESCAPED_LETTER = re.compile(rb"\\u00(?:[46][0-9a-f]|[57][0-9a])", re.IGNORECASE)


def check(data: bytes) -> None:
    """Looks at the content of a tokenizer.json.

    Raises:
        ValueError: it holds more than any tokenizer does, or is not JSON where its added tokens stand.
    """
    json_files.check(data, _MOST_VALUES)
    if data.count(b":") > _MOST_NAMED:  # one for each word
        raise ValueError(tr("it holds more than {n} values", n=_MOST_NAMED))
    if _ESCAPED_LETTER.search(data):  # as nobody writes it, so that the name below would not be found
        raise ValueError(tr("it has plain letters as escapes"))
    text = data.decode()
    for found in _LIST.finditer(text):
        try:
            added, _ = json.JSONDecoder().raw_decode(text, found.end())
        except RecursionError:
            raise ValueError(tr("it is nested too deeply")) from None
        if len(added) > _MOST_ADDED or sum(map(_letters, added)) > _MOST_LETTERS:
            raise ValueError(tr("it has more control tokens than any tokenizer"))


def _letters(token: Any) -> int:
    return len(str(token.get("content", ""))) if isinstance(token, dict) else 0
