"""Faults at the boundary to the kernel: each system call of a process that changes files waits for our verdict.

A seccomp filter with a listener (Linux 5.6, no privilege needed) stops the process at the call itself, so it does not
matter which library makes it. Nothing in the process is replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# x86-64: number, index of the argument that names the file; dirfd is the argument before it where there is one
SYSTEM_CALLS = {
    1: ("write", "fd", 0),
    18: ("pwrite64", "fd", 0),
    20: ("writev", "fd", 0),
    296: ("pwritev", "fd", 0),
    3: ("close", "fd", 0),
    74: ("fsync", "fd", 0),
    75: ("fdatasync", "fd", 0),
    77: ("ftruncate", "fd", 0),
    285: ("fallocate", "fd", 0),
    2: ("open", "path", 0),
    85: ("creat", "path", 0),
    76: ("truncate", "path", 0),
    82: ("rename", "path", 1),
    83: ("mkdir", "path", 0),
    84: ("rmdir", "path", 0),
    86: ("link", "path", 1),
    87: ("unlink", "path", 0),
    88: ("symlink", "path", 1),
    257: ("openat", "path at", 1),
    258: ("mkdirat", "path at", 1),
    263: ("unlinkat", "path at", 1),
    264: ("renameat", "path at", 3),
    265: ("linkat", "path at", 3),
    266: ("symlinkat", "path at", 2),
    316: ("renameat2", "path at", 3),
}
NAMES = {"openat": "open", "creat": "open", "renameat": "rename", "renameat2": "rename", "linkat": "link",
         "unlinkat": "unlink", "mkdirat": "mkdir", "symlinkat": "symlink"}  # fmt: skip
WRITES = ("write",)  # those that a short count can be given for

SYS_SECCOMP, SYS_PIDFD_GETFD = 317, 438
PR_SET_NO_NEW_PRIVS = 38
AUDIT_ARCH_X86_64 = 0xC000003E
SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE_RECV = 1, 1 << 3, 1 << 5
RET_ALLOW, RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
CONTINUE = 1
NOTIF, RESPONSE = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
AT_FDCWD = -100


@dataclass(frozen=True)
class Call:
    """A system call on a file of the watched folder, about to happen.

    Attributes:
        name: of the call, such as write.
        path: of the file, relative to the watched folder.
        size: bytes that a write is given, 0 for others.
        source: of a rename or a link, the other name.
    """

    name: str
    path: str
    size: int = 0
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a call.

    Attributes:
        error: it fails with this number.
        short: it writes so many bytes only.
        kill: the process gets SIGKILL instead of an answer; with `short`, after that part is written.
    """

    error: int = 0
    short: int | None = None
    kill: bool = False


PROCEED = Verdict()
KILL = Verdict(kill=True)


def available() -> bool:
    """Return whether this machine lets us stop system calls; this process must have one thread."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    child = os.fork()
    if child == 0:
        try:
            install_filter()
        except OSError:
            os._exit(1)
        os._exit(0)  # without closing the listener: a call that nobody would answer
    return os.waitpid(child, 0)[1] == 0


def install_filter() -> int:
    """Stop this thread, and all that it starts, at each call of SYSTEM_CALLS; return the listener's descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    program = _program()
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    for flags in (NEW_LISTENER | WAIT_KILLABLE_RECV, NEW_LISTENER):
        descriptor = libc.syscall(SYS_SECCOMP, SET_MODE_FILTER, flags, head)
        if descriptor >= 0:
            return int(descriptor)
    raise OSError(ctypes.get_errno(), "seccomp")


