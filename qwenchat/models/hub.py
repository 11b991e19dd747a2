"""The Hub: which files a repository has, and how they get into the Hub's own cache.

Owns the dealings with huggingface_hub: what it is told, and what its errors mean to a user. Decides nothing:
which files, how often it is tried again and what is verified is ``pull``'s.

huggingface_hub does the fetching because other programs share its cache, and users have set it up: HF_HOME,
HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, their proxies and certificates hold. It is kept from printing, from
telemetry, and from Xet, whose transfers begin anew where these go on.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qwenchat.errors import DownloadError
from qwenchat.language import tr
from qwenchat.models import digests, places
from qwenchat.models.records import File

if TYPE_CHECKING:
    import requests

CHUNK = 2**18
"""Bytes that are lost at most when a transfer is cut; the client's own are forty times as many."""
_TIMEOUT = 10.0  # seconds
_REACHABLE_TIMEOUT = 3.0
_SILENT = 60  # above every level of the standard library's logging
_MAIN = "main"
_ETAG = re.compile(r"[\w:=+-][\w.:=+-]{,199}", re.ASCII)
_LONGEST = 32 * 2**20  # bytes of an answer that is no file
_MOST: ContextVar[int] = ContextVar("_MOST", default=_LONGEST)
"""Bytes that an answer may have: without an end to it, it would fill the memory or the disk."""


class Unreachable(DownloadError):
    """There is no answer from where the files are; they may be had elsewhere."""


class Dropped(DownloadError):
    """A transfer was cut before its end; it can go on."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source has of a model.

    Attributes:
        name: "org/model", as the source spells it.
        revision: the one that was found: a commit of the Hub, a branch of ModelScope.
        folder: where its files will be.
        files: all of them, with names as they came; a digest is empty where none was told.
        asked: the revision that was asked for, a branch, tag or commit.
    """

    name: str
    revision: str
    folder: Path
    files: tuple[File, ...]
    asked: str


class Hub:
    """The Hub as a source of files; a :class:`qwenchat.models.pull.Origin`."""

    source: places.Source = "hub"

    def listing(self, name: str, revision: str | None) -> Listing:
        """What the Hub has of a model.

        Raises:
            Unreachable: it does not answer.
            DownloadError: it has no such model or revision, or does not give it.
        """
        if offline():
            raise _offline_error()
        asked = revision or _MAIN
        try:
            api = _client().HfApi(endpoint=endpoint())
            info = api.model_info(name, revision=asked, files_metadata=True, timeout=_TIMEOUT)
            files = tuple(_file(sibling) for sibling in info.siblings or ())
            name, commit = _own_spelling(str(info.id), name), str(info.sha)
        except Exception as error:
            raise in_words(error, name, asked) from error
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise _strange()
        folder = places.hub_folder(name) / "snapshots" / commit
        return Listing(name, commit, folder, files, asked)

    def fetch(self, listing: Listing, file: File) -> None:
        """Brings a file into the cache; what is there of it is not fetched again, nor verified.

        Raises:
            Dropped: the transfer was cut.
            DownloadError: it is not given, or cannot be written.
        """
        client = _client()
        from huggingface_hub import constants

        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
        most = _MOST.set(max(file.size, _LONGEST))
        try:
            client.hf_hub_download(
                listing.name,
                file.name,
                revision=listing.revision,
                cache_dir=places.hub_cache(),
                endpoint=endpoint(),
            )
        except Exception as error:
            raise in_words(error, listing.name, listing.asked) from error
        finally:
            _MOST.reset(most)

    def present(self, listing: Listing, file: File) -> int:
        """How many bytes of a file are there, verified or not."""
        for path in (listing.folder / file.name, *_blobs(listing, file)):
            with suppress(OSError):
                return path.stat().st_size
        return 0

    def discard(self, listing: Listing, file: File) -> None:
        """Removes all that is there of a file."""
        link, blobs = listing.folder / file.name, _blobs(listing, file)
        with suppress(OSError, RuntimeError):  # a circle of links is a RuntimeError
            content = link.resolve()
            if content.parent == blobs[0].parent.resolve():  # under whatever name the server gave it
                content.unlink()
        for path in (link, *blobs):
            path.unlink(missing_ok=True)

    def finish(self, listing: Listing) -> None:
        """Makes the revision the one that its branch or tag means in this cache."""
        if places.is_plain(listing.asked) and listing.asked != listing.revision:
            refs = places.hub_folder(listing.name) / "refs"
            with suppress(OSError, ValueError):  # a cache that is whole need not be writable
                if (refs / listing.asked).read_text(encoding="utf-8") == listing.revision:
                    return
            refs.mkdir(parents=True, exist_ok=True)
            fresh = refs / f".{listing.asked}.{os.getpid()}"
            fresh.write_text(listing.revision, encoding="utf-8")
            fresh.replace(refs / listing.asked)


