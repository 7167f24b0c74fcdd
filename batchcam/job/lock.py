"""A lock on a folder: one job at a time works in it, whoever starts the next one, from whatever machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchcam.errors import BatchcamError, StoppedEarlyError
from batchcam.job.processes import has_ended, this_process
from batchcam.job.scheduler import user_name

LOCK_FILE: Final = ".lock"
VARIABLE: Final = "LOCKDIR"
"""Names another folder for locks; on a disk of this machine it keeps out others of this machine only."""

NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock says on file systems without locks: Lustre, some FUSE and network mounts."""

HEARTBEAT_S: Final = 30.0
STALE_S: Final = 300.0
"""Age of the last sign of life after which a lease counts as a dead job's."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[tuple[int, ...]]:
    """Keep others out of `folder`; yield descriptors that what outlives this process has to inherit to keep them out.

    Where the file system has no locks, a lease takes their place: a file with a sign of life now and then. It does not
    outlive this process. Meanwhile the group gets those rights on what is made that it has in the folder.

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
            raise _at_work(folder, _text(file)) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise _cannot_lock(file, error) from error
            held.enter_context(_lease(file.with_name(file.name + ".lease"), folder))
            yield ()
            return
        with contextlib.suppress(OSError):  # a disk that is full, or a file of another member of the group
            os.truncate(file, 0)
            os.write(descriptor, _whoever_this_is().encode())
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
    """Hold a lease: a file that is made exclusively and touched every `HEARTBEAT_S`.

    Two that take over a dead one's at the very same moment may both get it: they do work twice, and harm nothing.
    """
    try:
        while not _take(file):
            seen = _text(file)
            if not _is_stale(file, seen):
                raise _at_work(folder, seen)
            _remove(file, seen)
    except OSError as error:
        raise _cannot_lock(file, error) from error
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(file, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        file.unlink(missing_ok=True)


def _take(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    with open(descriptor, "wb", buffering=0) as opened:
        opened.write(_whoever_this_is().encode())
    return True


def _beat(file: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(file)


def _is_stale(file: Path, text: str) -> bool:
    if _has_died(text):
        return True
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent) as probe:  # the file server's clock may not be ours
            return os.stat(probe.name).st_mtime - file.stat().st_mtime > STALE_S
    except FileNotFoundError:  # given back meanwhile
        return True


def _remove(file: Path, seen: str) -> None:
    """Remove a dead job's lease, unless another job has taken it over meanwhile."""
    gone = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(gone)
        if _text(gone) == seen:
            gone.unlink()
        else:
            gone.rename(file)


def _whoever_this_is() -> str:
    """Return a line for people, and one for `has_ended`."""
    words = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    return f"{words}\n{json.dumps(this_process())}\n"


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _has_died(text: str) -> bool:
    """Return whether the process that a lock tells of is known to have ended."""
    try:
        process = json.loads(text.partition("\n")[2])
    except ValueError:
        return False
    return isinstance(process, dict) and has_ended(process)


def _at_work(folder: Path, text: str) -> StoppedEarlyError:
    who = text.partition("\n")[0] or "another job"
    if _has_died(text):
        who = f"another job, or a command that outlived {who}"
    return StoppedEarlyError(f"not started: {who}, is at work in {folder}")


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
