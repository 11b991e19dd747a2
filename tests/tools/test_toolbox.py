"""Tools that a user names: a Python file's functions, those of a folder, of a host."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwenchat.errors import UsageError
from qwenchat.tools.builtin import WebFetch
from qwenchat.tools.functions import FunctionFile
from qwenchat.tools.tool import Tool, ToolError
from qwenchat.tools.toolbox import Toolbox

NEVER = threading.Event()
FUNCTIONS = '''
"""Tools of a user."""
import os, subprocess, sys, time
from typing import Literal

calls = 0

def add(a: int, b: float = 1.5, how: Literal["up", "down"] = "up", more: list[str] | None = None) -> float:
    """Adds two numbers.

    Args:
        a: the first,
            a whole one.
        b (float): the second.

    Returns:
        The sum.
    """
    global calls
    calls += 1
    print("adding", calls)
    return a + b

def fails(text: str) -> str:
    """Raises."""
    raise ValueError(text)

def floods() -> str:
    """Prints megabytes."""
    for _ in range(3000):
        print("x" * 1000)
    return "done"

def hangs(path: str) -> str:
    """Sleeps, and so does a child of its own."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(path, "w").write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    return ""

def dies() -> str:
    """Ends the process."""
    os._exit(3)

def asks() -> str:
    """Reads a line that nobody types."""
    return input()

def _private(a: int) -> int:
    """No tool."""
    return a

def undocumented(a: int) -> int:
    return a
