"""A server behind TLS: its certificate is checked, by the system's or by one that the remote names."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qwenchat.backends.remote.connection import Connection
from qwenchat.errors import RemoteError, UsageError
from qwenchat.settings.remotes import remote_of
from tests.backends.remote.server import page

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost's, its key behind it."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    made = ["-keyout", path, "-out", path.with_suffix(".crt"), "-addext", "subjectAltName=DNS:localhost"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", "req", "-x509", *curve, *made], check=True, capture_output=True)
    path.write_bytes(path.with_suffix(".crt").read_bytes() + path.read_bytes())
    return path


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    """A server that answers one question after another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(page(200, "text/plain", b"hello"))

    threading.Thread(target=serve, daemon=True).start()
    yield f"https://localhost:{listener.getsockname()[1]}/v1"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(url: str) -> None:
    remote = remote_of("lab", {"lab": {"url": url}})
    assert remote is not None
    with pytest.raises(RemoteError, match=r"certificate of .* is not trusted"):
        Connection(remote).fetch("GET", remote.url)


def test_the_certificates_that_a_remote_names_are_trusted(url: str, certificate: Path) -> None:
    remote = remote_of("lab", {"lab": {"url": url, "ca_file": str(certificate.with_suffix(".crt"))}})
    assert remote is not None
    assert Connection(remote).fetch("GET", remote.url)[1] == b"hello"


def test_those_of_the_environment_are_trusted(
    url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    remote = remote_of(url, {})
    assert remote is not None
    assert Connection(remote).fetch("GET", remote.url)[1] == b"hello"


def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    for text in (None, "no certificate"):
        path = tmp_path / "ca.pem"
        if text is not None:
            path.write_text(text)
        remote = remote_of("lab", {"lab": {"url": "https://localhost/v1", "ca_file": str(path)}})
        assert remote is not None
        with pytest.raises(UsageError, match=r"ca\.pem cannot be read"):
            Connection(remote)
