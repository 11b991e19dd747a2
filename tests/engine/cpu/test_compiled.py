"""The kernels' machine code: compiled once for a processor, kept, and made anew where it does not hold."""

from __future__ import annotations

import ast
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import qwenchat.engine.cpu
from qwenchat.backends.load import load
from qwenchat.engine.cpu import compiled
from qwenchat.engine.cpu.codes_model import CodesModel
from qwenchat.engine.cpu.compiled import CannotCompile, Enter, Processor
from qwenchat.engine.cpu.layout import JOB_MULTIPLY
from qwenchat.engine.cpu.linear import of_floats
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.model import Qwen
from tests.places import GOLDEN

SOURCES = Path(qwenchat.engine.cpu.__file__).parent


class Compiler:
    """In place of the one that takes seconds; gives the code that it would give, and counts."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self.calls = 0

    def __call__(self, target: Processor) -> bytes:
        self.calls += 1
        return self._code


@pytest.fixture
def compiler(kernels_folder: Path, enter: Enter, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    code = compiled._read(kernels_folder / compiled.file_name(compiled.processor()))
    assert code is not None
    found = Compiler(code)
    monkeypatch.setattr(compiled, "compile_for", found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the kernels are to be kept; not there yet."""
    return tmp_path / "a" / "cache"


def open_kernels(folder: Path) -> tuple[Enter, list[str]]:
    """The kernels, which work; and what was told: of compiling, and notices."""
    told: list[str] = []
    enter, name = compiled.open_kernels(
        folder, compiling=lambda: told.append("compiling"), notice=told.append
    )
    assert name
    team = Team(enter, 2)
    weight, out = torch.randn(64, 16), torch.empty(64)
    matrix = of_floats(weight)
    x, scratch = torch.eye(16)[3], torch.empty(2, 64)
    team.do(JOB_MULTIPLY, matrix.descriptor, x.data_ptr(), scratch.data_ptr(), 256, out.data_ptr())
    assert torch.equal(out, weight[:, 3])
    team.close()
    return enter, told


# --- what is kept ------------------------------------------------------------------------------


def test_kernels_are_compiled_once(folder: Path, compiler: Compiler) -> None:
    assert open_kernels(folder)[1] == ["compiling"]
    assert open_kernels(folder)[1] == []
    assert compiler.calls == 1
    assert [path.suffix for path in folder.iterdir()] == [".o"]  # and nothing half done


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:32],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\0",
        lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        lambda content: bytes(len(content)),
    ],
)
def test_a_damaged_file_is_made_anew(
    folder: Path, compiler: Compiler, damage: Callable[[bytes], bytes]
) -> None:
    open_kernels(folder)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert open_kernels(folder)[1] == ["compiling"]
    assert compiler.calls == 2
    assert list(folder.iterdir()) == [file]
    assert file.read_bytes() == whole
    assert open_kernels(folder)[1] == []


def test_a_pipe_in_the_place_of_the_file_is_replaced(folder: Path, compiler: Compiler) -> None:
    open_kernels(folder)
    (file,) = folder.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert open_kernels(folder)[1] == ["compiling"]
    assert file.is_file()


def test_a_write_that_fails_leaves_nothing_behind(
    folder: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    told = open_kernels(folder)[1]
    assert told == ["compiling", f"the compiled kernels cannot be kept in {folder}: No space left on device"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["a file", "below a file", "read-only"])
def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, compiler: Compiler, place: str) -> None:
    blocked = tmp_path / "blocked"
    if place == "read-only":
        if os.name != "posix" or os.geteuid() == 0:
            pytest.skip("every folder can be written")
        blocked.mkdir(mode=0o500)
    else:
        blocked.write_text("a file, where a folder should be")
    folder = blocked / "cache" if place != "a file" else blocked
    for _ in range(2):
        told = open_kernels(folder)[1]
        assert len(told) == 2
        assert told[1].startswith(f"the compiled kernels cannot be kept in {folder}: ")
    assert compiler.calls == 2


