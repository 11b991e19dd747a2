"""The kernels' machine code: found in the cache folder or the package, or compiled once, and opened.

Owns the file. Its name is a hash of all that the code depends on: the kernels' sources, the processor, the
compilers' versions. So another processor or a newer release finds none of its name and compiles its own. Its
first bytes are a hash of the rest, so that a damaged file is compiled anew. A wheel may carry the code for
common processors (``ship`` makes it), under a name that is a hash of the same sources.

The code is made by a child process, and written beside its place and moved there: a process that is killed
leaves no half of a file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase
from qwenchat.files.atomic import write_temporary
from qwenchat.files.opening import read_file, reason_of

_SOURCES = (
    "layout", "operations", "vector", "tiles", "atomics", "counters", "float_rows", "descriptor", "sums",
    "products", "output", "gemm", "rows", "attention", "flash", "prefill", "pieces", "repack", "step",
    "compile",
)  # fmt: skip
_HASH_BYTES = 32
_MOST_BYTES = 2**24
_ROOT = str(Path(__file__).parents[3])
_PROGRAM = """
import sys
# The package that is running, wherever it was imported from, and not the current folder.
sys.path[:] = [entry for entry in sys.path if entry] + [sys.argv[1]]
from qwenchat.engine.cpu.compile import main
main(*sys.argv[2:])
"""
_UNITS = {
    "avx512vnni": "AVX-512 VNNI", "avxvnni": "AVX VNNI", "avx512f": "AVX-512", "avx2": "AVX2", "neon": "NEON",
}  # fmt: skip
Enter = Callable[[int, int, int, int, int], int]
"""The kernels' one function: a task and up to four numbers, see :func:`qwenchat.engine.cpu.step.enter`."""


class CannotCompile(Exception):
    """There is no compiled code, for the reason that it tells in a line."""


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor as LLVM knows it."""

    cpu: str
    features: str

    @property
    def name(self) -> str:
        """The processor's units that the kernels use, for a person."""
        features = self.features.split(",")
        for feature, name in _UNITS.items():
            if f"+{feature}" in features:
                return name
        return self.cpu

    def serves(self, other: Processor) -> bool:
        """Says whether code for this one runs on the other, and uses what units the kernels know there."""
        return self.name == other.name and set(self.features.split(",")) <= set(other.features.split(","))


_V3 = (
    "+avx,+avx2,+bmi,+bmi2,+cmov,+cx16,+cx8,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sahf,+sse,+sse2,+sse3,"
    "+sse4.1,+sse4.2,+ssse3,+xsave"
)
_X86 = (
    Processor("x86-64-v3", _V3),
    Processor("x86-64-v4", f"{_V3},+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl,+avx512vnni"),
)
_ARM = (Processor("generic", "+fp-armv8,+neon"),)
LEVELS = {"x86_64": _X86, "AMD64": _X86, "aarch64": _ARM, "arm64": _ARM}
"""The common processors of each kind of machine, as :func:`platform.machine` calls it."""
SHIPPED = Path(__file__).with_name("shipped")
"""Where a wheel may carry their code."""


def processor() -> Processor:
    """The one to compile for: this one, or what Numba's environment variables name.

    A common one needs no more than its name: x86-64-v3 is AVX2 alone, on any processor that has it.
    """
    import llvmlite.binding as llvm

    cpu = os.environ.get("NUMBA_CPU_NAME") or ""
    if not cpu or cpu == "host":
        features = os.environ.get("NUMBA_CPU_FEATURES") or llvm.get_host_cpu_features().flatten()
        return Processor(llvm.get_host_cpu_name(), features)
    known = {level.cpu: level.features for level in LEVELS.get(platform.machine(), ())}
    return Processor(cpu, os.environ.get("NUMBA_CPU_FEATURES") or known.get(cpu, ""))


def file_name(target: Processor, *, compilers: bool = True) -> str:
    """The name of the file with the code for a processor; what is shipped may be another compiler's."""
    parts = [target.cpu, target.features, platform.machine(), sys.platform]
    if compilers:
        parts += [metadata.version(name) for name in ("numba", "llvmlite")]
    here = Path(__file__).parent
    parts += [(here / f"{name}.py").read_text(encoding="utf-8") for name in _SOURCES]
    return f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.o"


def open_kernels(
    folder: Path, *, compiling: Callable[[], None], notice: Callable[[str], None]
) -> tuple[Enter, str]:
    """The kernels' one function, see :func:`qwenchat.engine.cpu.step.enter`; and what they are, for people.

    Args:
        folder: where the code is kept; made if it is not there.
        compiling: called before something is compiled, which takes seconds.
        notice: told in a line where it cannot be kept.

    Raises:
        CannotCompile: it is not there, and cannot be made.
    """
    try:
        target = processor()
        path = folder / file_name(target)
    except (ImportError, OSError, RuntimeError) as error:
        # A package that is missing, or a processor that LLVM cannot describe.
        raise CannotCompile(Phrase("numba cannot be used: {reason}", reason=error)) from error
    code = _read(path) or _shipped_for(target)
    if code is None:
        compiling()
        code = compile_for(target)
        try:
            keep(path, code)
        except OSError as error:
            reason = reason_of(error)
            notice(
                Phrase(
                    "the compiled kernels cannot be kept in {folder}: {reason}", folder=folder, reason=reason
                )
            )
    return _open(code), target.name


def _read(path: Path) -> bytes | None:
    try:
        content, _ = read_file(path, _MOST_BYTES, links=False)
    except OSError:
        return None
    code = content[_HASH_BYTES:]
    return code if code and hashlib.sha256(code).digest() == content[:_HASH_BYTES] else None


def _shipped_for(target: Processor) -> bytes | None:
    fitting = [level for level in LEVELS.get(platform.machine(), ()) if level.serves(target)]
    return _read(SHIPPED / file_name(fitting[0], compilers=False)) if fitting else None


def keep(path: Path, code: bytes) -> None:
    """Writes code to its place, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_temporary(path, hashlib.sha256(code).digest() + code).replace(path)


def compile_for(target: Processor) -> bytes:
    """Compiles the kernels for a processor, in a child process; seconds.

    Raises:
        CannotCompile: for the reason that it tells.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
            path = Path(folder) / "kernels.o"
            child = subprocess.run(
                [sys.executable, "-c", _PROGRAM, _ROOT, str(path), target.cpu, target.features],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                # A Ctrl-C is meant for who waits; the kernels are wanted all the same.
                start_new_session=True,
            )
            if child.returncode == 0:
                return path.read_bytes()
    except OSError as error:
        raise CannotCompile(Phrase("the kernels cannot be compiled: {reason}", reason=error)) from error
    lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
    raise CannotCompile(Phrase("the kernels cannot be compiled: {reason}", reason=lines[-1]))


_opened: list[Any] = []  # code that is in use stays in memory


@cache
def _open(code: bytes) -> Enter:
    import llvmlite.binding as llvm

    from qwenchat.engine.cpu.compile import ENTRY

    try:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = engine.get_function_address(ENTRY)
    except (RuntimeError, OSError) as error:
        raise CannotCompile(Phrase("numba cannot be used: {reason}", reason=error)) from error
    if not address:
        raise CannotCompile(Phrase("the kernels cannot be compiled: {reason}", reason=f"no {ENTRY}"))
    _opened.append(engine)
    # ctypes lets go of the interpreter's lock for the call.
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)(address)
