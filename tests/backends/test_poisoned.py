"""A folder full of code, loaded under an audit hook: none of it runs, whichever backend reads the model."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("watched_program.py")
CODE = "import os\nos.environ['PWNED'] = '1'\nopen(os.path.dirname(__file__) + '/PWNED', 'w').close()\n"
HOSTILE_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}assistant: "
    "{{ cycler.__init__.__globals__.os.system('touch GOTCHA') }}"
    "{{ raise_exception.__globals__['__builtins__']['exec']('import os') }}"
)


PROCESSOR = {
    "preprocessor_config.json": {
        "auto_map": {
            "AutoProcessor": "modeling_qwen.Processor",
            "AutoFeatureExtractor": "modeling_qwen.Extractor",
        }
    }
}


class Bomb:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


def poison(folder: Path) -> Path:
    """Puts into a folder all that would run if somebody let it."""
    for name in ("modeling_qwen.py", "tokenization_qwen.py", "configuration_qwen.py", "__init__.py"):
        (folder / name).write_text(CODE)
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    (folder / "kernel.cu").write_text("__global__ void pwned() {}")
    (folder / "cache_autogptq_cuda_256.cpp").write_text("int pwned;")
    for name, changes in {
        "config.json": {
            "auto_map": {
                "AutoConfig": "configuration_qwen.QWenConfig",
                "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
            },
            "attn_implementation": "evil/kernels",
            "_name_or_path": "evil/model",
        },
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
        },
        "generation_config.json": {"auto_map": {"x": "modeling_qwen.x"}, "trust_remote_code": True},
    }.items():
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, **changes}))
    return folder


@pytest.fixture
def poisoned(tiny_chat: Path, hub_folders: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(backend: str) -> Path:
        source = tiny_chat if backend == "native" else hub_folders("qwen2")
        return poison(Path(shutil.copytree(source, tmp_path / "poisoned")))

    return make


def watch(folder: Path, threat: str = "load") -> str:
    """What the program prints, run where the folder is."""
    command = [sys.executable, str(PROGRAM), str(folder), threat]
    done = subprocess.run(
        # Whoever is asked whether to trust something says yes.
        command,
        input="y\n" * 9,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert threat != "load" or done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("backend", ["native", "huggingface"])
def test_nothing_of_a_poisoned_folder_runs(
    poisoned: Callable[[str], Path], compiled_kernels: None, backend: str
) -> None:
    folder = poisoned(backend)
    assert watch(folder) == "answered 3\n"
    assert not (folder / "PWNED").exists()


def test_a_hostile_chat_template_is_refused_and_gets_at_nothing(poisoned: Callable[[str], Path]) -> None:
    folder = poisoned("huggingface")
    (folder / "chat_template.jinja").write_text(HOSTILE_TEMPLATE)
    output = watch(folder)
    assert output.startswith("error CheckpointError the chat template refuses the chat: access to attribute")
    assert "seen" not in output
    assert not (folder / "GOTCHA").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model_type", {"config.json": {"model_type": "qwen99"}}),
        ("tokenizer_class", {"tokenizer_config.json": {"tokenizer_class": "QWenTokenizer"}}),
        # What transformers has by these names loads itself without hearing of trust_remote_code.
        ("processor", {"tokenizer_config.json": {"tokenizer_class": "AutoProcessor"}, **PROCESSOR}),
        ("processor", {"config.json": {"tokenizer_class": "AutoFeatureExtractor"}, **PROCESSOR}),
        # A vocabulary of tiktoken is read from wherever it is said to be.
        (
            "vocabulary",
            {
                "tokenizer_config.json": {
                    "tokenizer_file": None,
                    "vocab_file": "http://127.0.0.1:9/x.tiktoken",
                }
            },
        ),
        ("custom_generate", {}),
    ],
)
def test_what_would_need_its_code_is_refused_or_does_without(
    poisoned: Callable[[str], Path], name: str, content: dict[str, dict[str, Any]]
) -> None:
    folder = poisoned("huggingface")
    for file, changes in content.items():
        path = folder / file
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **changes}))
    if name == "processor":  # its own name for a class is all that is looked at
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        if "config.json" in content:
            del tokenizer["tokenizer_class"]
        (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "auto_map": {}}))
    if name == "custom_generate":
        (folder / name).mkdir()
        (folder / name / "generate.py").write_text(CODE)
    output = watch(folder)
    assert "seen" not in output
    assert output.startswith(("answered 3", "error CheckpointError"))
    assert not any(folder.rglob("PWNED"))


@pytest.mark.parametrize(
    ("threat", "event"),
    [
        ("exec", "exec"),
        ("import", "import"),
        ("unpickle", "pickle.find_class"),
        ("popen", "subprocess.Popen"),
        ("system", "os.system"),
        ("spawn", "os.posix_spawn"),
        ("connect", "socket.connect"),
        ("resolve", "socket.getaddrinfo"),
        ("open", "open"),
    ],
)
def test_the_hook_sees_what_must_not_happen(poisoned: Callable[[str], Path], threat: str, event: str) -> None:
    assert f"seen {event} " in watch(poisoned("huggingface"), threat)


@pytest.fixture(scope="module")
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The native engine's kernels, which a child of the first start compiles: that start is not this one."""
    from qwenchat.backends.native.kernel_cache import open_cpu_kernels
    from qwenchat.backends.request import LoadRequest
    from qwenchat.engine.cpu.compiled import CannotCompile

    request = LoadRequest("")
    try:
        open_cpu_kernels(1, request.progress, request.notice).close()
    except CannotCompile as error:
        pytest.skip(f"no kernels here: {error}")
