"""Which functions of the package call something: for tests that hold who may."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import qwenchat

PACKAGE = Path(qwenchat.__file__).parent


def name_of(call: ast.Call) -> str:
    """The name of what is called, whatever it belongs to."""
    return str(getattr(call.func, "attr", None) or getattr(call.func, "id", ""))


def callers(modules: Iterable[Path], wanted: Callable[[ast.Call], bool]) -> set[str]:
    """The functions in which a wanted call stands, as ``package.module.Class.function``."""

    def visit(node: ast.AST, where: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and wanted(child):
                yield where
            is_scope = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            yield from visit(child, f"{where}.{child.name}" if is_scope else where)

    found: set[str] = set()
    for path in modules:
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found.update(visit(ast.parse(path.read_text(encoding="utf-8")), module))
    return found
