"""The Hub: which files a repository has, and how they get into the Hub's own cache.

Owns the dealings with huggingface_hub and what it is told; what its errors mean is ``errors``'s. Decides
nothing: which files, how often it is tried again and what is verified is ``pull``'s.

huggingface_hub does the fetching because other programs share its cache, and users have set it up: HF_HOME,
HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, their proxies and certificates hold. It is kept from printing, from
telemetry, and from Xet, whose transfers begin anew where these go on.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenchat.errors import Phrase
from qwenchat.files.opening import read_file, resolved
from qwenchat.files.text import write_text
from qwenchat.models import digests, places
from qwenchat.models.hub import answers
from qwenchat.models.hub.errors import endpoint, in_words, offline_error, strange, why_unreachable
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


@dataclass(frozen=True, slots=True)
class Listing:
    """A source's listing of a model.

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
    """The Hub as a source of files; a :class:`qwenchat.models.hub.pull.Origin`."""

    source: places.Source = "hub"

    def listing(self, name: str, revision: str | None) -> Listing:
        """List a model on the Hub.

        Raises:
            Unreachable: it does not answer.
            DownloadError: it has no such model or revision, or does not give it.
        """
        if offline():
            raise offline_error()
        asked = revision or _MAIN
        try:
            api = library().HfApi(endpoint=endpoint())
            ask = partial(api.model_info, name, revision=asked, files_metadata=True, timeout=_TIMEOUT)
            info = answers.within(answers.LISTING_SECONDS, ask)
            files = tuple(_file(sibling) for sibling in info.siblings or ())
            name, commit = _own_spelling(str(info.id), name), str(info.sha)
        except Exception as error:
            raise in_words(error, name, asked) from error
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise strange()
        folder = places.hub_folder(name) / "snapshots" / commit
        return Listing(name, commit, folder, files, asked)

    def fetch(self, listing: Listing, file: File) -> None:
        """Brings a file into the cache; what is there of it is not fetched again, nor verified.

        Raises:
            Dropped: the transfer was cut.
            DownloadError: it is not given, or cannot be written.
        """
        client = library()
        from huggingface_hub import constants

        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
        try:
            with answers.of_file(file.size):
                client.hf_hub_download(
                    listing.name,
                    file.name,
                    revision=listing.revision,
                    cache_dir=places.hub_cache(),
                    endpoint=endpoint(),
                )
        except Exception as error:
            raise in_words(error, listing.name, listing.asked) from error

    def present(self, listing: Listing, file: File) -> int:
        """The number of bytes of a file that are there, verified or not."""
        for path in (listing.folder / file.name, *_blobs(listing, file)):
            with suppress(OSError):
                return path.stat().st_size
        return 0

    def discard(self, listing: Listing, file: File) -> None:
        """Removes all that is there of a file."""
        link, blobs = listing.folder / file.name, _blobs(listing, file)
        with suppress(OSError):
            content = resolved(link)
            if content.parent == resolved(blobs[0].parent):  # under whatever name the server gave it
                content.unlink()
        for path in (link, *blobs):
            path.unlink(missing_ok=True)

    def finish(self, listing: Listing) -> None:
        """Makes the revision the one that its branch or tag means in this cache."""
        if places.is_plain(listing.asked) and listing.asked != listing.revision:
            refs = places.hub_folder(listing.name) / "refs"
            with suppress(OSError, ValueError):  # a cache that is whole need not be writable
                if read_file(refs / listing.asked, 100)[0] == listing.revision.encode():
                    return
            refs.mkdir(parents=True, exist_ok=True)
            write_text(refs / listing.asked, listing.revision, overwrite=True)


def _own_spelling(told: str, asked: str) -> str:
    """The name as the Hub spells it, where that differs in capitals alone: a model lies in one place."""
    return told if places.is_name(told) and told.lower() == asked.lower() else asked


def _file(sibling: Any) -> File:
    lfs = sibling.lfs
    digest = f"sha256:{lfs.sha256}" if lfs else f"git:{sibling.blob_id}"
    known = digests.by_name_of(digest.partition(":")[2]) == digest
    size = answers.size_of(lfs.size if lfs else sibling.size)
    return File(str(sibling.rfilename), size, digest if known else "")


def _blobs(listing: Listing, file: File) -> tuple[Path, Path]:
    """The blob of a file in the cache, and its unfinished part."""
    blobs = places.hub_folder(listing.name) / "blobs"
    name = file.digest.partition(":")[2]
    return blobs / name, blobs / f"{name}.incomplete"


# --- the client ----------------------------------------------------------------------------------


@cache
def library() -> Any:
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
    session.hooks["response"].append(_check_names)
    answers.guard(session, strange)
    return session


def _check_names(response: requests.Response, **_: object) -> None:
    """Stops at a response that would name a file outside of the cache: a HEAD's ETag becomes a name."""
    for header in ("ETag", "X-Linked-ETag") if response.request.method == "HEAD" else ():
        value = response.headers.get(header)
        if value is not None and not _ETAG.fullmatch(value.removeprefix("W/").strip('"')):
            response.close()
            raise strange()


def offline() -> bool:
    """True if the user has said that nothing is to be fetched."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def reachable() -> str | None:
    """The reason why the Hub cannot be reached; None if it answers. Takes a few seconds at most."""
    if offline():
        return Phrase("HF_HUB_OFFLINE is set")
    reason: list[str | None] = [Phrase("there was no answer in time")]

    def ask() -> None:
        try:
            answer = library().utils.get_session().head(endpoint(), timeout=_REACHABLE_TIMEOUT)
            bad = answer.status_code >= 500
            reason[0] = Phrase("it answers with error {status}", status=answer.status_code) if bad else None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
            reason[0] = why_unreachable(error)

    # Looking up a name has no timeout of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * _REACHABLE_TIMEOUT)
    return reason[0]
