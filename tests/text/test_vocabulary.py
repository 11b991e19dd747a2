"""The packed vocabulary gives back what was packed, and nothing that was not."""

from __future__ import annotations

import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenchat.text.vocabulary import Damaged, Vocabulary

tokens = st.dictionaries(st.binary(min_size=1, max_size=6), st.integers(0, 400), min_size=1, max_size=60)


@given(tokens)
def test_every_token_and_id_comes_back(drawn: dict[bytes, int]) -> None:
    ranks = {token: i for i, token in {i: token for token, i in drawn.items()}.items()}
    vocabulary = Vocabulary(Vocabulary.of(ranks).packed)
    assert vocabulary.ranks() == ranks
    assert len(vocabulary) == len(ranks)
    assert vocabulary.last_id == max(ranks.values())
    for token_id in range(402):
        expected = next((token for token, i in ranks.items() if i == token_id), None)
        assert vocabulary.bytes_of(token_id) == expected
    for token in [*ranks, b"", b"\xff" * 7, b"\x00"]:
        assert vocabulary.id_of(token) == ranks.get(token)
    assert vocabulary.bytes_of(-1) is None
    assert b"\x00" in vocabulary.missing_bytes or b"\x00" in ranks


@pytest.mark.parametrize("cut", [0, 10, 35, 44, 60, -1])
def test_what_was_cut_is_found_out(cut: int) -> None:
    packed = Vocabulary.of({b"a": 0, b"b": 1, b"ab": 2}).packed
    with pytest.raises(Damaged):
        Vocabulary(packed[:cut])


def test_any_flipped_bit_is_found_out() -> None:
    packed = Vocabulary.of({b"a": 0, b"b": 1, b"ab": 2}).packed
    for place in range(len(packed)):
        for bit in range(8):
            damaged = bytearray(packed)
            damaged[place] ^= 1 << bit
            with pytest.raises(Damaged):
                Vocabulary(bytes(damaged))


@pytest.mark.parametrize("count", [0, 2, 4, 2**31])
def test_a_count_that_is_not_that_of_the_tokens_is_found_out_though_the_checksum_is_right(count: int) -> None:
    packed = Vocabulary.of({b"a": 0, b"b": 1, b"ab": 2}).packed
    at = packed.index(array("I", [3]).tobytes(), 32)
    body = array("I", [count]).tobytes() + packed[at + 4 :]
    with pytest.raises(Damaged):
        Vocabulary(packed[: at - 4] + array("I", [zlib.crc32(body)]).tobytes() + body)
