"""JSON from untrusted files: a limit on its values, no lone surrogates, one kind of error.

A byte of JSON can become thirty in memory: ``{}`` is two of them. So values are counted before any is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qwenchat.errors import CheckpointError, Phrase
from qwenchat.files.opening import NotAFile, TooLarge, read_file, reason_of

MOST_BYTES = 16 * 2**20
MOST_JSON_VALUES = 2**19
"""Of a JSON file of a checkpoint, and the values in it: more than any published one, some times over."""
_BEGIN_A_VALUE = (b",", b":", b"[", b"{")


def count(data: bytes) -> int:
    """Count the values of a JSON text, nested ones included, at most; it may be a part of one."""
    return sum(map(data.count, _BEGIN_A_VALUE))


def check(data: bytes, most: int) -> None:
    """Looks at a JSON text that a library will read.

    Args:
        most: how many values it may hold, those within others too. Signs in texts count as if they began
            one: it is a bound on memory, some 200 bytes each.

    Raises:
        ValueError: it has more.
    """
    if count(data) >= most:
        raise ValueError(Phrase("it holds more than {n} values", n=most))


def loads(data: bytes, most: int) -> Any:
    """The value that a JSON text holds.

    Args:
        data: in UTF-8, UTF-16 or UTF-32.
        most: as of :func:`check`.

    Raises:
        ValueError: it is not JSON, has more values, is nested too deeply, or holds half of a character
            (a surrogate), which no file of text can hold and nothing can be done with.
    """
    check(data, most)
    try:
        value = json.loads(data.decode(json.detect_encoding(data)))
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(Phrase("it is nested too deeply")) from None
    except UnicodeEncodeError:
        raise ValueError(Phrase("it contains a lone surrogate")) from None
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, is not JSON, or is not an object.
    """
    try:
        value = loads(read_file(path, MOST_BYTES)[0], MOST_JSON_VALUES)
    except FileNotFoundError:
        raise CheckpointError(Phrase("{path} is missing", path=path), _a_checkpoint()) from None
    except (NotAFile, IsADirectoryError):
        raise CheckpointError(Phrase("{path} is not a file", path=path), _a_checkpoint()) from None
    except TooLarge:
        raise CheckpointError(
            "{path} is larger than {limit} MiB, expected a small JSON file", path=path, limit=MOST_BYTES >> 20
        ) from None
    except OSError as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    except ValueError as error:  # not UTF-8, not JSON, or too much of it
        raise CheckpointError("{path} is not valid JSON: {reason}", path=path, reason=error) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            "{path} holds a JSON {kind}, expected an object", path=path, kind=type(value).__name__
        )
    return value


def _a_checkpoint() -> str:
    return Phrase("a checkpoint is a folder with config.json in it")
