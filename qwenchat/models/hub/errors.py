"""Errors of the Hub's client in our words, and the Hub's address, which most of them name."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qwenchat.errors import DownloadError, Phrase
from qwenchat.files.opening import reason_of
from qwenchat.models import places

if TYPE_CHECKING:
    import requests


class Unreachable(DownloadError):
    """There is no answer from where the files are; they may be had elsewhere."""


class Offline(DownloadError):
    """The user has said that nothing is to be fetched."""


class Dropped(DownloadError):
    """A transfer was cut before its end; it can go on."""


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def in_words(error: Exception, name: str, revision: str) -> DownloadError:
    """Translate an error of the client into one of ours."""
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
        return offline_error()
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return DownloadError(
            Phrase("{host} has no model {name}, or does not show it", host=_host(), name=name),
            Phrase("look at the spelling; for a private one set HF_TOKEN"),
        )
    if isinstance(error, RevisionNotFoundError):
        return DownloadError(
            Phrase("{name} has no revision {revision}", name=name, revision=revision),
            Phrase("--revision takes a branch, a tag or a commit; without it, main is fetched"),
        )
    response = getattr(error, "response", None)
    if response is not None:
        return _of_status(response, name)
    if isinstance(error, (requests.exceptions.InvalidHeader, UnicodeEncodeError)):
        return DownloadError("the token cannot be sent", Phrase("look at HF_TOKEN"))
    if isinstance(error, FileMetadataError):
        return strange()
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return Dropped(*_lost(Phrase("the connection was lost")))
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return unreachable(why_unreachable(error))
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return _of_system(error)
    if isinstance(error, ValueError) and "too large" in str(error):
        return DownloadError(
            Phrase("a file of {name} is too large for the Hub's client to fetch in one piece", name=name),
            Phrase("look for a repository with smaller files"),
        )
    return strange()


def _of_status(response: requests.Response, name: str) -> DownloadError:
    from huggingface_hub import get_token

    status, host = response.status_code, _host()
    if status in (401, 403):
        page = f"{endpoint()}/{name}"
        told = Phrase("{host} does not give {name} to the owner of this token", host=host, name=name)
        hint = Phrase("ask for access on {page}, or set another HF_TOKEN", page=page)
        if get_token() is None:
            told = Phrase("{host} gives {name} only to those who have signed in", host=host, name=name)
            hint = Phrase("accept its terms on {page}, then set HF_TOKEN", page=page)
        return DownloadError(told, hint)
    if status == 404:
        return DownloadError(
            Phrase("{host} has no model {name}, or lacks a file of it", host=host, name=name),
            Phrase("look at the spelling; for a private one set HF_TOKEN"),
        )
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        if wait.isdecimal() and len(wait) < 6:
            hint = Phrase("try again in {seconds} s; a token in HF_TOKEN allows more", seconds=wait)
        else:
            hint = Phrase("try again in some minutes; a token in HF_TOKEN allows more")
        return DownloadError(Phrase("{host} has had too many requests from here", host=host), hint)
    if status == 416:  # more was asked for than there is
        return Dropped(*_lost(Phrase("the sizes of what is here and there do not agree")))
    return DownloadError(
        Phrase("{host} answers with error {status}", host=host, status=status),
        Phrase("try again later; what has been fetched stays"),
    )


def _of_system(error: OSError) -> DownloadError:
    """An error of the disk; without a number it is the client's, which got more or less than announced."""
    cache_folder = places.hub_cache()
    if error.errno is None:
        return Dropped(*_lost(Phrase("the file that came has not the size that was announced")))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            Phrase("the disk of {folder} is full", folder=cache_folder),
            Phrase("free some, or name another place with HF_HOME; what has been fetched stays"),
        )
    return DownloadError(
        Phrase("{folder} cannot be written: {reason}", folder=cache_folder, reason=reason_of(error)),
        Phrase("HF_HOME names another place"),
    )


def why_unreachable(error: BaseException) -> str:
    """The reason why there is no connection, in a few words."""
    import requests

    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return Phrase("the proxy does not answer")
    if isinstance(error, requests.exceptions.SSLError):
        return Phrase("its certificate is not accepted")
    if "resolve" in text or "getaddrinfo" in text:
        return Phrase("unknown host")
    if "refused" in text:
        return Phrase("the connection is refused")
    if "unreachable" in text:
        return Phrase("there is no network")
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return Phrase("there was no answer in time")
    return Phrase("the connection was lost")


def unreachable(reason: str) -> Unreachable:
    return Unreachable(
        Phrase("{host} cannot be reached: {reason}", host=_host(), reason=reason),
        Phrase("HF_ENDPOINT names a mirror, and --source modelscope another source"),
    )


def _lost(reason: str) -> tuple[str, str]:
    return reason, Phrase("the same command goes on where it stopped")


def offline_error() -> Offline:
    return Offline(
        Phrase("HF_HUB_OFFLINE is set, so nothing is fetched"), Phrase("unset it, or give a folder")
    )


def strange() -> DownloadError:
    return DownloadError(
        Phrase("{host} does not answer as the Hub does", host=_host()),
        Phrase("look at HF_ENDPOINT and your proxy"),
    )


def _host() -> str:
    """The Hub's name, as it is told."""
    return urlsplit(endpoint()).netloc.rpartition("@")[2] or endpoint()
