"""The house: no circle, few modules at the top, none too long; `lint-imports` holds the directions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import grimp

import qwenchat
from tests.places import ROOT

PACKAGE = Path(qwenchat.__file__).parent
TABLES = {"chinese.py", "chinese_help.py"}


def test_no_two_modules_need_each_other() -> None:
    """Imports within functions and for types count, and the package's own lazy ones."""
    graph = grimp.build_graph("qwenchat", cache_dir=None)
    needs = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert sorted(needs) == [], "these are in a circle, or need one"


def test_few_modules_lie_at_the_top_and_none_is_too_long() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    modules = [path for path in PACKAGE.rglob("*.py") if path.name not in TABLES]
    assert [path for path in modules if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_nobody_takes_the_private_names_of_another_folder() -> None:
    assert [line for path in PACKAGE.rglob("*.py") for line in private_imports(path)] == []


def private_imports(path: Path) -> Iterator[str]:
    """The imports of names with an underscore from modules that lie in other folders."""
    own = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("qwenchat"):
            continue
        if (node.module or "").rpartition(".")[0] != own:
            private = [n.name for n in node.names if n.name.startswith("_") and not n.name.startswith("__")]
            yield from (f"{path.relative_to(ROOT)}: {node.module}.{name}" for name in private)
