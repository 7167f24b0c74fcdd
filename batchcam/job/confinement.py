"""What keeps this process from harm by files that nobody vouches for, as far as its system can."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

from batchcam.job.control_groups import available_memory

LIMITS: Final = ("files", "connections", "memory", "time")
"""What a confined process has limits on."""

MEMORY_SHARE: Final = 0.5
"""Share of the machine's memory that the process may take on top of what it starts with."""

LEAST_MEMORY: Final = 4 * 2**30

CPU_SECONDS = 120
"""Computing time between two signs of life; a block of rows takes about one second, the digest of 1 GB two."""

SYSTEM_CODE: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
"""Where libraries lie that Python modules may load late, as sys.path does for the modules."""

PR_SET_NO_NEW_PRIVS: Final = 38  # linux/prctl.h
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # on every architecture
LANDLOCK_VERSION_FLAG, LANDLOCK_RULE_PATH_BENEATH = 1, 1
LANDLOCK_CONNECTIONS: Final = 4
"""The first version that knows connections."""

READ_FILE, READ_DIR = 1 << 2, 1 << 3
RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files each version of Landlock knows; those in between know as many as the one before."""


def confine(folder: Path) -> list[str]:
    """Let this process read below `folder` alone, and where Python and the system keep their code, with limits.

    Returns:
        Those of `LIMITS` that this system can't set.
    """
    if sys.platform == "win32":
        return [*LIMITS]
    limited = {"time"}
    _limit("RLIMIT_CORE", 0)
    with contextlib.suppress(OSError, ValueError):  # no /proc: elsewhere than on Linux
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        allowance = max(LEAST_MEMORY, int(MEMORY_SHARE * available_memory()))
        _limit("RLIMIT_AS", pages * os.sysconf("SC_PAGE_SIZE") + allowance)
        limited.add("memory")
    with contextlib.suppress(OSError, AttributeError):  # a kernel without Landlock, another system
        version = _restrict_reading(folder, *map(Path, (*sys.path, *SYSTEM_CODE)))
        limited |= {"files", "connections"} if version >= LANDLOCK_CONNECTIONS else {"files"}
    return [each for each in LIMITS if each not in limited]


def limit_time() -> None:
    """Start the clock of the computing time anew."""
    _limit("RLIMIT_CPU", int(time.process_time()) + CPU_SECONDS)


def _limit(kind: str, value: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    number: int = getattr(resource, kind)
    _, hard = resource.getrlimit(number)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (value, hard))


def _restrict_reading(*allowed: Path) -> int:
    """Take from this thread all rights on files and connections for good, but for reading `allowed` and below.

    Returns:
        The version of Landlock.

    Raises:
        OSError: there is none.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "landlock")
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: Any) -> int:
        if (result := int(libc.syscall(ctypes.c_long(number), *arguments))) < 0:
            raise OSError(ctypes.get_errno(), "landlock")
        return result

    version = call(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(LANDLOCK_VERSION_FLAG))
    rights = (1 << RIGHTS[max(v for v in RIGHTS if v <= version)]) - 1
    connections = 0b11 if version >= LANDLOCK_CONNECTIONS else 0
    handled = struct.pack("=QQ", rights, connections)[: 16 if connections else 8]
    ruleset = call(LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint32(0))
    for path in filter(Path.exists, allowed):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        granted = struct.pack("=Qi", READ_FILE | READ_DIR if path.is_dir() else READ_FILE, descriptor)
        call(LANDLOCK_ADD_RULE, ruleset, ctypes.c_int(LANDLOCK_RULE_PATH_BENEATH), granted, ctypes.c_uint32(0))
        os.close(descriptor)
    libc.prctl(PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
    call(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    os.close(ruleset)
    return version
