"""ModelScope: which files a repository has there, and how they get into ModelScope's own cache.

Owns the dealings with modelscope_hub, which the extra ``modelscope`` installs: the client alone, a fraction
of the package ``modelscope``. It goes on with what was cut, and tries again by itself. Like ``hub``, it
decides nothing. MODELSCOPE_CACHE, MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN hold.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from qwenchat.errors import DownloadError, Phrase
from qwenchat.files.opening import reason_of
from qwenchat.models import digests, places
from qwenchat.models.hub import answers
from qwenchat.models.hub.client import Listing
from qwenchat.models.hub.errors import Unreachable, why_unreachable
from qwenchat.models.records import File

_MASTER = "master"


class ModelScope:
    """ModelScope as a source of files; a :class:`qwenchat.models.hub.pull.Origin`.

    Raises:
        DownloadError: its client is not installed.
    """

    source: places.Source = "modelscope"

    def __init__(self) -> None:
        if importlib.util.find_spec("modelscope_hub") is None:
            raise DownloadError(
                "ModelScope's client is not installed", "pip install 'modelscope-hub<0.6' installs it"
            )

    def listing(self, name: str, revision: str | None) -> Listing:
        """List a model on ModelScope.

        Raises:
            Unreachable: it does not answer.
            DownloadError: it has no such model or revision, or does not give it.
        """
        revision = revision or _MASTER
        if not places.is_plain(revision):
            raise DownloadError("{name} has no revision {revision}", name=name, revision=revision)
        try:
            api = _api()
            for session in (api.legacy._session, api.legacy._read_session):
                answers.guard(session, _strange)
            ask = partial(api.list_repo_files, name, "model", revision=revision, recursive=False)
            found = answers.within(answers.LISTING_SECONDS, ask)
            files = tuple(
                File(str(f.path), answers.size_of(f.size), _digest(str(f.sha256 or "")))
                for f in found
                if not f.is_dir
            )
        except Exception as error:
            raise _in_words(error, name) from error
        return Listing(name, revision, _folder(name, revision), files, revision)

    def fetch(self, listing: Listing, file: File) -> None:
        """Brings a file into the cache, verified.

        Raises:
            Unreachable: there is no answer any more.
            DownloadError: it is not given, or cannot be written.
        """
        try:
            _api().download_file(
                listing.name,
                "model",
                file.name,
                revision=listing.revision,
                local_dir=listing.folder,
                expected_sha256=file.digest.partition(":")[2],
                file_size=file.size,
            )
        except Exception as error:
            raise _in_words(error, listing.name) from error

    def present(self, listing: Listing, file: File) -> int:
        """The number of bytes of a file that are there, verified or not."""
        for path in _paths(listing, file):
            with suppress(OSError):
                return path.stat().st_size
        return 0

    def discard(self, listing: Listing, file: File) -> None:
        """Removes all that is there of a file."""
        for path in _paths(listing, file):
            path.unlink(missing_ok=True)

    def finish(self, listing: Listing) -> None:
        """There is nothing to take note of."""


def _digest(sha256: str) -> str:
    return digests.by_name_of(sha256.lower()) or "" if len(sha256) == 64 else ""


def _folder(name: str, revision: str) -> Path:
    """The folder of a revision: the one of an older client if it is there, else this one's."""
    older = (place.folder for place in places.in_modelscope_cache(name) if not place.revision)
    new = places.modelscope_folder(name, revision)
    return next(older, new) if revision == _MASTER else new


def _paths(listing: Listing, file: File) -> tuple[Path, ...]:
    """A file, and what has been fetched of it so far."""
    path = listing.folder / file.name
    return path, path.with_name(f"{path.name}.incomplete")


@cache
def _quiet() -> None:
    """Keeps the client from printing."""
    download: Any = importlib.import_module("modelscope_hub._download")
    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL + 1)
    download.tqdm = partial(download.tqdm, disable=True)


def _api() -> Any:
    _quiet()
    modelscope_hub: Any = importlib.import_module("modelscope_hub")
    return modelscope_hub.HubApi(modelscope_hub.HubConfig(cache_dir=places.modelscope_cache()))


def _strange() -> DownloadError:
    return DownloadError(
        "{host} does not answer as it should", "look at MODELSCOPE_ENDPOINT and your proxy", host="ModelScope"
    )


def _in_words(error: Exception, name: str) -> DownloadError:
    """Translate an error of the client into one of ours."""
    import requests

    errors: Any = importlib.import_module("modelscope_hub.errors")

    if isinstance(error, DownloadError):
        return error
    if isinstance(error, errors.NotExistError):
        return DownloadError(
            "{host} has no model {name}, or does not show it",
            "look at the spelling; for a private one set MODELSCOPE_API_TOKEN",
            host="ModelScope",
            name=name,
        )
    if isinstance(error, (errors.AuthenticationError, errors.PermissionDeniedError)):
        return DownloadError(
            "{host} gives {name} only to those who have signed in",
            "set MODELSCOPE_API_TOKEN",
            host="ModelScope",
            name=name,
        )
    if isinstance(error, errors.RateLimitError):
        return DownloadError(
            "{host} has had too many requests from here", "try again in some minutes", host="ModelScope"
        )
    if isinstance(error, (errors.NetworkError, requests.Timeout)):
        return Unreachable(
            Phrase("{host} cannot be reached: {reason}", host="ModelScope", reason=why_unreachable(error)),
            Phrase("MODELSCOPE_ENDPOINT names another address; what has been fetched stays"),
        )
    if isinstance(error, OSError):
        folder, reason = places.modelscope_cache(), reason_of(error)
        return DownloadError(
            "{folder} cannot be written: {reason}",
            "MODELSCOPE_CACHE names another place; what has been fetched stays",
            folder=folder,
            reason=reason,
        )
    return DownloadError(
        "{host} does not give {name}: {reason}",
        "try again later; what has been fetched stays",
        host="ModelScope",
        name=name,
        reason=_line(error),
    )


def _line(error: Exception) -> str:
    """The first line of another program's words."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
