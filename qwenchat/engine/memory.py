"""How much memory is free for a model, on the machine or on a device."""

from __future__ import annotations

from pathlib import Path

import torch


def available_bytes(device: torch.device) -> int:
    """Bytes that can be allocated on ``device`` now, as far as the system tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    import psutil

    return min(int(psutil.virtual_memory().available), _cgroup_headroom())


def _cgroup_headroom() -> int:
    """What a container's memory limit leaves, in bytes; beyond any machine where there is none."""
    unlimited = 2**63
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
        except (OSError, ValueError):  # no such cgroup version, or the word "max"
            continue
        # Version 1 writes a number near 2**63 for "no limit".  Page cache counts as usage but
        # can be reclaimed, so the figure errs on the low side; psutil's does not see the limit.
        return max(limit - usage, 0)
    return unlimited
