"""The themes: whole, legible, in force from the next thing shown on, and the one place with colours in it."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from prompt_toolkit.styles import Style as PromptStyle
from prompt_toolkit.styles import default_ui_style, merge_styles
from rich.color import Color, ColorSystem, ColorType
from rich.console import Console
from rich.style import Style

from qwenchat.errors import UsageError
from qwenchat.terminal import theme
from qwenchat.terminal.render.live import LiveReply, render_markdown
from qwenchat.terminal.rows import PLAIN, Span, paint
from qwenchat.terminal.theme import Theme

PACKAGE = Path(theme.__file__).parents[1]


@pytest.fixture(autouse=True)
def default_theme() -> Iterator[None]:
    yield
    theme.use_theme("terminal")


def taken(name: str) -> Theme:
    theme.use_theme(name)
    return theme.current()


def looks(theme: Theme) -> dict[str, str]:
    """All its styles by name."""
    named: dict[str, str] = {}
    for field in fields(theme):
        value = getattr(theme, field.name)
        if isinstance(value, tuple):
            named.update({f"{field.name} {n}": look for n, look in enumerate(value, 1)})
        elif field.name != "name":
            named[field.name] = value
    return named


def colours(theme: Theme) -> list[Color]:
    parsed = [Style.parse(look) for look in looks(theme).values()]
    return [colour for style in parsed for colour in (style.color, style.bgcolor) if colour is not None]


# --- the themes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", theme.theme_names())
def test_rich_and_prompt_toolkit_understand_every_style(name: str) -> None:
    for look in looks(taken(name)).values():
        Style.parse(look)
    PromptStyle.from_dict(theme.prompt_styles())


def test_the_default_follows_the_palette_of_the_terminal() -> None:
    assert theme.current().name == theme.theme_names()[0] == "terminal"
    assert colours(theme.current())
    assert all(colour.type is ColorType.STANDARD for colour in colours(theme.current()))


def test_mono_has_no_colour_and_only_what_every_terminal_can() -> None:
    assert not colours(taken("mono"))
    words = " ".join([*looks(taken("mono")).values()]).split()
    assert set(words) <= {"bold", "dim", "italic", "underline"}
    # What must not look like the text around it does not.
    for name in ("warning", "error", "code", "strong", "link", "keyword", "comment", "menu_current"):
        assert looks(taken("mono"))[name] != PLAIN


def luminance(colour: Color) -> float:
    channels = [channel / 255 for channel in colour.get_truecolor()]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT])
@pytest.mark.parametrize(
    ("name", "grounds"),
    [("dark", ("#000000", "#1e1e1e", "#282c34")), ("light", ("#ffffff", "#fafafa", "#f5f1e6"))],
)
def test_dark_and_light_can_be_read_on_their_grounds(
    name: str, grounds: tuple[str, ...], system: ColorSystem
) -> None:
    """WCAG's contrast for text, https://www.w3.org/TR/WCAG21/#contrast-minimum: 4.5."""
    assert all(colour.type is ColorType.TRUECOLOR for colour in colours(taken(name)))
    assert "dim" not in " ".join(looks(taken(name)).values())  # which nobody knows the contrast of
    for colour in colours(taken(name)):
        ink = luminance(colour.downgrade(system))
        for ground in map(luminance, map(Color.parse, grounds)):
            assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, colour


def test_an_unknown_theme_is_told_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="unknown theme drak; did you mean dark"):
        theme.use_theme("drak")
    with pytest.raises(UsageError, match="unknown theme xyz; there are terminal, dark, light, mono"):
        theme.use_theme("xyz")
    assert theme.current().name == "terminal"


# --- in force ------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(text: str, color_system: str) -> str:
    file = Terminal()
    render_markdown(text, console=Console(file=file, force_terminal=True, color_system=color_system))
    return file.getvalue()


ANSWER = (
    "# Title\n`code`\n```python\nif 'text': pass  # comment\n```\n| a |\n|--|\n| b |\n\n> [x](http://y)\n"
)


