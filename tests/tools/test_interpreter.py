"""The code interpreter: what code says is told in Qwen's words, and what it was does not end with one run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwenchat.errors import ConfigError, SandboxError
from qwenchat.sandbox import start
from qwenchat.tools.interpreter import NOTHING_PRINTED, Execution, Interpreter, code_of


@pytest.fixture(scope="module", autouse=True)
def a_sandbox() -> None:
    try:
        start.in_force()
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("code")


@pytest.fixture(scope="module")
def interpreter(folder: Path) -> Iterator[Interpreter]:
    one = Interpreter(folder)
    yield one
    one.close()


def ran(interpreter: Interpreter, code: str, cancel: threading.Event | None = None) -> Execution:
    return interpreter.run(code, cancel or threading.Event())


def block(kind: str, text: str) -> str:
    return f"{kind}:\n\n```\n{text}\n```"


def test_what_is_printed_and_the_last_value_are_the_observation(interpreter: Interpreter) -> None:
    done = ran(interpreter, "import sys\nprint('a')\nprint('b')\nprint('c', file=sys.stderr)\n1 + 1")
    blocks = [block("stdout", "a\nb\n"), block("stderr", "c\n"), block("execute_result", "2")]
    assert (done.observation, done.ended) == ("\n\n".join(blocks), "complete")


@pytest.mark.parametrize("code", ["", "x = 1", "None", "1;", "# nothing"])
def test_code_that_says_nothing_has_qwens_own_words(interpreter: Interpreter, code: str) -> None:
    assert ran(interpreter, code).observation == NOTHING_PRINTED


def test_variables_and_functions_stay(interpreter: Interpreter) -> None:
    ran(interpreter, "def double(x):\n    return 2 * x\nn = 21")
    assert ran(interpreter, "double(n)").observation == block("execute_result", "42")


def test_a_mistake_is_told_by_its_line_and_ends_nothing(interpreter: Interpreter) -> None:
    ran(interpreter, "kept = 5")
    done = ran(interpreter, "print('before')\n1 / 0")
    assert done.ended == "error"
    assert done.observation.startswith(
        block("stdout", "before\n") + "\n\nerror:\n\n```\nTraceback (most recent"
    )
    assert done.observation.endswith("ZeroDivisionError: division by zero\n```")
    assert ", line 2, in <module>\n    1 / 0\n    ~~^~~\n" in done.observation
    assert "worker.py" not in done.observation
    assert "SyntaxError" in ran(interpreter, "if").observation
    assert "SystemExit" in ran(interpreter, "exit()").observation
    assert ran(interpreter, "kept").observation == block("execute_result", "5")


def test_nothing_waits_for_a_person(interpreter: Interpreter) -> None:
    for code in ("input('name? ')", "import sys; sys.stdin.readline().strip() or input()"):
        assert "EOFError" in ran(interpreter, code).observation


def test_what_other_programs_print_is_told_in_its_place(interpreter: Interpreter) -> None:
    if "seccomp" in interpreter.sandbox:
        pytest.skip("no other programs are started here")
    done = ran(interpreter, "import os\nprint('first')\nos.system('echo second')\n'third'")
    assert done.observation == block("stdout", "first\nsecond\n") + "\n\n" + block(
        "execute_result", "'third'"
    )


def test_ctrl_c_ends_a_run_and_keeps_the_variables(interpreter: Interpreter, folder: Path) -> None:
    cancel = threading.Event()

    def show(kind: str, text: str) -> None:
        cancel.set()

    done = interpreter.run("before = 1\nprint('there')\nwhile True: pass", cancel, show)
    assert done.ended == "interrupted"
    assert done.observation.endswith("KeyboardInterrupt\n```")
    assert ran(interpreter, "before").observation == block("execute_result", "1")


def test_a_run_has_its_time(folder: Path) -> None:
    interpreter = Interpreter(folder, seconds=0.2)
    try:
        ran(interpreter, "before = 1")
        done = ran(interpreter, "while True: pass")
        words = "Timeout: Code execution exceeded the time limit."
        assert (done.ended, done.observation) == ("timeout", block("error", words))
        assert ran(interpreter, "before").observation == block("execute_result", "1")
    finally:
        interpreter.close()


def test_code_that_hears_nothing_is_ended_and_the_next_run_has_a_new_worker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwenchat.tools.interpreter._GRACE", 0.2)
    interpreter = Interpreter(folder, seconds=0.2)
    try:
        code = "import signal\nfor n in (2, 14): signal.signal(n, signal.SIG_IGN)\nwhile True: pass"
        assert ran(interpreter, code).ended == "died"
        assert interpreter.sandbox == ""
        died = ran(interpreter, "import os; os._exit(3)")
        assert died.ended == "died" and "exit code 3" in died.observation
        assert ran(interpreter, "7").observation == block("execute_result", "7")
    finally:
        interpreter.close()


def test_of_a_flood_the_begin_and_the_end_are_told(interpreter: Interpreter) -> None:
    done = ran(interpreter, "print('begin'); print('x' * 5_000_000); print('end')")
    assert len(done.observation) < 40_000
    assert done.observation.startswith("stdout:\n\n```\nbegin\nxxx")
    assert done.observation.endswith("xxx\nend\n\n```")
    assert "characters left out" in done.observation


def test_what_the_worker_tells_is_not_believed(interpreter: Interpreter) -> None:
    """The code has the descriptor on which events are told."""
    forged = (
        "import os\n"
        'forged = b\'{"type": "picture", "text": "../../etc/passwd"}\\n{"type": 5}\\n\'\n'
        "for fd in range(3, 9):\n"
        "    try:\n"
        "        os.write(fd, b'nonsense\\n[1]\\n' + forged)\n"
        "    except OSError:\n"
        "        pass"
    )
    done = ran(interpreter, forged)
    assert done.pictures == ()
    assert ran(interpreter, "7").ended in ("complete", "died")


def test_files_go_in_and_out(interpreter: Interpreter, folder: Path, tmp_path: Path) -> None:
    interpreter.put("data.csv", b"a,b\n1,2\n")
    done = ran(interpreter, "open('out.txt', 'w').write(open('data.csv').read().upper());")
    assert done.files == (folder / "out.txt",)
    assert (folder / "out.txt").read_text() == "A,B\n1,2\n"


def test_a_file_is_not_put_through_a_link_that_the_code_laid(
    interpreter: Interpreter, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    ran(interpreter, f"import os; os.symlink({str(outside)!r}, 'laid.txt')")
    interpreter.put("laid.txt", b"new")
    assert (outside.read_text(), (folder / "laid.txt").read_text()) == ("mine", "new")


def test_names_that_qwens_interpreter_has_imported_are_there(interpreter: Interpreter) -> None:
    assert ran(interpreter, "math.floor(2.5), np.arange(2).sum()").observation.startswith("execute_result")


def test_a_figure_is_a_picture_in_the_folder(interpreter: Interpreter, folder: Path) -> None:
    """By a matplotlib of two functions: the real one is not ours to bring."""
    fake = (
        "import sys, types\n"
        "plt = types.ModuleType('matplotlib.pyplot')\n"
        "plt.rcParams = {'font.sans-serif': ['mine']}\n"
        "plt.get_fignums = lambda: [1, 2]\n"
        "plt.figure = lambda n: types.SimpleNamespace(savefig=lambda path: open(path, 'w').close())\n"
        "plt.close = lambda which: None\n"
        "sys.modules['matplotlib.pyplot'] = plt\n"
        "print('drawn')"
    )
    done = ran(interpreter, fake)
    assert (
        done.observation
        == block("stdout", "drawn\n") + "\n\n![fig-001](fig-001.png)\n\n![fig-002](fig-002.png)"
    )
    assert done.pictures == (folder / "fig-001.png", folder / "fig-002.png")
    assert done.files == ()
    ran(interpreter, "del sys.modules['matplotlib.pyplot']")


def test_an_interpreter_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing-here"):
        ran(Interpreter(tmp_path / "a", python="/nothing-here"), "1")
    with pytest.raises(ConfigError, match="true"):
        ran(Interpreter(tmp_path / "a", python="/bin/true"), "1")


def test_the_user_names_an_interpreter(tmp_path: Path) -> None:
    other = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    interpreter = Interpreter(tmp_path / "a", python=str(other / "bin" / "python"))
    try:
        assert ran(interpreter, "import sys; sys.prefix").observation == block(
            "execute_result", repr(str(other))
        )
    finally:
        interpreter.close()


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("```py\nprint(1)\n```", "print(1)"),
        ("text ```\na = 1\nb = 2\n``` more ```\nc\n```", "a = 1\nb = 2"),
        ("`print(1)`", "print(1)"),
        ('{"code": "print(1)"}', "print(1)"),
        ("{'code': 'print(1)'}", "print(1)"),
        ("{'code': broken", "{'code': broken"),
        ('{"other": 1}', '{"other": 1}'),
        ("  print(1)\n", "print(1)"),
    ],
)
def test_the_code_of_a_call(written: str, code: str) -> None:
    assert code_of(written) == code
