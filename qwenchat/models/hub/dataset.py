"""A file of a data set of the Hub, through the client and its cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwenchat.models import places
from qwenchat.models.hub import answers
from qwenchat.models.hub.client import library, offline, reachable
from qwenchat.models.hub.errors import endpoint, in_words, offline_error, unreachable

_MOST_BYTES = 2**28
_MAIN = "main"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is here.

    Attributes:
        path: where it is.
        revision: the commit that it is of.
    """

    path: Path
    revision: str


def fetch(repository: str, file: str) -> Fetched:
    """Brings a file of a data set into the Hub's cache; what is there is not fetched again.

    Without a network the file of the cache is taken, and at once: left to itself, the client asks for half a
    minute where nobody answers.

    Args:
        repository: "org/name".
        file: its path in there.

    Raises:
        DownloadError: there is no such file, no answer, or it cannot be written.
    """
    away = reachable()
    try:
        with answers.of_file(_MOST_BYTES):
            path = library().hf_hub_download(
                repository,
                file,
                repo_type="dataset",
                cache_dir=places.hub_cache(),
                endpoint=endpoint(),
                local_files_only=away is not None,
            )
    except Exception as error:
        if away is not None:
            raise offline_error() if offline() else unreachable(away) from error
        raise in_words(error, repository, _MAIN) from error
    return Fetched(Path(path), Path(path).parents[len(Path(file).parts) - 1].name)
