"""From the kernels' sources to machine code: the one place that imports Numba.

Run in a process of its own (by ``compiled``), so that whoever waits for it can go on with something else, and
so that nobody else has to load a compiler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENTRY = "qwenchat_cpu"
"""The name of the one function: int64 (task, a, b, c, d), all int64."""


def object_code(cpu: str, features: str) -> bytes:
    """The kernels as an object file.

    Args:
        cpu, features: of the processor, as LLVM calls them.
    """
    import llvmlite.binding as llvm
    from numba.core import config

    # Before the kernels are imported: they and Numba's passes ask for these.
    settings: Any = config
    settings.CPU_NAME, settings.CPU_FEATURES, settings.DISABLE_JIT = cpu, features, False
    # Numba would optimise each function, and again in each that calls it; here it is done once, at the end.
    settings.OPT = type(settings.OPT)(0)
    from numba import int64

    from qwenchat.engine.cpu.operations import kernel
    from qwenchat.engine.cpu.step import enter

    compiled = kernel(enter)
    signature = (int64,) * 5
    compiled.compile(signature)
    name = compiled.overloads[signature].fndesc.llvm_func_name
    module = llvm.parse_assembly(compiled.inspect_llvm(signature) + _entry(name))
    module.verify()
    machine = llvm.Target.from_triple(module.triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="jitdefault", jit=True
    )
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    # Our loops are of vectors already.
    tuning.loop_vectorization = tuning.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return bytes(machine.emit_object(module))


def _entry(name: str) -> str:
    """A plain C function around Numba's, which returns a status and takes where to put its result."""
    return f"""
define i64 @{ENTRY}(i64 %task, i64 %a, i64 %b, i64 %c, i64 %d) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @"{name}"(ptr %result, ptr %error, i64 %task, i64 %a, i64 %b, i64 %c, i64 %d)
  %value = load i64, ptr %result
  ret i64 %value
}}
"""


def main(path: str, cpu: str, features: str) -> None:
    """Writes the object file for a processor."""
    Path(path).write_bytes(object_code(cpu, features))
