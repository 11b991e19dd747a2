"""The command line's contract: stdout, stderr, exit codes, signals, and what is not imported."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qwenchat import paths
from qwenchat.cli import app
from qwenchat.cli.models import Models
from qwenchat.cli.parser import Group

posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chat: Path
) -> Callable[..., Any]:
    """Runs the command line in this process on the tiny checkpoint."""
    monkeypatch.setenv("QWENCHAT_CHECKPOINT", str(tiny_chat))
    monkeypatch.setenv("QWENCHAT_MAX_NEW_TOKENS", "12")
    monkeypatch.setenv("QWENCHAT_TEMPERATURE", "0")
    monkeypatch.setenv("QWENCHAT_DTYPE", "float32")

    def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        stream = Terminal() if stdin is None else io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr(sys, "stdin", stream)
        code = app.run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Starts the program in a process of its own."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "qwenchat", *arguments], **(streams | options))


# --- stdout is the answer and nothing else -----------------------------------------------------


def test_ask_prints_the_answer_alone_and_ends_the_line(run: Callable[..., Any], tiny_chat: Path) -> None:
    code, out, err = run("ask", "hello")
    assert code == 0
    assert out.endswith("\n")
    assert "\x1b" not in out
    told = [line for line in err.splitlines() if line != "compiling kernels, once"]  # if nobody has before
    assert told[0] == f"answering with {tiny_chat}"


def test_a_pipe_is_answered_without_a_command(run: Callable[..., Any]) -> None:
    assert run(stdin=b"hello\n")[:2] == run("ask", "hello")[:2]


def test_prompt_and_stdin_are_joined_by_a_blank_line(run: Callable[..., Any]) -> None:
    assert run("ask", "Summarise", stdin=b"a\nb\n")[1] == run("ask", "Summarise\n\na\nb")[1]


def test_a_base_model_does_not_chat_but_goes_on_with_a_text(
    run: Callable[..., Any], tiny_chat: Path, home: Path
) -> None:
    (tiny_chat / "generation_config.json").write_text('{"chat_format": "raw"}')
    code, out, err = run("ask", "-m", str(tiny_chat), "hello")
    assert (code, out) == (3, "")
    assert "base model" in err and "--complete" in err
    code, out, err = run("ask", "-m", str(tiny_chat), "--complete", "--json", "--seed", "1", "hello")
    assert code == 0
    assert json.loads(out)["usage"]["prompt_tokens"] == len("hello")  # a token a byte, and no other
    assert json.loads(out)["session"] is None
    assert "no chat" in err
    assert not list(home.rglob("sessions/*.json"))
    for flags in (["-c"], ["-s", "x"], ["--system", "x"]):
        assert run("ask", "-m", str(tiny_chat), "--complete", *flags, "hello")[0] == 2


def test_words_need_no_quotes(run: Callable[..., Any]) -> None:
    assert run("ask", "hello", "there")[1] == run("ask", "hello there")[1]


def test_json_is_one_object_with_usage_and_timings(run: Callable[..., Any], tiny_chat: Path) -> None:
    code, out, _ = run("ask", "hello", "--json")
    reply = json.loads(out)
    assert code == 0
    assert reply["text"] == run("ask", "hello")[1].removesuffix("\n")
    assert reply["model"] == str(tiny_chat)
    assert reply["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 12
    assert set(reply["timings"]) == {"first_token", "prefill", "decode"}


def test_json_echoes_the_seed_also_where_nothing_is_drawn(run: Callable[..., Any]) -> None:
    flags = ("ask", "hello", "--json", "--max-new-tokens", "2", "--temperature")
    assert json.loads(run(*flags, "0", "--seed", "5")[1])["seed"] == 5
    assert json.loads(run(*flags, "0")[1])["seed"] is None
    assert isinstance(json.loads(run(*flags, "1")[1])["seed"], int)


def test_stream_json_is_one_event_a_line(run: Callable[..., Any]) -> None:
    events = [json.loads(line) for line in run("--stream-json", stdin=b"hello")[1].splitlines()]
    assert [event["type"] for event in events[:-1]] == ["text"] * (len(events) - 1)
    assert events[-1]["type"] == "end"
    assert (
        "".join(event["text"] for event in events[:-1])
        == json.loads(run("ask", "hello", "--json")[1])["text"]
    )


def test_both_kinds_of_json_exclude_each_other(run: Callable[..., Any]) -> None:
    assert run("ask", "x", "--json", "--stream-json")[:2] == (2, "")


def test_a_terminal_gets_no_control_characters_from_the_model(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import qwenchat.tokenizer

    monkeypatch.setattr(
        qwenchat.tokenizer.QwenTokenizer, "reply_bytes", lambda self, token: b"\x1b[2J\x07\xc2\x9b"
    )
    piped = run("ask", "x")[1]
    assert piped.startswith("\x1b[2J")  # a pipe gets what the model said
    for flags in ([], ["--json"], ["--stream-json"]):
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        run("ask", "x", *flags)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", screen.getvalue())
        assert "[2J" in screen.getvalue()


def test_quiet_says_nothing_and_stats_say_it_on_stderr(run: Callable[..., Any]) -> None:
    assert run("ask", "x", "-q")[2] == ""
    _, out, err = run("ask", "x", "--stats")
    assert "tokens/s" in err
    assert "kernels on" in err  # what multiplied
    assert "tokens/s" not in out


def test_a_cut_reply_is_said_on_stderr(run: Callable[..., Any]) -> None:
    assert "cut after 12 tokens by --max-new-tokens" in run("ask", "x")[2]


def test_flags_before_the_command_count_too(run: Callable[..., Any]) -> None:
    assert (
        json.loads(run("--json", "--max-new-tokens", "3", "ask", "x")[1])["usage"]["completion_tokens"] == 3
    )
    assert (
        json.loads(run("--max-new-tokens", "3", "ask", "x", "--max-new-tokens", "4", "--json")[1])["usage"][
            "completion_tokens"
        ]
        == 4
    )


def test_stop_strings_may_be_repeated(run: Callable[..., Any]) -> None:
    whole = json.loads(run("ask", "x", "--json")[1])["text"]
    cut = json.loads(run("ask", "x", "--json", "--stop", "\0never", "--stop", whole[4:6])[1])
    assert cut["text"] == whole[: whole.index(whole[4:6])]
    assert cut["finish_reason"] == "stop"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_stdin_is_read_as_a_file_in_a_message_is(run: Callable[..., Any], encoding: str) -> None:
    assert run("ask", stdin="Say hi: é你\r\n".encode(encoding))[:2] == run("ask", "Say hi: é你")[:2]


def test_a_last_word_of_one_dash_reads_stdin(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run("ask", "a\n\nb")[1]
    assert run("ask", "-", stdin=b"a\n\nb\n")[1] == run("ask", "a", "-", stdin=b"b")[1] == plain
    keyboard = Terminal()
    monkeypatch.setattr(keyboard, "buffer", io.BytesIO(b"a\n\nb\n"), raising=False)
    monkeypatch.setattr(sys, "stdin", keyboard)
    assert app.run(["ask", "-"]) == 0
    assert capsys.readouterr().out == plain


# --- errors are one line and an exit code ------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "says"),
    [
        (["ask"], None, 2, "there is no question"),
        ([], None, 2, "a chat needs a terminal"),
        (["ask", "  "], b"\n", 2, "there is no question"),
        (["ask"], b"caf\xe9", 2, "stdin is not UTF-8 text"),
        (["ask", "Describe it"], b"\x89PNG\0\0", 2, "stdin is binary"),
        (["ask", "caf\udce9"], b"say", 2, "the prompt is not UTF-8 text"),
        (["ask", "x", "--system", "\udcff"], None, 2, "--system"),
        (["sessions", "rename", "latest", "caf\udce9"], None, 2, "the title is not UTF-8 text"),
        (["sessions", "fork", "latest", "--title", "\udcff"], None, 2, "the title is not UTF-8 text"),
        (["sessions", "search", "\udcff"], None, 2, "what is searched for is not UTF-8 text"),
        (["--frobnicate"], None, 2, "--frobnicate"),
        (["aks", "x"], None, 2, "aks"),
        (["ask", "x", "--top-p", "3"], None, 2, "--top-p 3"),
        (["ask", "x", "--temperature", "warm"], None, 2, "--temperature"),
        (["ask", "x", "--device", "abacus"], None, 2, "abacus"),
        (["ask", "x", "--context", "9999"], None, 2, "--context 9999"),
        (["ask", "x", "-m", "no-such-model"], None, 3, "no-such-model"),
        (["ask", "x", "-m", "."], None, 3, "config.json is missing"),
        (["ask", "x" * 600], None, 4, "the context holds 512"),
        (["models", "pull", "gpt"], None, 2, "gpt"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    stdin: bytes | None,
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWENCHAT_QUIET", "1")
    found, out, err = run(*arguments, stdin=stdin)
    assert (found, out) == (code, "")
    (line,) = err.splitlines()
    assert says in line
    assert line.startswith("qwenchat: ")


def test_more_stdin_than_any_context_holds_is_refused(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwenchat.cli.ask.MAX_STDIN_BYTES", 2**20)
    assert run(stdin=b"x" * (2**20 + 1))[0] == 4


def test_an_internal_error_is_one_line_and_debug_logs_the_traceback(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("out of\ncheese")

    monkeypatch.setattr("qwenchat.cli.reply.write_reply", fail)
    code, out, err = run("ask", "x", "-q")
    assert (code, out) == (1, "")
    told = "internal error: RuntimeError: out of cheese; run it again with --debug for a traceback"
    assert err == f"qwenchat: {told}\n"

    code, _, err = run("ask", "x", "-q", "--debug")
    log = Path(err.splitlines()[0].removeprefix("debug log: "))
    assert log.is_relative_to(paths.log_dir())
    assert "Traceback" in log.read_text()
    assert "loading weights" in log.read_text()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), f"{'x' * 199}…: File name too long"),
        (OSError(errno.EMFILE, "Too many open files"), "the system: Too many open files"),
    ],
    ids=["a long path", "no path"],
)
def test_what_the_system_refuses_is_no_internal_error(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("qwenchat.cli.reply.write_reply", fail)
    assert run("ask", "x", "-q") == (1, "", f"qwenchat: {told}\n")


@pytest.mark.parametrize("arguments", [["config", "show"], ["models", "list"], ["sessions", "list"]])
def test_a_variable_of_no_setting_is_named_by_every_command_that_reads_settings(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("QWENCHAT_TEMPRATURE", "1")
    told = "QWENCHAT_TEMPRATURE is not a setting and is ignored; did you mean QWENCHAT_TEMPERATURE?\n"
    assert run(*arguments)[2].count(told) == 1
    assert run("-q", *arguments)[2] == ""


@posix
def test_in_a_folder_that_was_deleted_every_command_says_so(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (["ask", "x"], ["doctor"], ["sessions", "list"], ["config", "path"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err == "qwenchat: the current folder was deleted; go to another one\n"
    assert run("--version")[0] == 0


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object", name="_C"),
            3,
            "not enough memory to load libtorch_cpu.so; close other programs",
        ),
        (
            ModuleNotFoundError("No module named 'numba'", name="numba"),
            1,
            "a package cannot be imported: No module named 'numba'; install qwenchat again",
        ),
    ],
)
def test_a_package_that_cannot_be_imported_is_told_as_what_it_is(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: ImportError, code: int, told: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("qwenchat.backends.load.load_requested", fail)
    found, _, err = run("ask", "x", "-q")
    assert found == code
    assert err.startswith(f"qwenchat: {told}")


# --- processes: pipes and signals --------------------------------------------------------------


@posix
def test_a_closed_pipe_ends_quietly_as_sigpipe_would(tiny_chat: Path) -> None:
    with start("ask", "hi", "-m", str(tiny_chat), "--temperature", "0", "-q") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == -signal.SIGPIPE


@posix
def test_help_into_a_closed_pipe_ends_as_quietly() -> None:
    with start("--help") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == -signal.SIGPIPE


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line(tiny_chat: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start("ask", "hi", "-m", str(tiny_chat), "--temperature", "0", "-q", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.decode() == "qwenchat: the answer cannot be written: No space left on device\n"


def run_interrupted(call: str, at_call: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the program and interrupts it, as Ctrl-C would, at the n-th call of a function of the engine."""
    module, _, name = call.rpartition(".")
    code = (
        f"import itertools, os, signal, sys, qwenchat.cli.app as c, {module.partition(':')[0]} as m\n"
        f"owner = m{module.partition(':')[2]}\n"
        f"original, calls = owner.{name}, itertools.count(1)\n"
        "def interrupted(*a, **k):\n"
        f"    if next(calls) == {at_call}: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return original(*a, **k)\n"
        f"owner.{name} = interrupted\n"
        f"sys.exit(c.run({list(arguments)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )


@posix
def test_ctrl_c_keeps_the_part_and_exits_with_130(tiny_chat: Path) -> None:
    process = run_interrupted(
        "qwenchat.engine.torch_runner:.TorchRunner._run",
        5,
        "ask",
        "hi",
        "-m",
        str(tiny_chat),
        "--json",
        "-q",
        "--temperature",
        "0",
    )
    assert process.returncode == 130
    reply = json.loads(process.stdout)
    assert reply["finish_reason"] == "cancelled"
    assert reply["usage"]["completion_tokens"] == 4
    assert process.stderr == b"qwenchat: interrupted; the reply is incomplete\n"


@posix
def test_ctrl_c_while_loading_exits_with_130(tiny_chat: Path) -> None:
    process = run_interrupted(
        "qwenchat.engine.weights.loader:.check_memory", 1, "ask", "hi", "-m", str(tiny_chat), "-q"
    )
    assert process.returncode == 130
    assert process.stdout == b""
    assert process.stderr == b"qwenchat: interrupted\n"


# --- start-up ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["ask", "--help"], ["serve", "--help"], ["config", "show"]]
)
def test_what_needs_no_model_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, qwenchat.cli.app as c\n"
        f"code = c.run({arguments!r})\n"
        "heavy = {'torch', 'transformers', 'numba', 'numpy', 'tiktoken', 'rich', 'prompt_toolkit'}\n"
        "heavy |= {'pydantic', 'starlette', 'uvicorn', 'h11', 'asyncio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [("--help", ""), ("--version", ""), ("sessions --help", "sessions"), ("config path", "config")],
)
def test_only_the_module_of_the_command_at_hand_is_loaded(arguments: str, loaded: str) -> None:
    code = (
        "import sys, qwenchat.cli.app as c\n"
        f"assert c.run({arguments.split()!r}) == 0\n"
        "places = {later.place.partition(':')[0] for later in c.Program.later.values()}\n"
        "print(*(name.rpartition('.')[2] for name in places & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert process.stderr.decode().split() == loaded.split()


@pytest.mark.parametrize("group", [app.Program, Models])
def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with(
    run: Callable[..., Any], group: type[Group]
) -> None:
    for name, later in group.later.items():
        about = " ".join(later.about.split())
        own = run(*(["models"] if group is Models else []), name, "--help")[1].split("\n\n")[1]
        assert " ".join(own.split()) == about


def test_importing_the_package_imports_nothing_but_itself() -> None:
    code = (
        "import sys; import qwenchat\n"
        "loaded = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "assert not loaded & {'torch', 'numpy', 'tiktoken', 'typer', 'pydantic', 'rich'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_chatting_imports_none_of_the_slow_three(tiny_chat: Path) -> None:
    code = (
        "import sys, qwenchat.cli.app as c\n"
        f"code = c.run(['ask', 'hi', '-m', {str(tiny_chat)!r}, '--max-new-tokens', '3'])\n"
        "slow = {'transformers', 'auto_gptq', 'transformers_stream_generator', 'starlette', 'uvicorn'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "sys.exit(code)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )


def test_the_version_is_printed(run: Callable[..., Any]) -> None:
    import qwenchat

    assert run("--version") == (0, f"qwenchat {qwenchat.__version__}\n", "")


# --- settings and models -----------------------------------------------------------------------


def test_config_shows_each_value_with_its_origin(run: Callable[..., Any], home: Path) -> None:
    assert run("config", "init")[0] == 0
    path = home / "config" / "config.toml"
    assert run("config", "path")[1] == f"{path}\n"
    path.write_text("top_p = 0.5\n")
    lines = run("config", "show")[1].splitlines()
    assert any(re.fullmatch(rf"top_p = 0\.5 +# {re.escape(str(path))}", line) for line in lines)
    assert any(re.fullmatch(r"temperature = 0(\.0)? +# QWENCHAT_TEMPERATURE", line) for line in lines)
    assert any(re.fullmatch(r"device = \"auto\" +# default", line) for line in lines)


def test_config_init_leaves_an_existing_file_alone(run: Callable[..., Any], home: Path) -> None:
    path = home / "config" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("top_p = 0.5\n")
    assert run("config", "init")[0] == 2
    assert path.read_text() == "top_p = 0.5\n"


def test_shell_completion_is_offered() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "qwenchat"],
        env=os.environ
        | {"_QWENCHAT_COMPLETE": "complete_bash", "COMP_WORDS": "qwenchat ", "COMP_CWORD": "1"},
        capture_output=True,
        timeout=60,
    )
    assert process.stdout.decode().split()[:1] == ["ask"]
    assert process.returncode == 0


# Numbers, texts, paths (which the shell completes itself), and what only a server or a cache knows.
FREE = {"words", "stop", "title", "tokens", "revision", "dest", "output", "folder", "chart"}
FREE |= {"calibration", "from_file", "file", "schema", "grammar"}
FREE |= {"host", "key_file", "cors", "alias", "concurrency"}
FREE |= {"allow", "choice", "compare", "contexts", "data", "out", "tool", "var"}
FREE |= {"idle"}


def parameters(command: Any) -> Iterator[Any]:
    yield from command.params
    for below in getattr(command, "commands", {}).values():
        yield from parameters(below)


def test_every_value_that_is_one_of_a_few_is_completed() -> None:
    for param in parameters(typer.main.get_command(app.app)):
        is_open = param.type_descriptor.annotation in (int, float, bool) or param.name in FREE
        assert is_open or param._custom_shell_complete is not None, param.name


@pytest.mark.parametrize("name", ["models", "config"])
def test_a_group_alone_prints_what_there_is(run: Callable[..., Any], name: str) -> None:
    code, out, err = run(name)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: qwenchat {name}")


def test_flags_before_config_show_count(run: Callable[..., Any]) -> None:
    assert re.search(r"top_p = 0\.3 +# --top-p", run("--top-p", "0.3", "config", "show")[1])


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "x" * 5000, "a\0b"])
def test_a_name_that_cannot_be_a_folder_is_no_model(run: Callable[..., Any], name: str) -> None:
    assert run("ask", "x", "-m", name)[0] == 3
