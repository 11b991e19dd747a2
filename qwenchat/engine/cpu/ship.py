"""The kernels of common processors, compiled for a wheel to carry.

    python -m qwenchat.engine.cpu.ship

Run in the checkout before the wheel is built, on each kind of machine whose code it is to carry; git does not
keep what it makes. A wheel without it, and any other processor, compiles at the first start.
"""

from __future__ import annotations

import platform
import shutil
from concurrent.futures import ThreadPoolExecutor

from qwenchat.engine.cpu import compiled


def main() -> None:
    """Compiles for this kind of machine's common processors, two at a time, in place of what was there."""
    levels = compiled.LEVELS[platform.machine()]
    shutil.rmtree(compiled.SHIPPED, ignore_errors=True)
    with ThreadPoolExecutor(2) as pool:
        for level, code in zip(levels, pool.map(compiled.compile_for, levels), strict=True):
            path = compiled.SHIPPED / compiled.file_name(level, compilers=False)
            compiled.keep(path, code)
            print(f"{path}: {level.cpu} ({level.name}), {len(code):,} bytes")


if __name__ == "__main__":
    main()