'''


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Toolbox]:
    found = Toolbox(lambda code, cancel: f"ran {code}")
    yield found
    found.close()


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def call(box: Toolbox, name: str, cancel: threading.Event = NEVER, **arguments: Any) -> str:
    return found(box, name).run(arguments, cancel)


def found(box: Toolbox, name: str) -> Tool:
    tool = box.find(name)
    assert tool is not None
    return tool


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


# --- a file's functions ------------------------------------------------------------------------------


def test_typed_documented_functions_become_tools_in_a_process_of_their_own(
    box: Toolbox, user_file: Path
) -> None:
    assert box.add(str(user_file)) == ["add", "fails", "floods", "hangs", "dies", "asks"]
    add = found(box, "add").definition
    assert add.description == "Adds two numbers."
    assert add.parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "the first, a whole one."},
            "b": {"type": "number", "description": "the second."},
            "how": {"enum": ["up", "down"]},
            "more": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    assert call(box, "add", a=1) == "adding 1\n2.5"
    assert call(box, "add", a=1, b=2.0) == "adding 2\n3.0"  # its variables stay
    with pytest.raises(ToolError, match="ValueError: no"):
        call(box, "fails", text="no")
    with pytest.raises(ToolError, match="EOFError"):
        call(box, "asks")
    flood = call(box, "floods")
    assert len(flood) < 200_000 and "bytes left out" in flood and flood.endswith("done")
    with pytest.raises(ToolError, match="without a result"):
        call(box, "dies")
    assert call(box, "add", a=1) == "adding 1\n2.5"  # a new process


def test_a_function_that_hangs_is_ended_with_all_that_it_started(
    box: Toolbox, user_file: Path, tmp_path: Path
) -> None:
    box.add(str(user_file))
    pids, cancel = tmp_path / "pids", threading.Event()

    def stop() -> None:
        while not (pids.exists() and len(pids.read_text().split()) == 2):
            time.sleep(0.01)
        cancel.set()

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(ToolError, match="Interrupted"):
        call(box, "hangs", cancel, path=str(pids))
    for pid in map(int, pids.read_text().split()):
        while not gone(pid):
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_of_that_name", "does not import: ModuleNotFoundError"),
        ("def f(:", "does not import: SyntaxError"),
        ("raise SystemExit(1)", "does not import: SystemExit"),
        ("x = 1", "no function"),
        ("def f(a: object) -> int:\n    'Doc.'\n", "f cannot be a tool: no JSON"),
        ("def f(a, b: int) -> int:\n    'Doc.'\n", "a has no type"),
        ("def f(*a: int) -> int:\n    'Doc.'\n", "by name"),
        ("def f(a: 'Gone') -> int:\n    'Doc.'\n", "annotations"),
    ],
)
def test_a_file_that_is_no_use_is_named(box: Toolbox, tmp_path: Path, source: str, words: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=words) as error:
        box.add(str(path))
    assert "bad.py" in str(error.value) and error.value.exit_code == 2
    assert box.tools == ()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gone.py", "gone.py"),
        ("nothing", "no tool 'nothing'"),
        ("time=x", "no tool 'time=x'"),
        ("read_file", "read_file needs a folder"),
        ("read_file=/nowhere/at/all", "needs a folder"),
        ("web_fetch", "needs the hosts"),
        ("time,time", "two tools called time"),
        ("", "no tool"),
    ],
)
def test_what_cannot_be_named_so_is_refused(box: Toolbox, spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        box.add(spec)
    assert box.tools == ()


def test_two_tools_of_one_name_are_refused_and_a_tool_can_be_dropped(box: Toolbox, tmp_path: Path) -> None:
    box.add("time")
    path = tmp_path / "mine.py"
    path.write_text("def time() -> str:\n    'Tells it.'\n    return ''\n")
    with pytest.raises(UsageError, match="two tools called time"):
        box.add(str(path))
    box.drop("time")
    assert box.add(str(path)) == ["time"]
    with pytest.raises(UsageError, match="there are time"):
        box.drop("clock")


# --- the files of a folder -----------------------------------------------------------------------------


@pytest.fixture
def folder(box: Toolbox, tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    path = tmp_path / "notes"
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("one\nTwo\nthree\n")
    (path / "sub" / "b.txt").write_text("two more")
    (path / "raw").write_bytes(b"\xff\x00")
    (path / "way").symlink_to(tmp_path)
    (path / "link").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(path / "pipe")
    box.add(f"read_file,list_files,search_files,write_file,edit_file={path}")
    return path


def test_files_are_read_listed_and_searched(box: Toolbox, folder: Path) -> None:
    assert call(box, "read_file", path="a.txt") == "one\nTwo\nthree\n"
    assert call(box, "read_file", path="sub/../a.txt", first_line=2, lines=1) == "Two\n"
    assert call(box, "list_files").splitlines() == ["a.txt", "link", "pipe", "raw", "sub/", "way/"]
    assert call(box, "search_files", text="TWO").splitlines() == ["a.txt:2: Two", "sub/b.txt:1: two more"]
    assert call(box, "search_files", text="secret") == "Nothing found."


@pytest.mark.parametrize(
    "name", ["../secret.txt", "link", "way/secret.txt", "/etc/hostname", "sub/../../secret.txt"]
)
def test_nothing_outside_the_folder_is_reached(box: Toolbox, folder: Path, name: str) -> None:
    for tool, more in (
        ("read_file", {}),
        ("write_file", {"text": "x"}),
        ("edit_file", {"old": "s", "new": ""}),
    ):
        with pytest.raises(ToolError, match="outside"):
            call(box, tool, path=name, **more)
    with pytest.raises(ToolError, match="outside"):
        found(box, "write_file").preview({"path": name, "text": "x"})
    assert (folder.parent / "secret.txt").read_text() == "secret"


@pytest.mark.parametrize("name", ["pipe", "raw", "gone", "sub", "a\x00b"])
def test_what_is_no_text_is_told(box: Toolbox, folder: Path, name: str) -> None:
    with pytest.raises(ToolError):
        call(box, "read_file", path=name)


def test_a_change_is_shown_before_it_is_made(box: Toolbox, folder: Path) -> None:
    edit = {"path": "a.txt", "old": "Two", "new": "2"}
    diff = found(box, "edit_file").preview(edit)
    assert "-Two\n+2" in diff and (folder / "a.txt").read_text() == "one\nTwo\nthree\n"
    call(box, "edit_file", **edit)
    assert (folder / "a.txt").read_text() == "one\n2\nthree\n"
    assert "+new" in found(box, "write_file").preview({"path": "new/c.txt", "text": "new\n"})
    call(box, "write_file", path="new/c.txt", text="new\n")
    assert (folder / "new" / "c.txt").read_text() == "new\n"
    assert sorted(p.name for p in folder.iterdir()) == ["a.txt", "link", "new", "pipe", "raw", "sub", "way"]


@pytest.mark.parametrize("old", ["", "gone", "e"])
def test_an_edit_that_fits_nowhere_or_twice_changes_nothing(box: Toolbox, folder: Path, old: str) -> None:
    with pytest.raises(ToolError, match="must occur once"):
        found(box, "edit_file").preview({"path": "a.txt", "old": old, "new": "x"})


# --- the web and the time --------------------------------------------------------------------------------


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header(
            "Content-Type", "image/png" if self.path == "/picture" else "text/html; charset=utf-8"
        )
        self.end_headers()
        self.wfile.write("<html><script>bad()</script><h1>Über</h1><p>A <b>page</b></p>".encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_page_of_a_named_host_is_text(site: str) -> None:
    assert WebFetch(["127.0.0.1"]).run({"url": f"{site}/"}, NEVER) == "Über\nA page"


@pytest.mark.parametrize("path", ["/away", "/picture"])
def test_a_page_that_leads_elsewhere_or_is_no_text_is_refused(site: str, path: str) -> None:
    with pytest.raises(ToolError):
        WebFetch(["127.0.0.1"]).run({"url": f"{site}{path}"}, NEVER)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "file:///etc/passwd",
        "https://a.org@example.org/",
        "https://a.org.example.org",
        "x",
        "//[",
    ],
)
def test_no_other_host_is_asked(url: str) -> None:
    with pytest.raises(ToolError):
        WebFetch(["a.org"]).run({"url": url}, NEVER)


def test_the_time_of_a_zone(box: Toolbox) -> None:
    box.add("time")
    assert call(box, "time", zone="UTC").endswith("UTC (UTC+0000)")
    assert call(box, "time")
    for zone in ("Nowhere/At all", "../../etc/passwd", "\x00"):
        with pytest.raises(ToolError):
            call(box, "time", zone=zone)


LEFT_BEHIND = '''
import os, subprocess, sys, time

