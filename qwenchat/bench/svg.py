"""The parts of our pictures: SVG that reads on light and on dark pages, one colour a thing that is told."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# Each on white and on near-black: told apart, and by the colour-blind too.
COLORS = (
    ("#0072b2", "#56b4e9"),
    ("#c2410c", "#f59e5b"),
    ("#0f7b5f", "#34d399"),
    ("#8a3ffc", "#c4a0ff"),
    ("#8d6e00", "#e3c44c"),
)


def document(width: int, height: int, title: str, body: Sequence[str], rules: Sequence[str] = ()) -> str:
    """A whole picture.

    Args:
        body: its elements.
        rules: of its style, beside those that all have.
    """
    content = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">\n'
        f"<style>\n{_style(rules)}\n</style>\n"
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>\n{content}\n</svg>\n'
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A line."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, said: str, style: str, anchor: str = "start") -> str:
    """A text."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _style(rules: Sequence[str]) -> str:
    def of_page(page: str, ink: str, soft: str, grid: str, shade: int) -> list[str]:
        colors = [
            f".c{i} {{ stroke: {c[shade]}; }} .c{i}-text {{ fill: {c[shade]}; }}"
            for i, c in enumerate(COLORS)
        ]
        return [
            f".page {{ fill: {page}; }} text {{ fill: {ink}; }} .note, .tick, .label {{ fill: {soft}; }}",
            f".grid {{ stroke: {grid}; }} .axis, .key {{ stroke: {soft}; }}",
            *colors,
        ]

    fonts = "font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif;"
    return "\n".join(
        [
            f"text {{ {fonts} font-size: 12px; }} .title {{ font-size: 17px; font-weight: 600; }}",
            ".name { font-size: 13px; font-weight: 600; } .tick { font-variant-numeric: tabular-nums; }",
            *rules,
            ".key { stroke-width: 2; } .grid, .axis { stroke-width: 1; }",
            *of_page("#ffffff", "#1f2328", "#59636e", "#e4e8ec", 0),
            "@media (prefers-color-scheme: dark) {",
            *of_page("#0d1117", "#e6edf3", "#9198a1", "#262c36", 1),
            "}",
        ]
    )
