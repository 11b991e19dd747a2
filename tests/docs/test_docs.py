"""README and ``docs/`` say what is so: commands parse, links resolve, tables and names are the code's."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import qwenchat
from docs import tables
from qwenchat import errors, paths
from qwenchat.backends.local import Model
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Message
from qwenchat.chat.nodes import Node
from qwenchat.chat.parts import AttachedFile, Role, Thought, ToolCall, ToolResult
from qwenchat.cli.app import app
from qwenchat.sessions.format import Head, SessionRecord, encode
from qwenchat.settings.schema import KEYS, Settings
from qwenchat.settings.sources import load_settings
from qwenchat.terminal.commands import registry
from tests.chats import replied
from tests.places import ROOT

TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in tables.PAGES}
ENDS = {"|", "&&", ";", ">", ">>", "<"}

every_page = pytest.mark.parametrize("name", TEXTS)


# --- what stands in a page -------------------------------------------------------------------------


def blocks(text: str) -> list[str]:
    """The indented blocks of a page, without their indent."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))*)+", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def spans(text: str) -> list[str]:
    """What stands between backticks in a page's prose and tables; in a table ``|`` is written ``\\|``."""
    return [span.replace("\\|", "|").replace("\n", " ") for span in re.findall(r"`([^`]+)`", text)]


def code(text: str) -> Iterator[str]:
    yield from (line for block in blocks(text) for line in block.splitlines())
    yield from spans(text)


def programs(line: str) -> Iterator[list[str]]:
    """The words of each program that a line of shell starts."""
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for word in lexer:
        if word in ENDS:
            yield words
            words = []
        else:
            words.append(word)
    yield words


def called(text: str, program: str) -> list[list[str]]:
    """What stands behind the name of a program, wherever a page calls it."""
    lines = [line for line in code(text) if re.search(rf"(^|[|;&] ){re.escape(program)}( |$)", line)]
    begin = program.split()
    return [words[len(begin) :] for line in lines for words in programs(line) if words[: len(begin)] == begin]


def rows(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose head begins so; each is the text of its cells."""
    table = re.search(rf"^\| {re.escape(head)} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXTS[page], re.MULTILINE)
    assert table, head
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in table[1].splitlines()]


def first_names(page: str, head: str) -> list[str]:
    """The names in backticks that stand in the first column of a table."""
    return [name for row in rows(page, head) for name in spans(row[0])]


# --- commands --------------------------------------------------------------------------------------


@functools.cache
def parser() -> Any:
    """Our parser, of which no option does anything: --install-completion would change the user's shell."""
    group: Any = get_command(app)
    waiting = [group]
    while waiting:
        command = waiting.pop()
        command.callback = None
        for param in command.params:
            param.callback = None
        waiting += getattr(command, "commands", {}).values()
    return group


def parse(words: list[str]) -> Any:
    """The context of the command that a command line calls, parsed; nothing of it runs."""
    command, ctx, path = parser(), None, "qwenchat"
    while True:
        ctx = command.make_context(path, [word for word in words if word not in ("--help", "-h")], parent=ctx)
        words = [*ctx._protected_args, *ctx.args]
        if not hasattr(command, "commands") or not words:
            return ctx
        path, command, words = command.resolve_command(ctx, words)


@every_page
def test_every_command_line_parses(name: str) -> None:
    for words in called(TEXTS[name], "qwenchat"):
        ctx = parse(words)
        given = {key: value for key, value in ctx.params.items() if key in KEYS}
        if ctx.info_name in ("qwenchat", "ask"):
            assert load_settings(given, {"QWENCHAT_PROMPTS": '{"teacher": "x"}'}, Path("none.toml")), words


def test_a_command_line_that_does_not_parse_is_found() -> None:
    text = "    echo x | qwenchat ask --colour\n"
    with pytest.raises(errors.UsageError):
        parse(*called(text, "qwenchat"))
    assert called("`qwenchat sessions list -n 3 && qwenchat`", "qwenchat") == [
        ["sessions", "list", "-n", "3"],
        [],
    ]


def options() -> set[str]:
    """Every option of every command, and of the scripts for developers."""
    found, waiting = {"--help"}, [get_command(app)]
    while waiting:
        command: Any = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found |= {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    scripts = [
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "tests" / "stress").glob("*.py"),
        *(ROOT / "docs").glob("*.py"),
    ]
    for script in scripts:
        found |= set(re.findall(r'"(--[a-z-]+)"', script.read_text("utf-8")))
    return found


def test_every_option_exists() -> None:
    known = options()
    for name, text in TEXTS.items():
        assert {
            option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text) if option not in known
        } == set(), name


def test_every_chat_command_exists() -> None:
    for text in TEXTS.values():
        for span in spans(text):
            if re.fullmatch(r"/[a-z-]+( .*)?|:\w+( .*)?", span):
                assert registry.find(span) if " " in span else registry.named(span), span


@every_page
def test_every_module_that_is_run_exists(name: str) -> None:
    for module, *words in called(TEXTS[name], "python -m"):
        if module.split(".")[-1] == "NAME":
            continue
        spec = importlib.util.find_spec(module)
        assert spec and spec.origin, module
        source = Path(spec.origin).read_text("utf-8")
        assert all(f'"{word}"' in source for word in words if word.startswith("--") and word != "--help"), (
            words
        )


