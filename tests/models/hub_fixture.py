"""A user beside a small Hub on the loopback: the address is set, nothing sleeps, pieces are small."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from qwenchat.models.hub import client as hub_module
from qwenchat.models.hub import pull as pull_module
from tests.models.hub_server import HubServer, Repository, serving

NAME = "org/tiny"
CHUNK = 4096
WANTED = (
    "LICENSE",
    "README.md",
    "config.json",
    "model.safetensors.index.json",
    "qwen.tiktoken",
    "tokenizer_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
)
UNWANTED = ("modeling_qwen.py", "pytorch_model.bin", "cache_autogptq_cuda_256.cu", "x.pt", "LICENSE.py")


def tiny_checkpoint(shard_bytes: int = 40_000) -> dict[str, bytes]:
    """The files of a repository; only their names and hashes matter here."""
    rng = random.Random(0)
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index = json.dumps({"weight_map": dict(enumerate(shards))})
    files = {
        "LICENSE": b"Tongyi Qianwen LICENSE AGREEMENT\n\nterms",
        "README.md": b"---\nlicense: other\nlicense_name: tongyi-qianwen\n---\n# tiny\n",
        "config.json": b'{"model_type": "qwen", "seq_length": 8192}\n',
        "model.safetensors.index.json": index.encode(),
        "qwen.tiktoken": rng.randbytes(3000),
        "tokenizer_config.json": b"{}\n",
        shards[0]: rng.randbytes(shard_bytes),
        shards[1]: rng.randbytes(shard_bytes // 2),
    }
    return files | dict.fromkeys(UNWANTED, b"import os")


class _NoTime:
    """The clock of the client, on which no time passes while it waits to try again."""

    @staticmethod
    def sleep(seconds: float) -> None:
        return None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Iterator[HubServer]:
    """A Hub with one checkpoint, which is also a ModelScope; caches of its own."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODELSCOPE_CACHE", f"{tmp_path}/modelscope")
    monkeypatch.setattr(_http, "time", _NoTime)
    monkeypatch.setattr(file_download, "time", _NoTime)
    monkeypatch.setattr(hub_module, "CHUNK", CHUNK)
    monkeypatch.setattr(pull_module, "PAUSE", 0.0)
    with serving(HubServer({NAME: Repository(tiny_checkpoint())})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        yield server


__all__ = ["NAME", "WANTED", "hub", "tiny_checkpoint"]
