"""The picture: valid XML, axes that rise, nothing outside the page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from qwenchat.bench.chart import Line, draw, ticks

SVG = "{http://www.w3.org/2000/svg}"


def line(name: str, speed: float, last: int = 8192) -> Line:
    contexts = [1, *range(64, last + 1, 64)]
    measured = [(c, speed * 8192 / (8192 + c)) for c in contexts]
    return Line(name, measured, [(c, 1.2 * s) for c, s in measured])


def points(picture: ElementTree.Element, kind: str) -> list[list[tuple[float, float]]]:
    found = [p for p in picture.iter(f"{SVG}polyline") if kind in p.attrib["class"].split()]
    return [
        [(float(x), float(y)) for x, y in (p.split(",") for p in f.attrib["points"].split())] for f in found
    ]


def labels(picture: ElementTree.Element, anchor: str) -> list[tuple[float, float, float]]:
    """The ticks of an axis: their place, and what they say."""
    texts = (t for t in picture.iter(f"{SVG}text") if t.attrib.get("class") == "tick")
    return [
        (float(t.attrib["x"]), float(t.attrib["y"]), float((t.text or "").replace(",", "")))
        for t in texts
        if t.attrib["text-anchor"] == anchor
    ]


@pytest.mark.parametrize("last", [16, 128, 2048, 8192])
def test_the_axes_rise_and_everything_is_on_the_page(last: int) -> None:
    picture = ElementTree.fromstring(draw([line("a", 300, last), line("b", 299, last)], "title", "below"))
    width, height = (float(picture.attrib[name]) for name in ("width", "height"))
    across, up = labels(picture, "middle"), labels(picture, "end")
    assert [v for _, _, v in across] == sorted({v for _, _, v in across})
    assert [x for x, _, _ in across] == sorted({x for x, _, _ in across})
    assert [v for _, _, v in up] == sorted({v for _, _, v in up})
    assert [y for _, y, _ in up] == sorted({y for _, y, _ in up}, reverse=True)
    everything = [*points(picture, "measured"), *points(picture, "ceiling")]
    assert len(everything) == 4
    assert all(0 < x < width and 0 < y < height for places in everything for x, y in places)


def test_each_line_has_its_ceiling_in_its_own_colour_above_it() -> None:
    picture = ElementTree.fromstring(draw([line(n, s) for n, s in (("a", 300), ("b", 200))], "t", "s"))
    for measured, ceiling in zip(points(picture, "measured"), points(picture, "ceiling"), strict=True):
        assert all(c[1] < m[1] for c, m in zip(ceiling, measured, strict=True))
    classes = [p.attrib["class"].split()[0] for p in picture.iter(f"{SVG}polyline")]
    assert classes == ["c0", "c0", "c1", "c1"]


def test_labels_do_not_overlap_where_lines_meet() -> None:
    picture = ElementTree.fromstring(draw([line(str(i), 100 + i) for i in range(5)], "t", "s"))
    names = [t for t in picture.iter(f"{SVG}text") if t.attrib["class"].startswith("name")]
    heights = sorted(float(t.attrib["y"]) for t in names)
    assert all(b - a >= 30 for a, b in pairwise(heights))
    assert heights[0] > 0


def test_a_name_cannot_leave_its_text() -> None:
    picture = ElementTree.fromstring(draw([line('<script>"&', 10)], "<b>", "&amp;"))
    assert not list(picture.iter(f"{SVG}script"))
    assert '<script>"&' in {t.text for t in picture.iter(f"{SVG}text")}


def test_it_reads_on_a_dark_page_too() -> None:
    assert "@media (prefers-color-scheme: dark)" in draw([line("a", 10)], "t", "s")


@pytest.mark.parametrize("most", [0.003, 0.7, 1, 9.9, 37, 128, 359, 1000, 2048, 2049, 8192, 123456])
def test_ticks_are_few_round_and_reach_the_top(most: float) -> None:
    found = ticks(most)
    steps = {round(b - a, 9) for a, b in pairwise(found)}
    assert found[0] == 0
    assert len(steps) == 1
    assert 3 <= len(found) <= 9
    assert most * 0.999 <= found[-1] <= most * 1.7
