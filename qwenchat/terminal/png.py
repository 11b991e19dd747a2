"""PNG files, as far as figures are: 8 bits a channel, colours with or without alpha, not interlaced.

Owns reading them, with limits, and writing them as sixels. What is another kind of file is no picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_MOST_PIXELS = 16_000_000
_LEVELS = 6  # of each colour in a sixel's palette
_MOST_WIDTH = 1000

Pixels = NDArray[np.uint8]


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height; None if it is no PNG, or larger than any figure."""
    if len(data) < 33 or not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (width, height) if 0 < width * height <= _MOST_PIXELS else None


def pixels(data: bytes) -> Pixels | None:
    """The colours, [height, width, 3], on white; None if it cannot be read here."""
    measured = size(data)
    if measured is None or data[24] != 8 or data[25] not in _CHANNELS or data[28]:
        return None
    (width, height), channels = measured, _CHANNELS[data[25]]
    row = 1 + width * channels
    try:
        raw = zlib.decompressobj().decompress(b"".join(_chunks(data, b"IDAT")), height * row)
    except (zlib.error, struct.error):
        return None
    if len(raw) != height * row:
        return None
    lines = np.frombuffer(raw, np.uint8).reshape(height, row)
    image = _unfiltered(lines[:, 0], lines[:, 1:].reshape(height, width, channels))
    colours = image[..., : max(channels - 1, 1) if channels in (2, 4) else channels].astype(np.uint16)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    if channels in (2, 4):
        alpha = image[..., -1:].astype(np.uint16)
        colours = (colours * alpha + 255 * (255 - alpha)) // 255
    return colours.astype(np.uint8)


def _chunks(data: bytes, kind: bytes) -> Iterator[bytes]:
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        if data[at + 4 : at + 8] == kind:
            yield data[at + 8 : at + 8 + length]
        at += 12 + length


def _unfiltered(filters: Pixels, lines: Pixels) -> Pixels:
    """Undoes the filter of each row (PNG's specification, 9.2)."""
    image = np.zeros_like(lines)
    above = np.zeros_like(lines[0])
    for y, kind in enumerate(filters):
        line = lines[y]
        if kind == 0:
            image[y] = line
        elif kind == 1:
            image[y] = np.cumsum(line, axis=0, dtype=np.uint8)
        elif kind == 2:
            image[y] = line + above
        else:
            image[y] = _by_neighbours(line, above, int(kind))
        above = image[y]
    return image


def _by_neighbours(line: Pixels, above: Pixels, kind: int) -> Pixels:
    """A row of filter 3 or 4, where each byte needs the one before: in plain numbers, the faster way here."""
    channels = line.shape[1]
    out, ups = bytearray(channels), bytes(channels) + above.tobytes()
    for x, value in enumerate(line.tobytes()):
        left, up = out[x], ups[x + channels]
        if kind == 3:
            guess = (left + up) >> 1
        else:
            corner = ups[x]
            by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
            guess = (
                left if by_left <= by_up and by_left <= by_corner else up if by_up <= by_corner else corner
            )
        out.append((value + guess) & 255)
    return np.frombuffer(bytes(out[channels:]), np.uint8).reshape(line.shape)


def sixels(data: bytes) -> str:
    """A PNG as sixels, of 216 colours; empty if it cannot be read here."""
    image = pixels(data)
    if image is None:
        return ""
    step = -(-image.shape[1] // _MOST_WIDTH)
    image = image[::step, ::step]
    indices = (image.astype(np.uint16) * (_LEVELS - 1) + 127) // 255
    palette = (indices[..., 0] * _LEVELS + indices[..., 1]) * _LEVELS + indices[..., 2]
    height, width = palette.shape
    out = [f'\x1bPq"1;1;{width};{height}']
    for colour in np.unique(palette):
        levels = (int(colour) // _LEVELS**2, int(colour) // _LEVELS % _LEVELS, int(colour) % _LEVELS)
        shares = ";".join(str(level * 100 // (_LEVELS - 1)) for level in levels)
        out.append(f"#{colour};2;{shares}")
    for top in range(0, height, 6):
        band = palette[top : top + 6]
        weights = (1 << np.arange(len(band)))[:, None]
        for colour in np.unique(band):
            bits = ((band == colour) * weights).sum(axis=0)
            out.append(f"#{colour}{_run_lengths(bits)}$")
        out.append("-")
    return "".join([*out, "\x1b\\"])


def _run_lengths(bits: NDArray[np.int64]) -> str:
    ends = np.flatnonzero(np.diff(bits)) + 1
    begins, lengths = np.r_[0, ends], np.diff(np.r_[0, ends, len(bits)])
    pieces = []
    for bit, length in zip(bits[begins], lengths, strict=True):
        sign = chr(63 + int(bit))
        pieces.append(f"!{length}{sign}" if length > 3 else sign * int(length))
    return "".join(pieces)
