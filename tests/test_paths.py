"""The folders: where files lie, and what moves them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwenchat import paths
from qwenchat.errors import ConfigError


def test_one_variable_moves_all_folders_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWENCHAT_CONFIG", raising=False)
    for home in (tmp_path / "a", tmp_path / "b"):  # the second time too: it is read at each call
        monkeypatch.setenv("QWENCHAT_HOME", str(home))
        assert paths.config_dir() == home / "config"
        assert paths.data_dir() == home / "data"
        assert paths.cache_dir() == home / "cache"
        assert paths.log_dir() == home / "log"
        assert paths.config_path() == home / "config" / "config.toml"


def test_folders_may_begin_with_a_tilde_or_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert paths.data_dir({"QWENCHAT_HOME": "~/chat"}) == tmp_path / "chat" / "data"
    assert paths.data_dir({"QWENCHAT_HOME": "chat"}) == tmp_path / "chat" / "data"
    assert paths.config_path({"QWENCHAT_CONFIG": "~/my.toml"}) == tmp_path / "my.toml"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses other users' homes")
def test_the_home_of_nobody_is_told() -> None:
    with pytest.raises(ConfigError, match="QWENCHAT_HOME=~no-such-user/x: there is no such home folder"):
        paths.cache_dir({"QWENCHAT_HOME": "~no-such-user/x"})


def test_without_the_variable_the_folders_are_the_platforms() -> None:
    for find in (paths.config_dir, paths.data_dir, paths.cache_dir, paths.log_dir):
        assert find({}).is_absolute()
        assert "qwenchat" in find({}).parts