def _program() -> bytes:
    """Return the filter in BPF: ours go to the listener, but of the opens only those that may create."""
    load, jump_equal, jump_set, leave = 0x20, 0x15, 0x45, 0x06

    def line(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    numbers = [n for n in SYSTEM_CALLS if n not in (2, 257)]
    lines = [line(load, 0, 0, 4), line(jump_equal, 1, 0, AUDIT_ARCH_X86_64), line(leave, 0, 0, RET_ALLOW),
             line(load, 0, 0, 0)]  # fmt: skip
    for number, flags in ((2, 16 + 8), (257, 16 + 16)):
        lines += [line(jump_equal, 0, 4, number), line(load, 0, 0, flags), line(jump_set, 0, 1, os.O_CREAT),
                  line(leave, 0, 0, RET_USER_NOTIF), line(leave, 0, 0, RET_ALLOW)]  # fmt: skip
    lines += [line(jump_equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    lines += [line(leave, 0, 0, RET_ALLOW), line(leave, 0, 0, RET_USER_NOTIF)]
    return b"".join(lines)


class Supervisor:
    """Answers for the calls of one process and its children.

    Args:
        pid: of the process.
        listener: what `install_filter` gave there.
        folder: only calls on files below it are told; others proceed.
    """

    def __init__(self, pid: int, listener: int, folder: Path) -> None:
        self.pid, self.listener = pid, listener
        self._folder = os.path.realpath(folder)

    def answer(self, decide: Callable[[Call], Verdict]) -> None:
        """Take one waiting call and do with it what `decide` says; calls elsewhere just proceed."""
        buffer = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(self.listener, NOTIF_RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it died meanwhile
                return
            raise
        identity, thread, _, number, _, _, *arguments = NOTIF.unpack(buffer)
        call = self._call(thread, number, arguments)
        verdict = decide(call) if call else PROCEED
        if verdict.short is not None:
            self._write_part(thread, arguments, verdict.short)
        if verdict.kill:
            os.kill(self.pid, signal.SIGKILL)
            return
        if verdict.short is not None:
            response = (identity, verdict.short, 0, 0)
        else:
            response = (identity, 0, -verdict.error, 0 if verdict.error else CONTINUE)
        try:
            fcntl.ioctl(self.listener, NOTIF_SEND, RESPONSE.pack(*response))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise

    def _call(self, thread: int, number: int, arguments: Sequence[int]) -> Call | None:
        full_name, kind, which = SYSTEM_CALLS[number]
        name, source = NAMES.get(full_name, full_name), ""
        try:
            if kind == "fd":
                path = os.readlink(f"/proc/{thread}/fd/{arguments[which]}")
                if name == "close" and not _writable(thread, arguments[which]):
                    return None
            else:
                paths = [self._path(thread, arguments, kind, which)]
                if name in ("rename", "link"):
                    paths.append(self._path(thread, arguments, kind, which - (2 if kind == "path at" else 1)))
                path, source = paths[0], self._relative(paths[-1])
        except OSError:
            return None
        if path != self._folder and not path.startswith(self._folder + os.sep):
            return None
        return Call(name, self._relative(path), arguments[2] if name in WRITES else 0, source)

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._folder)

    @staticmethod
    def _path(thread: int, arguments: Sequence[int], kind: str, which: int) -> str:
        path = os.fsdecode(_memory(thread, arguments[which], 4096).partition(b"\0")[0])
        if not os.path.isabs(path):
            folder = ctypes.c_int(arguments[which - 1]).value if kind == "path at" else AT_FDCWD
            base = "cwd" if folder == AT_FDCWD else f"fd/{folder}"
            path = os.path.join(os.readlink(f"/proc/{thread}/{base}"), path)
        parent, name = os.path.split(path)
        return os.path.join(os.path.realpath(parent), name)

    def _write_part(self, thread: int, arguments: Sequence[int], count: int) -> None:
        """Write the first `count` bytes of a write in its stead."""
        process = os.pidfd_open(self.pid)
        descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, process, arguments[0], 0)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        os.write(descriptor, _memory(thread, arguments[1], count))
        os.close(descriptor)
        os.close(process)


def _writable(thread: int, descriptor: int) -> bool:
    with open(f"/proc/{thread}/fdinfo/{descriptor}", encoding="ascii") as lines:
        flags = next(line for line in lines if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _memory(thread: int, address: int, size: int) -> bytes:
    """Return up to `size` bytes of another process, up to the end of what it has mapped there."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        within = min(size, 4096 - address % 4096)
        content = memory.read(within)
        try:
            while len(content) < size and (more := memory.read(size - len(content))):
                content += more
        except OSError:
            pass
        return content


def serve(supervisors: Sequence[Supervisor], decide: Callable[[Supervisor, Call], Verdict], timeout_s: float) -> None:
    """Answer until every process has ended.

    Raises:
        TimeoutError: one of them takes longer; all are killed first.
    """
    poll = select.poll()
    running = {os.pidfd_open(s.pid): s for s in supervisors}
    listeners = {s.listener: s for s in supervisors}
    for descriptor in (*running, *listeners):
        poll.register(descriptor, select.POLLIN)
    while running:
        events = poll.poll(timeout_s * 1000)
        if not events:
            for supervisor in running.values():
                os.kill(supervisor.pid, signal.SIGKILL)
            raise TimeoutError(f"no system call and no end in {timeout_s} s")
        for descriptor, event in events:
            if descriptor in running:
                poll.unregister(descriptor)
                os.close(descriptor)
                del running[descriptor]
            elif event & select.POLLIN:
                supervisor = listeners[descriptor]
                supervisor.answer(lambda call, who=supervisor: decide(who, call))
            else:
                poll.unregister(descriptor)
