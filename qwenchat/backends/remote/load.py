"""From a remote to its backend: asks the server what it is, and what its context is."""

from __future__ import annotations

from collections.abc import Callable

from qwenchat.backends.remote.connection import Connection
from qwenchat.backends.remote.counting import Counter
from qwenchat.backends.remote.model import RemoteModel
from qwenchat.backends.remote.probe import asker, probe, root
from qwenchat.backends.request import pick_context
from qwenchat.errors import Phrase
from qwenchat.models.progress import Progress
from qwenchat.settings.remotes import Remote

COUNT_SECONDS = 2.0
"""The longest that a count of tokens is waited for, for which the prompt may wait."""
CONTEXT = 8192
"""What is taken for the context of a server that does not say."""


def load_remote(
    remote: Remote,
    *,
    context: int | None = None,
    progress: Progress = lambda stage, fraction: None,
    notice: Callable[[str], None] = lambda line: None,
) -> RemoteModel:
    """The model of a remote.

    Args:
        context: tokens of prompt and reply; by default what the remote or its server says.
        progress: told of each stage.
        notice: told what the user should know.

    Raises:
        RemoteError: the server cannot be reached, refuses, or speaks another protocol.
        ModelNotFoundError: it has no such model.
        UsageError: the key is not where it should be, or the context is out of range.
    """
    connection = Connection(remote, remote.key())
    try:
        progress(Phrase("asking {host}", host=remote.host), None)
        server = probe(connection)
        counter = Counter(server, root(remote), asker(connection, seconds=COUNT_SECONDS))
        most = remote.context or server.context
        if most is None:
            most = context or CONTEXT
            if context is None:
                notice(
                    Phrase(
                        "{server} does not say its context: taken as {tokens} tokens; --context says it",
                        server=server.title,
                        tokens=f"{most:,}",
                    )
                )
        return RemoteModel(connection, server, counter, pick_context(context, most, most))
    except BaseException:
        connection.close()
        raise