def test_another_theme_holds_from_the_next_answer_on() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown(ANSWER, "truecolor"))
    seen = set()
    for name in theme.theme_names():
        theme.use_theme(name)
        answer = shown(ANSWER, "truecolor")
        assert re.sub(r"\x1b\[[0-9;]*m", "", answer) == plain
        assert ("\x1b[38;2;" in answer) == (name in ("dark", "light"))
        for text, look in (("if", "keyword"), ("# comment", "comment"), ("code", "code"), ("│ ", "quote")):
            assert paint([Span(text, looks(theme.current())[look])], ColorSystem.TRUECOLOR) in answer
        seen.add(answer)
    assert len(seen) == len(theme.theme_names())


def test_colours_are_as_many_as_the_terminal_has_whoever_asked_before() -> None:
    theme.use_theme("dark")
    for _ in range(2):
        assert "38;2;" in shown(ANSWER, "truecolor")
        assert "38;5;" in shown(ANSWER, "256") and "38;2;" not in shown(ANSWER, "256")
        assert not re.search(r"[34]8;", shown(ANSWER, "standard"))
        assert re.search(r"\x1b\[[0-9;]*[39][0-7]m", shown(ANSWER, "standard"))


def test_the_status_line_has_the_theme_s_look() -> None:
    theme.use_theme("light")
    file = Terminal()
    with LiveReply(console=Console(file=file, force_terminal=True, color_system="truecolor")) as view:
        view.status("reading 1/2 tokens")
        while "tokens" not in file.getvalue():
            pass
    assert (
        paint([Span("reading 1/2 tokens", theme.current().status)], ColorSystem.TRUECOLOR) in file.getvalue()
    )


def test_a_style_on_top_of_another_adds_to_it_and_the_latter_colour_counts() -> None:
    assert paint([Span("x", "bold magenta cyan underline")], ColorSystem.STANDARD) == "\x1b[1;4;36mx\x1b[0m"
    assert paint([Span("x", f"{PLAIN} {PLAIN}")], ColorSystem.STANDARD) == "x"


# --- the prompt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", theme.theme_names())
def test_the_prompt_has_the_theme_s_colours_and_none_of_prompt_toolkit_s(name: str) -> None:
    theme.use_theme(name)
    merged = merge_styles([default_ui_style(), PromptStyle.from_dict(theme.prompt_styles())])
    inks = {colour.name.lstrip("#") for colour in colours(theme.current())}
    for part in theme.prompt_styles():
        attributes = merged.get_attrs_for_style_str(f"class:{part}")
        assert not attributes.bgcolor
        assert (attributes.color or "").removeprefix("ansi") in {*inks, "brightblack", ""}
        if part.startswith("bottom-toolbar"):
            assert not attributes.reverse
    if name == "mono":
        assert not re.search("#|ansi", " ".join(theme.prompt_styles().values()))


# --- one place -----------------------------------------------------------------------------------


def test_importing_the_themes_loads_neither_rich_nor_prompt_toolkit() -> None:
    code = "import sys, qwenchat.terminal.theme, qwenchat.terminal.console\n"
    code += "print([name for name in sys.modules if name.startswith(('rich', 'prompt_toolkit'))])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


_COLOUR = re.compile(
    r"(bold|dim|italic|underline|reverse|(ansi)?(bright[_-]?)?(black|red|green|yellow|blue|magenta|cyan|white)"
    r"|[fb]g:\S+|#[0-9a-f]{6}|on)"
)


def test_no_other_module_has_styles_of_its_own() -> None:
    found = []
    for path in sorted((PACKAGE / "terminal").rglob("*.py")):
        if path.name == "theme.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip():
                if all(_COLOUR.fullmatch(word) for word in node.value.split()) and node.value != "on":
                    found.append(f"{path.name}:{node.lineno}: {node.value}")
                if "\x1b[" in node.value and node.value.endswith("m") and node.value != "\x1b[0m":
                    found.append(f"{path.name}:{node.lineno}: {node.value!r}")
    assert not found
