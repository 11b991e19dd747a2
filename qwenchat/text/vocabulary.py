"""A byte-level vocabulary in one piece of memory, which opens in a millisecond however many tokens it has.

Owns the layout: a header, the ids in order with where each token's bytes begin, the same tokens in the order
of their bytes to be searched by halves, and the bytes. Knows nothing of files or of special tokens.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate
from typing import Literal

# The numbers lie as this machine has them: what another kind of machine wrote is made again.
_MAGIC = b"qwenchat vocabulary 1 " + sys.byteorder.encode().ljust(10)
_UINT32: Literal["I"] = "I"


class Damaged(ValueError):
    """What was kept is not what was written."""


class Vocabulary:
    """Tokens' bytes and their ids.

    Args:
        packed: what :meth:`of` packed.

    Attributes:
        packed: the same, to be kept.

    Raises:
        Damaged: it is something else.
    """

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        head = len(_MAGIC) + 8
        if packed[: len(_MAGIC)] != _MAGIC or len(packed) < head:
            raise Damaged("not a vocabulary of this version")
        checksum, count = memoryview(packed)[len(_MAGIC) : head].cast(_UINT32)
        if zlib.crc32(memoryview(packed)[head - 4 :]) != checksum:
            raise Damaged("not all that was written")
        numbers = memoryview(packed)[head : head + 4 * (3 * count + 1)].cast(_UINT32)
        if (
            not count
            or len(numbers) != 3 * count + 1
            or numbers[2 * count] != len(packed) - head - numbers.nbytes
        ):
            raise Damaged("not as it was packed")
        self._ids = numbers[:count]
        self._starts = numbers[count : 2 * count + 1]
        self._sorted = numbers[2 * count + 1 :]
        self._bytes = packed[head + numbers.nbytes :]

    @classmethod
    def of(cls, ranks: Mapping[bytes, int]) -> Vocabulary:
        """The vocabulary of at least one token; ids are distinct and of 32 bits."""
        tokens = sorted(ranks, key=ranks.__getitem__)
        by_bytes = sorted(range(len(tokens)), key=tokens.__getitem__)
        numbers = array(_UINT32, (ranks[token] for token in tokens))
        numbers.extend(accumulate(map(len, tokens), initial=0))
        numbers.extend(by_bytes)
        body = array(_UINT32, [len(tokens)]).tobytes() + numbers.tobytes() + b"".join(tokens)
        return cls(_MAGIC + array(_UINT32, [zlib.crc32(body)]).tobytes() + body)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def last_id(self) -> int:
        """The greatest id."""
        return self._ids[-1]

    def id_of(self, token: bytes) -> int | None:
        """The id of a token; None if there is no such token."""
        place = bisect_left(self._sorted, token, key=self._token)
        if place == len(self._sorted) or self._token(self._sorted[place]) != token:
            return None
        return self._ids[self._sorted[place]]

    def bytes_of(self, token_id: int) -> bytes | None:
        """The bytes of a token; None if no token has the id."""
        place = token_id if self._dense else bisect_left(self._ids, token_id)
        if not 0 <= place < len(self._ids) or self._ids[place] != token_id:
            return None
        return self._token(place)

    def ranks(self) -> dict[bytes, int]:
        """All tokens and their ids, in the order of the ids."""
        return {self._token(place): token_id for place, token_id in enumerate(self._ids)}

    @cached_property
    def missing_bytes(self) -> tuple[bytes, ...]:
        """The single bytes that no token stands for."""
        return tuple(byte for byte in (bytes([b]) for b in range(256)) if self.id_of(byte) is None)

    @property
    def _dense(self) -> bool:
        return self._ids[-1] == len(self._ids) - 1

    def _token(self, place: int) -> bytes:
        return self._bytes[self._starts[place] : self._starts[place + 1]]