def _own_spelling(told: str, asked: str) -> str:
    """The name as the Hub spells it, where that differs in capitals alone: a model lies in one place."""
    return told if places.is_name(told) and told.lower() == asked.lower() else asked


def _file(sibling: Any) -> File:
    lfs = sibling.lfs
    digest = f"sha256:{lfs.sha256}" if lfs else f"git:{sibling.blob_id}"
    known = digests.by_name_of(digest.partition(":")[2]) == digest
    return File(str(sibling.rfilename), int(lfs.size if lfs else sibling.size), digest if known else "")


def _blobs(listing: Listing, file: File) -> tuple[Path, Path]:
    """Where a file's content lies in the cache, and what has been fetched of it so far."""
    blobs = places.hub_folder(listing.name) / "blobs"
    name = file.digest.partition(":")[2]
    return blobs / name, blobs / f"{name}.incomplete"


# --- the client ----------------------------------------------------------------------------------


@cache
def _client() -> Any:
    """huggingface_hub, set up once."""
    # Some it reads while it is imported.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DISABLE_XET = True
    constants.HF_HUB_ENABLE_HF_TRANSFER = False  # it cannot go on where it stopped either
    logging.set_verbosity(_SILENT)
    disable_progress_bars()
    huggingface_hub.configure_http_backend(_guarded_session)
    return huggingface_hub


def _guarded_session() -> requests.Session:
    from huggingface_hub.utils._http import _default_backend_factory

    session = _default_backend_factory()
    session.hooks["response"] += [_check_names, _limit]
    return session


def _limit(response: requests.Response, **_: object) -> None:
    """Stops a response that does not end where it should; what it announces is not believed."""
    stream = response.raw.stream

    def limited(*arguments: Any, **options: Any) -> Iterator[bytes]:
        left = _MOST.get()
        for piece in stream(*arguments, **options):
            left -= len(piece)
            if left < 0:
                response.close()
                raise _strange()
            yield piece

    response.raw.stream = limited


def _check_names(response: requests.Response, **_: object) -> None:
    """Stops at a response that would name a file outside of the cache: a HEAD's ETag becomes a name."""
    for header in ("ETag", "X-Linked-ETag") if response.request.method == "HEAD" else ():
        value = response.headers.get(header)
        if value is not None and not _ETAG.fullmatch(value.removeprefix("W/").strip('"')):
            response.close()
            raise _strange()


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the user has said that nothing is to be fetched."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def reachable() -> str | None:
    """Why the Hub cannot be reached, in words; None if it answers. Takes a few seconds at most."""
    if offline():
        return tr("HF_HUB_OFFLINE is set")
    reason: list[str | None] = [tr("there was no answer in time")]

    def ask() -> None:
        try:
            answer = _client().utils.get_session().head(endpoint(), timeout=_REACHABLE_TIMEOUT)
            bad = answer.status_code >= 500
            reason[0] = tr("it answers with error {status}", status=answer.status_code) if bad else None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
            reason[0] = why_unreachable(error)

    # Looking up a name has no timeout of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * _REACHABLE_TIMEOUT)
    return reason[0]


# --- errors in words -----------------------------------------------------------------------------


