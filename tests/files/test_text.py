"""Files that the user asked for: whole, and never over another."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files.text import write_text
from tests.disk import Disk


def test_a_file_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.md", "你好\n")
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "你好\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_there_stays(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    write_text(tmp_path / "a", "old")
    with pytest.raises(UsageError, match="already exists"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_may_be_replaced_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    write_text(tmp_path / "a", "new", overwrite=True)
    assert (tmp_path / "a").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="modes as POSIX has them")
def test_a_new_file_has_the_mode_that_any_program_would_give_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(QwenchatError, match="No space left"):
        write_text(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["circle", "nu\0ll", "half \ud800", "x" * 300])
def test_a_name_that_cannot_be_written_to_is_an_error_in_words(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(QwenchatError):
        write_text(tmp_path / name, "text", overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(QwenchatError, match="No such file or directory"):
        write_text(tmp_path / "b" / "a", "text")
