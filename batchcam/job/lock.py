"""A lock on a folder: one job at a time works in it, whoever starts the next one, from whatever machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from batchcam.errors import BatchcamError, StoppedEarlyError
from batchcam.job.leases import Leases, read_holder
from batchcam.job.processes import has_ended, this_process
from batchcam.job.scheduler import user_name

LOCK_FILE: Final = ".lock"
VARIABLE: Final = "LOCKDIR"
"""Names another folder for locks; on a disk of this machine it keeps out others of this machine only."""

NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock says on file systems without locks: Lustre, some FUSE and network mounts."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[tuple[int, ...]]:
    """Keep others out of `folder`; yield descriptors that what outlives this process has to inherit to keep them out.

    Where the file system has no locks, a lease takes their place, and does not outlive this process. Meanwhile the
    group gets those rights on what is made that it has in the folder.

    Raises:
        StoppedEarlyError: another job is at work there; the message says which one.
        BatchcamError: the folder can't be written to, or the lock not be had.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        owner = owner_of(folder)
        advice = f"to share it with a group, {owner} runs: chmod g+rwxs {folder}"
        raise BatchcamError(f"{folder}: is {owner}'s, and {user_name()} may not write there; {advice}")
    with _rights_of_group(folder), contextlib.ExitStack() as held:
        file = _lock_file(folder)
        descriptor = _opened(file)
        held.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _at_work(folder, _said(file)) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise _cannot_lock(file, error) from error
            held.enter_context(_lease(file, folder))
            yield ()
            return
        with contextlib.suppress(OSError):  # a disk that is full, or a file of another member of the group
            os.truncate(file, 0)
            os.write(descriptor, json.dumps({**this_process(), "since": time.time()}).encode())
        yield (descriptor,)


def _lock_file(folder: Path) -> Path:
    elsewhere = os.environ.get(VARIABLE)
    if not elsewhere:
        return folder / LOCK_FILE
    return Path(elsewhere, f"batchcam-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}{LOCK_FILE}")


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError as error:
        with contextlib.suppress(OSError):  # another user's: only its words can't be written
            return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        raise _cannot_lock(file, error) from error
    except OSError as error:
        raise _cannot_lock(file, error) from error


@contextlib.contextmanager
def _rights_of_group(folder: Path) -> Iterator[None]:
    """Let the group have the rights on new files and folders that it has on `folder`, whatever this user's umask."""
    umask = os.umask(0o077)
    os.umask(umask & ~(folder.stat().st_mode & 0o070))
    try:
        yield
    finally:
        os.umask(umask)


@contextlib.contextmanager
def _lease(file: Path, folder: Path) -> Iterator[None]:
    def refused(error: OSError) -> NoReturn:
        raise _cannot_lock(file, error) from error

    leases, name = Leases(this_process(), refused), file.with_name(file.name.removeprefix("."))
    if not leases.claim(name):
        raise _at_work(folder, leases.holder(name))
    try:
        with leases.beating():
            yield
    finally:
        leases.release_all()


def _said(file: Path) -> dict[str, Any]:
    try:
        return read_holder(file)
    except OSError:
        return {}


def _at_work(folder: Path, holder: Mapping[str, Any]) -> StoppedEarlyError:
    who, since = "another job", holder.get("since")
    if {"pid", "host"} <= holder.keys() and isinstance(since, float):
        who = f"process {holder['pid']} on {holder['host']}, since {_local(since)},"
    if has_ended(holder):
        who = f"another job, or a command that outlived {who}"
    return StoppedEarlyError(f"not started: {who} is at work in {folder}")


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _cannot_lock(file: Path, error: OSError) -> BatchcamError:
    reason = error.strerror or str(error)
    return BatchcamError(
        f"not started: {file}: cannot lock: {reason}; {VARIABLE}=/var/tmp/you names a folder of yours for locks, on a "
        "disk of this machine"
    )


def owner_of(path: Path) -> str:
    """Return whose a file or folder is, for people."""
    try:
        return path.owner()
    except (KeyError, OSError):
        return f"user {path.stat().st_uid}"
