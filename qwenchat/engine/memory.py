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
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
        except (OSError, ValueError):  # no such cgroup version, or the word "max"
            continue
        # Version 1 writes a number near 2**63 for "no limit"; psutil's figure does not see a limit.
        return max(limit - usage + _reclaimable(Path(limit_file).parent), 0)
    return 2**63


def _reclaimable(cgroup: Path) -> int:
    """Bytes of page cache that count as usage but are given up when memory gets short."""
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
        figures = dict(line.split() for line in lines)
        return int(figures.get("total_inactive_file") or figures["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0
