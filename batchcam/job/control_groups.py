"""The control groups of this process, by which a container or a job may have less than the machine."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")


def own_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups of `controller` in which this process is; in a container its own is the root.

    Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html; version 1 as Docker mounts it.
    """
    yield root
    yield root / controller
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            parts = Path(path.lstrip("/"))
            for group in (parts, *parts.parents):
                yield root / (controller if controllers else "") / group


def available_memory(root: Path = CONTROL_GROUPS) -> int:
    """Return the bytes of memory that this process may have at most: the machine's, or those of its tightest group."""
    if sys.platform == "win32":
        raise NotImplementedError
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in own_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # no such file, or no limit: "max"
                limits.append(int((group / name).read_text()))
    return min(limits)
