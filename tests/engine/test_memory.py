"""How much memory is said to be free, where a container limits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwenchat.engine import memory


def test_page_cache_counts_as_free(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("anon 5\nfile 9\ninactive_file 7\n")
    assert memory._reclaimable(tmp_path) == 7


@pytest.mark.parametrize("content", ["", "one two three\n", "inactive_file many\n"])
def test_a_strange_statistic_counts_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "memory.stat").write_text(content)
    assert memory._reclaimable(tmp_path) == 0