@every_page
def test_every_extra_that_is_installed_exists(name: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"pip install '\.\[(\w+)\]'", TEXTS[name])) <= set(known)


# --- links -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_every_link_resolves(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    assert {page for page in TEXTS if page != "README.md"} <= set(
        re.findall(r"\((docs/\w+\.md)", TEXTS["README.md"])
    )


def test_the_readme_is_short_and_says_how_to_test() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 150
    assert "\n    pip install '.[test]' && pytest\n" in TEXTS["README.md"]


# --- tables ----------------------------------------------------------------------------------------


@every_page
def test_the_tables_that_are_made_from_the_code_are_up_to_date(name: str) -> None:
    assert tables.renewed(TEXTS[name]) == TEXTS[name], "python -m docs.tables writes them anew"


def exit_codes(error: type[errors.QwenchatError] = errors.QwenchatError) -> set[int]:
    return {error.exit_code}.union(*map(exit_codes, error.__subclasses__()))


def test_the_exit_codes_are_those_of_the_errors() -> None:
    assert {int(code) for code, _ in rows("docs/ask.md", "exit code")} == {0, *exit_codes()}


def variables_read(tree: ast.AST) -> Iterator[str]:
    """The environment variables that a module reads by their names."""
    for node in ast.walk(tree):
        names: list[ast.expr] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("environ.get"):
            names = node.args[:1]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            names = [node.slice] if ast.unparse(node.value).endswith("environ") else []
        elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.iter, ast.Tuple):
            names = node.iter.elts  # for name in ("VISUAL", "EDITOR")
        for name in names:
            if isinstance(name, ast.Constant) and re.fullmatch("[A-Z]+(_[A-Z]+)*", str(name.value)):
                yield str(name.value)


def test_the_environment_variables_are_those_that_are_read() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "qwenchat").rglob("*.py")]
    read = {name for source in sources if "environ" in source for name in variables_read(ast.parse(source))}
    read |= {paths.HOME_VARIABLE, paths.CONFIG_VARIABLE}
    told = set(first_names("docs/settings.md", "variable")) - {"QWENCHAT_"}
    assert read - {f"QWENCHAT_{key.upper()}" for key in KEYS} <= told
    assert {name for name in told if not any(name in source for source in sources)} == set()


def test_the_session_file_has_the_fields_that_are_told() -> None:
    reply, record = replied("I look.", "complete", (1,))
    asked = Message(Role.USER, (AttachedFile("a.txt", "hi"),))
    called = Message(Role.ASSISTANT, (*reply.parts, Thought("I see.", (2,)), ToolCall("time", "{}", "1")))
    result = Message(Role.TOOL, (ToolResult("1", "time", "12:00"),))
    nodes = [Node(1, None, "", asked), Node(2, 1, "", called, record), Node(3, 2, "", result)]
    head = Head("a", "hi", "demo", "", "", 1)
    file = json.loads(encode(SessionRecord(head, {}, Conversation(nodes=nodes))))
    question, answer, _ = file["nodes"]
    told = [
        first_names("docs/sessions.md", head) for head in ("field", "field of a node", "field of a reply")
    ]
    assert told == [list(file), list(question), [name for name in answer if name not in question]]
    parts = [part for node in file["nodes"] for part in node["parts"]]
    told = {spans(row[0])[0]: spans(row[1]) for row in rows("docs/sessions.md", "type of a part")}
    assert told == {part.pop("type"): list(part) for part in parts}


def test_load_takes_the_arguments_that_are_told() -> None:
    assert first_names("docs/python.md", "argument") == list(inspect.signature(qwenchat.load).parameters)


@pytest.mark.parametrize(
    ("folder", "package"), [("tests/stress", "tests.stress"), ("benchmarks", "benchmarks")]
)
def test_every_script_for_developers_is_told(folder: str, package: str) -> None:
    scripts = [
        path.stem for path in (ROOT / folder).glob("*.py") if "\n    python -m" in path.read_text("utf-8")
    ]
    told = [words[0] for words in called(TEXTS["docs/development.md"], "python -m")]
    assert {f"{package}.{script}" for script in scripts} <= set(told)


# --- Python and TOML -------------------------------------------------------------------------------


def snippets(text: str) -> Iterator[ast.Module]:
    for block in blocks(text):
        if re.match(r"(import|from|model\.) ?", block):
            yield ast.parse(block)


@every_page
def test_python_compiles_and_what_it_imports_exists(name: str) -> None:
    for tree in snippets(TEXTS[name]):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert all(importlib.import_module(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("model", "qwenchat"):
                assert hasattr(qwenchat if ast.unparse(node.value) == "qwenchat" else Model, node.attr), (
                    node.attr
                )


def test_toml_is_a_config_file() -> None:
    found = [block for block in blocks(TEXTS["docs/settings.md"]) if block.startswith("[")]
    assert found
    for block in found:
        assert Settings(**tomllib.loads(block))
