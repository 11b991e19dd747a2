"""``qwenchat doctor`` as a user meets it: what it finds, and that its exit code is a chat's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qwenchat.cli import app
from qwenchat.doctor import confinement
from qwenchat.doctor.findings import Finding
from qwenchat.engine import memory
from qwenchat.errors import SandboxError
from qwenchat.i18n import language
from qwenchat.models import catalog, published
from qwenchat.models.shapes import SHAPES
from qwenchat.sandbox import start
from qwenchat.sandbox.trial import run
from qwenchat.sandbox.trial.run import Outcome
from tests.backends.remote.server import REPLY, serving

CLOSED = "http://127.0.0.1:9"  # a port that nobody listens on
GIB = 2**30


@pytest.fixture(autouse=True)
def nothing_can_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{CLOSED}/simple")
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)


@pytest.fixture(autouse=True)
def nothing_is_confined(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes seconds, and has a test of its own."""
    if "sandbox" not in request.node.name:
        told = Finding("sandbox", "good", "namespaces"), (Outcome("files", "read", "denied", ""),)
        monkeypatch.setattr("qwenchat.doctor.confinement.sandbox", lambda: told)


@pytest.fixture
def with_demo(demo_folder: Path) -> None:
    """The built-in model is on this machine."""
    models = catalog.made_models_dir()
    models.parent.mkdir(parents=True)
    models.symlink_to(demo_folder.parent)


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = app.run(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def finding(report: dict[str, Any], area: str) -> dict[str, Any]:
    found: dict[str, Any] = next(f for f in report["findings"] if f["area"] == area)
    return found


@pytest.mark.usefixtures("with_demo")
def test_a_chat_with_the_built_in_model_would_work(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = examined(capsys)
    assert (code, report["works"], report["exit_code"]) == (0, True, 0)
    assert "SmolLM2-135M-Instruct" in report["chat"]
    assert "Qwen/Qwen-7B-Chat-Int8 is not downloaded" in report["chat"]
    assert [m["name"] for m in report["models"]] == [known.name for known in published.KNOWN]
    assert (
        finding(report, "processor")["kernels"].endswith("kernels on 2 threads")
        or finding(report, "processor")["kernels"]
    )
    hub = finding(report, "hub")
    assert (hub["state"], hub["reachable"], hub["endpoint"]) == ("note", False, CLOSED)
    assert not any(f["state"] == "bad" for f in report["findings"])


@pytest.mark.usefixtures("with_demo")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_chat_that_cannot_be_saved_has_no_bare_tick(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "full":
        monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=40_000))
    else:
        monkeypatch.setattr("os.access", lambda folder, mode: False)
    code, report = examined(capsys)
    assert (code, report["works"]) == (0, True)
    assert finding(report, "sessions")["state"] == "bad"
    assert ("40.0 kB free" in finding(report, "sessions")["text"]) == (trouble == "full")
    assert report["hint"] == "it is not saved"
    app.run(["doctor"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("· chat")


@pytest.mark.usefixtures("with_demo")
def test_the_text_has_a_line_for_each_finding_and_model_and_no_escape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.run(["doctor"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    areas = [line.split()[1] for line in lines if line[:1] in "✓·✗" and line]
    assert areas == [
        "program", "torch", "gpu", "processor", "memory",
        "settings", "sessions", "cache", "checkpoints", "hub", "quantize", "sandbox",
        "best", "prompt", "chat",
    ]  # fmt: skip
    assert sum(line.startswith(("qwen", "qwq")) for line in lines) == len(SHAPES)
    assert "\x1b" not in said.out + said.err


@pytest.mark.usefixtures("with_demo")
def test_the_system_prompt_in_force_is_told_and_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = finding(examined(capsys)[1], "prompt")
    assert own["of"] == "model"
    assert own["text"] == f"the model's own system prompt: {own['system']}"
    assert own["system"]
    monkeypatch.setenv("QWENCHAT_SYSTEM", "Be brief.")
    yours = finding(examined(capsys)[1], "prompt")
    assert (yours["of"], yours["text"]) == ("settings", "your system prompt: Be brief.")


@pytest.mark.usefixtures("with_demo")
def test_the_best_chat_for_the_memory_of_the_machine_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qwenchat.doctor.machine.available_bytes", lambda device: 8 * 2**30)
    best = finding(examined(capsys)[1], "best")
    assert best["name"] in {known.name for known in published.KNOWN}
    assert best["text"].startswith("qwen")
    assert best["hint"].startswith("qwenchat models pull qwen")
    monkeypatch.setattr("qwenchat.doctor.machine.available_bytes", lambda device: 2**27)
    assert finding(examined(capsys)[1], "best")["text"] == "no published chat fits cpu"


def test_without_any_model_the_exit_code_is_that_of_a_chat(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = examined(capsys)
    assert (code, report["works"], report["exit_code"]) == (3, False, 3)
    assert "the package index cannot be reached" in report["chat"]
    assert "qwenchat models pull demo --from FILE" in report["hint"]


def test_a_checkpoint_of_the_users_is_looked_at_like_a_chat_would(
    tiny_chat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = examined(capsys, "-m", str(tiny_chat))
    assert (code, report["chat"]) == (0, f"a chat would use {tiny_chat}")
    (tiny_chat / "model.safetensors").write_bytes(b"not tensors")
    code, report = examined(capsys, "-m", str(tiny_chat))
    assert code == 3
    assert "model.safetensors" in report["chat"]
    code, report = examined(capsys, "-m", str(tiny_chat / "nothing"))
    assert code == 3


def test_a_server_is_asked_like_a_chat_would(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(REPLY) as server:
        code, report = examined(capsys, "-m", f"{server.url}#m")
        address = server.url.removeprefix("http://").removesuffix("/v1")
    assert (code, report["chat"]) == (0, f"a chat would use {server.url}#m (m, {address})")
    code, report = examined(capsys, "-m", f"{server.url}#m")
    assert code == 3
    assert "cannot be reached" in str(report)


def test_a_checkpoint_without_a_vocabulary_cannot_chat(
    tiny_chat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_chat / "bytes.tiktoken").unlink()
    code, report = examined(capsys, "-m", str(tiny_chat))
    assert code == 3
    assert ".tiktoken" in report["chat"]


@pytest.mark.usefixtures("with_demo")
def test_memory_that_does_not_suffice_is_told_as_a_chat_would(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((tiny_chat / "config.json").read_text())
    (tiny_chat / "config.json").write_text(json.dumps(config | {"seq_length": 2**20}))
    monkeypatch.setattr(memory, "available_bytes", lambda device: GIB)
    code, report = examined(capsys, "-m", str(tiny_chat))
    assert code == 3
    assert "1.0 GiB free" in report["chat"]
    monkeypatch.setenv("QWENCHAT_CHECKPOINT", str(tiny_chat))
    code, report = examined(capsys)
    assert code == 0
    assert "1.0 GiB free" in report["chat"]
    assert "SmolLM2-135M-Instruct" in report["chat"]


@pytest.mark.usefixtures("with_demo")
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("QWENCHAT_DTYPE", "int3", "QWENCHAT_DTYPE"),
        ("QWENCHAT_DEVICE", "cuda:9", "cuda:9"),
        ("QWENCHAT_CONTEXT", "100000000", "--context"),
    ],
)
def test_a_setting_that_cannot_be_is_named_and_the_rest_is_looked_at(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    code, report = examined(capsys, "-m", "demo")
    assert code == 2
    assert words in report["chat"]
    assert len(report["models"]) == len(published.KNOWN)


@pytest.mark.usefixtures("with_demo")
def test_the_built_in_model_answers_within_its_own_context_where_it_stands_in_for_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWENCHAT_CONTEXT", "100000000")
    monkeypatch.setenv("QWENCHAT_BACKEND", "huggingface")
    code, report = examined(capsys)
    assert (code, report["works"]) == (0, True)


@pytest.mark.usefixtures("with_demo")
def test_what_the_settings_say_is_told_with_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWENCHAT_TOP_K", "40")
    monkeypatch.setenv("QWENCHAT_TOPP", "1")
    code, report = examined(capsys)
    settings = finding(report, "settings")
    assert settings["settings"]["top_k"] == {"value": "40", "origin": "QWENCHAT_TOP_K"}
    assert "top_k = 40 (QWENCHAT_TOP_K)" in settings["text"]
    assert settings["state"] == "note"
    assert "QWENCHAT_TOPP" in settings["hint"]
    assert code == 0


@pytest.mark.usefixtures("with_demo")
def test_a_model_fits_as_the_free_memory_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qwenchat.doctor import machine

    monkeypatch.setattr(machine, "available_bytes", lambda device: 16 * GIB)
    _, report = examined(capsys)
    fits = {m["name"]: m["devices"][-1]["fits"] for m in report["models"]}
    keys = {"device", "needed", "free", "kernels", "why_not", "fits"}
    assert all(set(device) == keys for m in report["models"] for device in m["devices"])
    assert fits["Qwen/Qwen-7B-Chat-Int8"]
    assert not fits["Qwen/Qwen-72B-Chat"]


def test_it_speaks_the_language_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWENCHAT_LANGUAGE", "zh")
    _, report = examined(capsys)
    language.use("en")
    assert "对话会失败" in report["chat"]


def test_a_torch_that_cannot_be_imported_is_named(tmp_path: Path, home: Path) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise ImportError('no libc10.so\\x1b[2J')")
    child = subprocess.run(
        [sys.executable, "-m", "qwenchat", "doctor"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "broken")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 1
    assert "✗ torch" in child.stdout
    assert "no libc10.so" in child.stdout
    assert "\x1b" not in child.stdout
    assert "Traceback" not in child.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_named_and_comes_first(tiny_chat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers_stream_generator", reason="the doctor asks for every package")
    code, report = examined(capsys, "-m", str(tiny_chat))
    assert code == 0
    assert finding(report, "gpu")["state"] == "good"
    assert [d["device"] for d in report["models"][0]["devices"]] == ["cuda:0", "cpu"]
    assert report["models"][0]["devices"][0]["kernels"] == "Triton, CUDA graph"


def test_the_sandbox_is_tried() -> None:
    try:
        name = start.in_force()
    except SandboxError as error:
        pytest.skip(str(error))
    found, outcomes = confinement.sandbox()
    assert (found.state, found.facts["sandbox"]) == ("good", name)
    assert {outcome.kind for outcome in outcomes} == {"files", "network", "processes", "kernel", "limits"}


def test_a_hole_in_the_sandbox_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "in_force", lambda: "namespaces")
    monkeypatch.setattr(run, "attempts", lambda: [Outcome("network", "connect by tcp", "done", "")])
    monkeypatch.setattr(run, "limits", lambda names: iter(()))
    _, report = examined(capsys)
    assert finding(report, "sandbox")["state"] == "bad"
    assert "connect by tcp" in finding(report, "sandbox")["text"]
    app.run(["doctor"])
    assert "✗" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("network"))


def test_without_a_sandbox_a_chat_works_and_asks_before_code_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> str:
        raise SandboxError("nothing here can confine a program, so none is run: {reasons}", reasons="none")

    monkeypatch.setattr(start, "in_force", none)
    monkeypatch.setattr(start, "lacking", lambda: "none")
    code, report = examined(capsys)
    assert finding(report, "sandbox")["state"] == "note"
    assert "asks before each run" in str(finding(report, "sandbox"))
    assert code == report["exit_code"]
