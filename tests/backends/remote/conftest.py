"""What the tests of remotes share: a model on a scripted server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qwenchat.backends.remote import model
from qwenchat.backends.remote.load import load_remote
from qwenchat.backends.remote.model import RemoteModel
from qwenchat.settings.remotes import remote_of
from tests.backends.remote.server import ScriptedServer

Connect = Callable[..., RemoteModel]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for between two tries, and for a count behind a reply, takes no time."""
    monkeypatch.setattr(model, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(model, "GRACE", 0.2)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Loads the model of a server; what is given beside that stands in its table."""
    models: list[RemoteModel] = []

    def load(server: ScriptedServer, **table: Any) -> RemoteModel:
        remote = remote_of("lab", {"lab": {"url": server.url, "silence": 20.0, **table}})
        assert remote is not None
        models.append(load_remote(remote))
        return models[-1]

    yield load
    for each in models:
        each.close()
