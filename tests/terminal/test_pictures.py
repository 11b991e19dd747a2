"""Pictures on the terminal: what terminals answer, and how a PNG becomes what they draw."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from qwenchat.terminal import pictures, png

KITTY = "\x1b_Gi=4211;OK\x1b\\\x1bP>|kitty(0.35.2)\x1b\\\x1b[?62;c"
ITERM2 = "\x1bP>|iTerm2 3.5.4\x1b\\\x1b[?64;1;2;4;6;17;18;21;22c"
XTERM_WITH_SIXELS = "\x1bP>|XTerm(390)\x1b\\\x1b[?64;1;2;4;6;9;15;22c"
PLAIN = "\x1b[?1;2c"
PIXELS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [9, 99, 200]]], np.uint8
)


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (KITTY, "kitty"),
        (ITERM2, "iterm2"),
        (XTERM_WITH_SIXELS, "sixel"),
        (PLAIN, ""),
        ("", ""),
        ("\x1b[?4c", ""),
    ],
)
def test_what_a_terminal_answers_is_what_it_draws_by(answer: str, how: str) -> None:
    assert pictures.understood(answer) == how


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def made(image: np.ndarray, filters: Sequence[int], colour_type: int = 2) -> bytes:
    """A PNG of an image whose rows are filtered so."""
    height, width, channels = image.shape
    padded = np.zeros((height + 1, width + 1, channels), int)
    padded[1:, 1:] = image
    rows = b""
    for y, kind in enumerate(filters):
        left, above, corner = padded[y + 1, :-1], padded[y, 1:], padded[y, :-1]
        predicted = left + above - corner
        distances = np.stack([abs(predicted - left), abs(predicted - above), abs(predicted - corner)])
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        guess = (0 * left, left, above, (left + above) // 2, paeth)[kind]
        rows += bytes([kind]) + ((image[y].astype(int) - guess) % 256).astype(np.uint8).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return png._SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("filters", [(0, 0), (1, 2), (3, 4), (4, 3), (2, 1)])
def test_a_png_is_read_by_every_filter(filters: tuple[int, int]) -> None:
    assert np.array_equal(png.pixels(made(PIXELS, filters)), PIXELS)  # type: ignore[arg-type]


def test_what_shows_through_is_white() -> None:
    alpha = np.array([[[0], [255], [51]], [[255], [255], [0]]], np.uint8)
    image = png.pixels(made(np.concatenate([PIXELS, alpha], axis=2), (0, 1), colour_type=6))
    assert image is not None
    assert image[0].tolist() == [[255, 255, 255], [0, 255, 0], [204, 204, 255]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(100),
        made(PIXELS, (0, 0))[:40],
        png._SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
        png._SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"no"),
    ],
)
def test_what_is_no_picture_or_far_too_large_draws_nothing(data: bytes) -> None:
    assert png.pixels(data) is None
    assert png.sixels(data) == ""


def test_sixels_draw_every_pixel_in_its_colour() -> None:
    drawn = png.sixels(made(PIXELS, (0, 0)))
    assert drawn.startswith('\x1bPq"1;1;3;2') and drawn.endswith("\x1b\\")
    colours = {int(n): rgb for n, *rgb in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", drawn)}
    body = re.split(r"#\d+;2;\d+;\d+;\d+", drawn)[-1]
    seen = {}
    for colour, signs in re.findall(r"#(\d+)([?-~]+)\$", body):
        for x, sign in enumerate(signs):
            seen |= {(y, x): colours[int(colour)] for y in range(6) if (ord(sign) - 63) >> y & 1}
    assert seen[0, 0] == ["100", "0", "0"] and seen[1, 1] == ["100", "100", "100"]
    assert len(seen) == 6


@contextlib.contextmanager
def in_a_terminal(answer: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """stdin and stdout become a terminal that answers so; its other end."""
    outer, inner = os.openpty()
    asked: list[str] = []

    def terminal() -> None:
        while not asked or not asked[-1].endswith("\x1b[c"):
            asked.append(os.read(outer, 1024).decode())
        os.write(outer, answer.encode())

    answering = threading.Thread(target=terminal)
    answering.start()
    keyboard, screen = os.fdopen(inner), os.fdopen(os.dup(inner), "w")
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(pictures, "_asked", [])
    with keyboard, screen:
        yield outer
    answering.join()
    os.close(outer)


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_the_terminal_is_asked_and_draws_by_what_it_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = made(PIXELS, (0, 0))
    (tmp_path / "fig.png").write_bytes(data)
    (tmp_path / "link.png").symlink_to(tmp_path / "fig.png")
    with in_a_terminal(KITTY, monkeypatch) as outer:
        assert pictures.show(tmp_path / "fig.png")
        assert base64.b64encode(data) in os.read(outer, 65536)
        with pytest.raises(OSError):
            pictures.show(tmp_path / "link.png")


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_a_terminal_that_draws_nothing_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "fig.png").write_bytes(made(PIXELS, (0, 0)))
    with in_a_terminal(PLAIN, monkeypatch):
        assert not pictures.show(tmp_path / "fig.png")


def test_off_a_terminal_nothing_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_asked", [])
    assert pictures.protocol() == ""
    assert capsys.readouterr().out == ""