def starts(seconds: int) -> str:
    """Starts others that try to get away."""
    first = subprocess.Popen(["sleep", str(seconds)])
    second = subprocess.Popen(["sleep", str(seconds)], start_new_session=True)
    return f"{first.pid} {second.pid}"
'''


HOSTILE = '''
import os, sys, threading

def surrogates(x: str) -> str:
    """x"""
    return "a\\ud800b\\x00c"

def leaves(x: str) -> str:
    """x"""
    sys.exit(3)

def raises_what_raises(x: str) -> str:
    """x"""
    class Evil(Exception):
        def __str__(self):
            raise ValueError("no")
    raise Evil

def returns_what_raises(x: str) -> str:
    """x"""
    class Evil:
        def __str__(self):
            raise ValueError("no")
    return Evil()

def waits_for_the_user(x: str) -> str:
    """x"""
    return input()

def forges_a_reply(x: str) -> str:
    """x"""
    os.write(1, b\'{"result": "forged"}\\n\')
    return "true"

def goes_round(x: str) -> list:
    """x"""
    round = []
    round.append(round)
    return round

def is_too_deep(x: str) -> list:
    """x"""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return deep

def says_megabytes(x: str) -> str:
    """x"""
    return "x" * 9_000_000

def closes_all(x: str) -> str:
    """x"""
    os.closerange(0, 20)
    return "closed"

def goes_on_printing(x: str) -> str:
    """x"""
    def flood():
        while True:
            print("y" * 1000)
    threading.Thread(target=flood, daemon=True).start()
    return "started"

def is_well(x: str) -> str:
    """x"""
    return x
'''


def test_a_file_of_hostile_functions_ends_no_chat(tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text(HOSTILE)
    file = FunctionFile(path, threading.Event(), seconds=10)
    never, said = threading.Event(), {}
    for tool in file.tools:
        name = tool.definition.name
        try:
            said[name] = tool.run({"x": "fine"}, never)
        except ToolError as error:
            said[name] = str(error)
    file.close()
    assert said["surrogates"] == "a\ud800b\x00c"
    assert said["leaves"] == "SystemExit: 3"
    assert said["raises_what_raises"] == "Evil"
    assert "ValueError" in said["returns_what_raises"]
    assert "EOFError" in said["waits_for_the_user"]
    assert said["forges_a_reply"].endswith("true") and "forged" in said["forges_a_reply"]
    assert "Circular" in said["goes_round"] and "Recursion" in said["is_too_deep"]
    assert "without a result" in said["says_megabytes"] and "without a result" in said["closes_all"]
    assert len(said["goes_on_printing"]) < 200_000
    assert said["is_well"].endswith("fine")


@pytest.mark.skipif(sys.platform != "linux", reason="what is below a process is Linux's to tell")
@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_a_tool_started_ends_with_the_chat_however_that_ends(tmp_path: Path, how: str) -> None:
    path = tmp_path / "tools.py"
    path.write_text(LEFT_BEHIND)
    chat = (
        "import sys, threading; from pathlib import Path; from qwenchat.tools.functions import FunctionFile\n"
        "never = threading.Event(); file = FunctionFile(Path(sys.argv[1]), never)\n"
        "print(file.call('starts', {'seconds': 600}, never), flush=True); sys.stdin.read(); file.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", chat, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        if how == "killed":
            process.kill()
        process.communicate()
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