# --- what a wheel carries ----------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernels of this processor, as if a wheel carried them."""
    here = compiled.processor()
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(compiled, "LEVELS", {platform.machine(): (here,)})
    path = compiled.SHIPPED / compiled.file_name(here, compilers=False)
    compiled.keep(path, compiler(here))
    compiler.calls = 0
    return path


def test_what_the_wheel_carries_is_not_compiled(folder: Path, shipped: Path, compiler: Compiler) -> None:
    assert open_kernels(folder)[1] == []
    assert compiler.calls == 0
    assert not folder.exists()


def test_what_the_wheel_carries_of_other_sources_is_not_used(
    folder: Path, shipped: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_SOURCES", (*compiled._SOURCES, "team"))
    assert open_kernels(folder)[1] == ["compiling"]


def test_what_the_wheel_carries_is_not_used_if_it_is_damaged(
    folder: Path, shipped: Path, compiler: Compiler
) -> None:
    shipped.write_bytes(shipped.read_bytes()[:-1])
    assert open_kernels(folder)[1] == ["compiling"]


V3, V4 = compiled.LEVELS["x86_64"]


@pytest.mark.parametrize(
    ("cpu", "features", "level"),
    [
        ("haswell", f"{V3.features},+aes,-avx512f", V3),
        ("znver3", f"{V3.features},+sse4a,-avx512f,-avxvnni", V3),
        ("znver4", f"{V4.features},+avx512bf16", V4),
        ("skylake-avx512", V4.features.replace(",+avx512vnni", ""), None),
        ("alderlake", f"{V3.features},+avxvnni", None),  # which has a unit that no level has
        ("ivybridge", "+avx,+sse4.2", None),
        ("x86-64", "", None),
    ],
)
def test_a_processor_runs_what_has_just_the_units_that_it_has(
    cpu: str, features: str, level: compiled.Processor | None
) -> None:
    here = compiled.Processor(cpu, features)
    assert [each for each in (V3, V4) if each.serves(here)] == ([level] if level else [])


# --- what the code depends on ------------------------------------------------------------------


def test_another_processor_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {compiled.file_name(compiled.processor())}
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64")
    assert compiled.processor() == Processor("x86-64", "")
    names.add(compiled.file_name(compiled.processor()))
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx2")
    assert compiled.processor() == Processor("x86-64", "+avx2")
    names.add(compiled.file_name(compiled.processor()))
    monkeypatch.delenv("NUMBA_CPU_FEATURES")
    if platform.machine() in ("x86_64", "AMD64"):
        monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v3")
        assert compiled.processor().name == "AVX2"
    monkeypatch.setenv("NUMBA_CPU_NAME", "host")
    names.add(compiled.file_name(compiled.processor()))
    assert len(names) == 3


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
def test_another_compiler_has_a_file_of_its_own(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, version = compiled.processor(), metadata.version
    before = compiled.file_name(target)
    monkeypatch.setattr(metadata, "version", lambda name: version(name) + ".1" * (name == package))
    assert compiled.file_name(target) != before


def kernels_modules() -> set[str]:
    """The modules of the CPU engine that the compiler imports."""
    found, left = set(), {"compile"}
    while left:
        name = left.pop()
        found.add(name)
        for node in ast.walk(ast.parse((SOURCES / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qwenchat.engine.cpu."):
                left |= {str(node.module).rpartition(".")[2]} - found
    return found


@pytest.mark.parametrize("source", sorted(kernels_modules()))
def test_an_edited_source_has_a_file_of_its_own(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "cpu"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = compiled.file_name(compiled.processor())
    monkeypatch.setattr(compiled, "__file__", str(copy / "compiled.py"))
    assert compiled.file_name(compiled.processor()) == before
    with (copy / f"{source}.py").open("a") as file:
        file.write("# a remark\n")
    assert compiled.file_name(compiled.processor()) != before


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ("+avx2,+avx512f,+avx512vnni", "AVX-512 VNNI"),
        ("+avx2,+avxvnni,-avx512f", "AVX VNNI"),
        ("+avx2,+avx512f,-avx512vnni", "AVX-512"),
        ("-avx512f,+avx2", "AVX2"),
        ("+neon", "NEON"),
        ("-avx2", "some-cpu"),
        ("", "some-cpu"),
    ],
)
def test_a_processor_is_called_by_what_is_used_of_it(features: str, name: str) -> None:
    assert Processor("some-cpu", features).name == name


# --- where there are none ----------------------------------------------------------------------


def load_and_compare(most_notices: int = 1) -> tuple[Any, list[str]]:
    """Loads a golden checkpoint, whose logits are right; the model, and what was told."""
    told: list[str] = []
    backend = load(GOLDEN / "gptq_int8", device="cpu", dtype="float32", notice=told.append)
    expected = load_file(GOLDEN / "gptq_int8" / "expected.safetensors")
    logits, reference = backend.logits(expected["prefill.16.ids"].tolist()), expected["prefill.16.logits"]
    assert ((logits - reference).norm() / reference.norm()) < 1e-4
    return backend, told


def no_metadata(monkeypatch: pytest.MonkeyPatch) -> str:
    version = metadata.version

    def missing(name: str) -> str:
        if name == "numba":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    return "numba cannot be used: No package metadata was found for numba"


def no_program(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.executable", "/there/is/no/python")
    return "the kernels cannot be compiled: [Errno 2] No such file or directory: '/there/is/no/python'"


def no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tempfile, "tempdir", "/there/is/no/folder")
    return "the kernels cannot be compiled: [Errno 2] No such file or directory: '/there/is/no/folder/"


def a_broken_numba(monkeypatch: pytest.MonkeyPatch) -> str:
    folder = Path(tempfile.mkdtemp())
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text(
        "print('here')\nraise RuntimeError('numba\\nhas no hands')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "the kernels cannot be compiled: has no hands"


def a_child_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> str:
    folder = Path(tempfile.mkdtemp())
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "the kernels cannot be compiled: exit code 7"


@pytest.mark.parametrize(
    "trouble", [no_metadata, no_program, no_temporary_folder, a_broken_numba, a_child_that_is_killed]
)
def test_without_kernels_plain_torch_computes_and_the_reason_is_told_once(
    tmp_path: Path, trouble: Callable[[pytest.MonkeyPatch], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "empty"))
    reason = trouble(monkeypatch)
    with pytest.raises(CannotCompile) as caught:
        compiled.open_kernels(tmp_path / "empty", compiling=lambda: None, notice=pytest.fail)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)

    backend, told = load_and_compare()
    assert isinstance(backend.engine.runner.model, Qwen)
    assert len(told) == 1
    assert told[0].startswith("falling back from the CPU kernels to plain torch: ")
    assert reason in told[0]
    assert not (tmp_path / "empty").exists()


# --- the real compiler -------------------------------------------------------------------------


def test_kernels_for_any_x86_64_give_the_originals_logits(plain_run: Any) -> None:
    """Compiled in a process of its own, into an empty folder; the loads after the first find them there."""
    told = plain_run.told
    assert told["notices"] == []
    assert told["stages"].count("compiling kernels, once") == 1
    assert len(told["models"]) == 4
    for name, found in told["models"].items():
        assert "x86-64 kernels" in found["as"], name
        assert found["same_tokens"], name
        assert found["error"] < 1e-4, name
    assert [path.suffix for path in plain_run.cache.iterdir()] == [".o"]


def test_a_checkpoint_is_loaded_with_the_kernels_that_were_kept(enter: Enter, compiler: Compiler) -> None:
    backend, told = load_and_compare()
    assert isinstance(backend.engine.runner.model, CodesModel)
    assert (told, compiler.calls) == ([], 0)
