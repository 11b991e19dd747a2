"""Remote models: which name or URL means one, and where its key is.

A remote is a URL of OpenAI's protocol with a model behind ``#``, or a table under ``[remotes]``. Knows no
network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from qwenchat.errors import Phrase, UsageError
from qwenchat.files.opening import read_file, reason_of

SILENCE = 300.0
"""Seconds in which a server may say nothing, where its table says nothing else."""
_LONGEST_KEY = 2**14


@dataclass(frozen=True, slots=True)
class Remote:
    """A model on a server.

    Attributes:
        name: what the user calls it.
        url: the base of the protocol, as in ``https://host/v1``, without a slash at its end.
        model: its name there; empty for the only one.
        key_file, key_env: where its key is; empty for no key.
        ca_file: the certificates to trust instead of the system's; empty for these.
        context: tokens of prompt and reply; None for what the server says.
        silence: seconds in which the server may say nothing.
        allow_http: whether a key may go through a network in the clear.
    """

    name: str
    url: str
    model: str = ""
    key_file: str = ""
    key_env: str = ""
    ca_file: str = ""
    context: int | None = None
    silence: float = SILENCE
    allow_http: bool = False

    @property
    def host(self) -> str:
        """The host, with its port if it has one."""
        return urlsplit(self.url).netloc

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def key(self, environ: Mapping[str, str] = os.environ) -> str:
        """The key; empty if there is none to be.

        Raises:
            UsageError: it is not where it should be, is none, or would go through a network in the clear.
        """
        key = ""
        if self.key_file:
            key = _key_of_file(Path(self.key_file))
        elif self.key_env:
            key = environ.get(self.key_env, "").strip()
            if not key:
                raise UsageError(
                    "{variable}, which holds the key of {name}, is not set",
                    variable=self.key_env,
                    name=self.name,
                )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError("the key of {name} holds more than letters and signs", name=self.name)
        if key and self.url.startswith("http:") and not (self.is_loopback or self.allow_http):
            raise UsageError(
                "the key of {name} would go to {host} unencrypted",
                "use https://; where the network can be trusted, allow_http = true under [remotes.{name}]",
                name=self.name,
                host=self.host,
            )
        return key


def remote_of(name: str, remotes: Mapping[str, Mapping[str, object]]) -> Remote | None:
    """The remote that a model's name means; None if it means something else.

    Raises:
        UsageError: it is a URL that cannot be one.
    """
    if (table := remotes.get(name)) is not None:
        given = {**table, "url": _base(str(table["url"]), name)}
        return Remote(name, **given)  # type: ignore[arg-type]
    if not name.lower().startswith(("http://", "https://")):
        return None
    url, _, model = name.partition("#")
    return Remote(name, _base(url, name), model)


def _base(url: str, name: str) -> str:
    """The base of the protocol: that of a host alone is ``/v1``."""
    parts = _split(url)
    problem = ""
    if parts is None or not parts.hostname:
        problem = Phrase("it names no host")
    elif parts.username is not None or parts.password is not None:
        name, problem = "https://…@…", Phrase("it holds a password; a key stands in key_file under [remotes]")
    elif parts.query:
        problem = Phrase("it holds a query")
    if parts is None or problem:
        raise UsageError("{name} is no URL of a server: {problem}", name=name, problem=problem)
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme.lower()}://{parts.netloc}{path}"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if url.isprintable() and " " not in url else None


def _key_of_file(path: Path) -> str:
    try:
        key = read_file(path.expanduser(), _LONGEST_KEY)[0].decode().strip()
    except (OSError, ValueError, RuntimeError) as error:
        reason = reason_of(error) if isinstance(error, OSError | ValueError) else error
        raise UsageError("the key file {path} cannot be read: {reason}", path=path, reason=reason) from None
    if not key:
        raise UsageError("the key file {path} is empty", path=path)
    return key
