"""The native path stands on torch and a handful of small packages, and on nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Ours, and what those bring themselves.
ALLOWED = (
    *("qwenchat", "torch", "triton", "safetensors", "numpy", "tiktoken", "psutil", "filelock"),
    *("platformdirs", "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx"),
    *("jinja2", "markupsafe", "fsspec", "cuda", "nvidia", "tiktoken_ext", "regex", "setuptools"),
)

PROGRAM = '''
import importlib.machinery, sys

class Only(importlib.machinery.PathFinder):
    """Finds what is allowed, as if nothing else were installed."""
    refused = set()
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = super().find_spec(name, path, target)
        top = name.partition(".")[0]
        if found is None or top in sys.stdlib_module_names or top.startswith("_") or top in ALLOWED:
            return found
        cls.refused.add(top)
        return None

ALLOWED = sys.argv[2:]
place = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[place] = Only
import qwenchat
model = qwenchat.load(sys.argv[1], device="cpu")
assert len(list(model.generate([1, 2, 3], temperature=0.8, max_new_tokens=5))) == 5
*_, end = model.chat([{"role": "user", "content": "hi"}], max_new_tokens=3)
assert end.usage.completion_tokens == 3
assert "torch._dynamo" not in sys.modules  # torch's compiler: seconds at every start, for nothing
print(*sorted(Only.refused))
'''


def test_a_model_loads_and_answers_with_torch_and_a_few_small_packages_alone(tiny_chat: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tiny_chat), *ALLOWED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # torch asks for more than it needs, and does without. Nobody asked for these.
    never = {"transformers", "pydantic", "typer", "rich", "prompt_toolkit", "huggingface_hub"}
    assert not never & set(done.stdout.split())


def test_the_engine_knows_nothing_of_what_is_above_it() -> None:
    program = """
import sys
import qwenchat.engine.generate, qwenchat.engine.plan, qwenchat.engine.weights.loader
known = tuple(f"qwenchat.{name}" for name in ("engine", "errors", "files", "gguf", "humanize", "version"))
print(*(n for n in sys.modules if n.startswith("qwenchat.") and not n.startswith(known)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