def in_words(error: Exception, name: str, revision: str) -> DownloadError:
    """What an error of the client means to a user."""
    import requests
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, DownloadError):
        return error
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return in_words(error.__cause__, name, revision)  # it only tells that there is nothing else
    if isinstance(error, OfflineModeIsEnabled):
        return _offline_error()
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return DownloadError(
            tr("{host} has no model {name}, or does not show it", host=_host(), name=name),
            tr("look at the spelling; for a private one set HF_TOKEN"),
        )
    if isinstance(error, RevisionNotFoundError):
        return DownloadError(
            tr("{name} has no revision {revision}", name=name, revision=revision),
            tr("--revision takes a branch, a tag or a commit; without it, main is fetched"),
        )
    response = getattr(error, "response", None)
    if response is not None:
        return _of_status(response, name)
    if isinstance(error, (requests.exceptions.InvalidHeader, UnicodeEncodeError)):
        return DownloadError(tr("the token cannot be sent"), tr("look at HF_TOKEN"))
    if isinstance(error, FileMetadataError):
        return _strange()
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return Dropped(*_lost(tr("the connection was lost")))
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        reason = why_unreachable(error)
        return Unreachable(
            tr("{host} cannot be reached: {reason}", host=_host(), reason=reason),
            tr("HF_ENDPOINT names a mirror, and --source modelscope another source"),
        )
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return _of_system(error)
    if isinstance(error, ValueError) and "too large" in str(error):
        return DownloadError(
            tr("a file of {name} is too large for the Hub's client to fetch in one piece", name=name),
            tr("look for a repository with smaller files"),
        )
    return _strange()


def _of_status(response: requests.Response, name: str) -> DownloadError:
    status, host = response.status_code, _host()
    if status in (401, 403):
        page = f"{endpoint()}/{name}"
        told = tr("{host} does not give {name} to the owner of this token", host=host, name=name)
        hint = tr("ask for access on {page}, or set another HF_TOKEN", page=page)
        if _client().get_token() is None:
            told = tr("{host} gives {name} only to those who have signed in", host=host, name=name)
            hint = tr("accept its terms on {page}, then set HF_TOKEN", page=page)
        return DownloadError(told, hint)
    if status == 404:
        return DownloadError(
            tr("{host} has no model {name}, or lacks a file of it", host=host, name=name),
            tr("look at the spelling; for a private one set HF_TOKEN"),
        )
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        if wait.isdecimal() and len(wait) < 6:
            hint = tr("try again in {seconds} s; a token in HF_TOKEN allows more", seconds=wait)
        else:
            hint = tr("try again in some minutes; a token in HF_TOKEN allows more")
        return DownloadError(tr("{host} has had too many requests from here", host=host), hint)
    if status == 416:  # more was asked for than there is
        return Dropped(*_lost(tr("the sizes of what is here and there do not agree")))
    return DownloadError(
        tr("{host} answers with error {status}", host=host, status=status),
        tr("try again later; what has been fetched stays"),
    )


def _of_system(error: OSError) -> DownloadError:
    """An error of the disk; without a number it is the client's, which got more or less than announced."""
    cache_folder = places.hub_cache()
    if error.errno is None:
        return Dropped(*_lost(tr("the file that came has not the size that was announced")))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            tr("the disk of {folder} is full", folder=cache_folder),
            tr("free some, or name another place with HF_HOME; what has been fetched stays"),
        )
    return DownloadError(
        tr("{folder} cannot be written: {reason}", folder=cache_folder, reason=error.strerror or str(error)),
        tr("HF_HOME names another place"),
    )


def why_unreachable(error: BaseException) -> str:
    """Why there is no connection, in a few words."""
    import requests

    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return tr("the proxy does not answer")
    if isinstance(error, requests.exceptions.SSLError):
        return tr("its certificate is not accepted")
    if "resolve" in text or "getaddrinfo" in text:
        return tr("its name is not known")
    if "refused" in text:
        return tr("the connection is refused")
    if "unreachable" in text:
        return tr("there is no network")
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return tr("there was no answer in time")
    return tr("the connection was lost")


def _lost(reason: str) -> tuple[str, str]:
    return reason, tr("the same command goes on where it stopped")


def _offline_error() -> DownloadError:
    return DownloadError(tr("HF_HUB_OFFLINE is set, so nothing is fetched"), tr("unset it, or give a folder"))


def _strange() -> DownloadError:
    return DownloadError(
        tr("{host} does not answer as the Hub does", host=_host()), tr("look at HF_ENDPOINT and your proxy")
    )


def _host() -> str:
    """The Hub's name, as it is told."""
    return urlsplit(endpoint()).netloc.rpartition("@")[2] or endpoint()
