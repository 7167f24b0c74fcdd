"""Bytes to disk, whole or not at all; but for leases, the only module that writes into a run directory."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import mmap
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from batchcam import systems
from batchcam.errors import BatchcamError, StorageFullError
from batchcam.store.bringing import bring
from batchcam.store.schema import DIGEST_SUFFIX, PARTIAL_SUFFIX
from batchcam.store.sink import Sink

Buffer = bytes | bytearray | memoryview
Look = Callable[[], None]
"""Called now and then; raises where the work is to be given up."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
MAKE_ROOM = "make room and run the same command again"
NO_RENAME = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV)
TRIES = 3
"""How often a file is written, when others remove what is under way."""


def unheeding() -> None:
    """Go on whatever happens."""


def write_error(path: Path, error: OSError) -> BatchcamError:
    """Return the error to raise when writing `path` failed: exit code 75 when room will help, 1 otherwise."""
    if error.errno in NO_ROOM:
        return StorageFullError(f"{path.parent}: {os.strerror(error.errno)}; {MAKE_ROOM}")
    return BatchcamError(f"{path}: cannot write: {error.strerror or error}")


def make_folder(path: Path) -> list[Path]:
    """Create folder `path` and its parents if they are not there; a power cut does not take them away again.

    Returns:
        Those that were not there, innermost first.
    """
    try:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            _sync_folder(folder.parent)
        return new
    except OSError as error:
        raise write_error(path, error) from error


def land(path: Path, data: Buffer) -> int:
    """Make `data` appear under `path` whole, replacing what is there, or raise and leave `path` as it was.

    Unique temporary name in the same folder, write, fsync, rename, fsync of the folder: after a power cut
    the file is the old one or the new one, never an empty one.

    Returns:
        The inode of the file that was written.
    """
    for left in reversed(range(TRIES)):
        with _partial(path) as partial:
            inode = _write_synced(partial, data)
            try:
                _rename(partial, path)
                break
            except FileNotFoundError:  # another worker took ours for a dead one's, and cleaned up
                if not left and not path.exists():
                    raise
    return inode


def land_first(path: Path, data: Buffer) -> bool:
    """Make `data` appear under `path` unless something is there already; return whether it was we who did."""
    with _partial(path) as partial:
        _write_synced(partial, data)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:  # file systems without hard links (FAT, some FUSE and SMB mounts)
            if path.exists():
                return False
            _rename(partial, path)
        return True


def lay_ready(path: Path, data: Buffer, digest: str) -> None:
    """Write what `take_up` gives the name `path`, however the process ends meanwhile; `digest` is that of `data`."""
    with _partial(path) as partial:
        _write_synced(partial, data)
        with contextlib.suppress(FileNotFoundError):  # taken for a dead worker's, by one that needs it no more
            os.replace(partial, _ready_path(path, digest))


def ready(path: Path, digest: str) -> Path:
    """Return where the file lies that is to be found under `path`: there, unless `lay_ready` alone was done."""
    beside = _ready_path(path, digest)
    return path if os.path.lexists(path) or not beside.exists() else beside


def take_up(path: Path, digest: str) -> None:
    """Give the file with this digest that was laid ready its name `path`, unless another worker has done so."""
    try:
        if not os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError):
                os.replace(_ready_path(path, digest), path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def land_own(path: Path, data: Buffer, replace: bool = False) -> tuple[str, int | None]:
    """Land a file and its `sha256sum -c` companion; return the digest in hex, and the file's inode if we wrote it.

    The digest goes first: a file under its final name always has one. A file that is there with its digest is whole and
    stays, unless it is to be replaced: another worker was quicker.
    """
    if not replace and path.exists() and (existing := read_digest(path)):
        return existing, None
    digest = hashlib.sha256(data).hexdigest()
    _land_digest(path, digest)
    inode = land(path, data)
    agreed = _agreed_digest(path, digest)
    return agreed, inode if agreed == digest else None


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`; at every moment it is the old one or the new one."""
    with _partial(link) as partial:
        os.symlink(target, partial)
        os.replace(partial, link)


@contextlib.contextmanager
def stream(path: Path, stated: bool = True, look: Look = unheeding) -> Iterator[Sink]:
    """Give out a file object for HDF5, however large; on a clean exit its content lands under `path`.

    A file that is there is replaced; it stays as it was on an exception, or when the disk failed meanwhile, which is
    raised instead of whatever followed from it. Afterwards `size` and `sha256` of the object are those of the file.

    Args:
        stated: its digest lands beside it.
        look: as `digest_of` takes it.
    """
    with _partial(path) as partial, contextlib.ExitStack() as opened:
        with _created(partial) as descriptor:
            content = opened.enter_context(partial.open("rb"))
            sink = Sink(descriptor)
            try:
                yield sink
            finally:
                sink.require_sound()
            sink.finish()
        sink.sha256 = digest_of(content, look)
        if stated:
            _land_digest(path, sink.sha256)
        if not systems.RENAMES_OPEN_FILES:
            content.close()
        try:
            _rename(partial, path)
        except FileNotFoundError:  # another worker took ours for a dead one's, and cleaned up
            land(path, memoryview(mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)))
    if stated:
        sink.sha256 = _agreed_digest(path, sink.sha256)
    sink.size = path.stat().st_size


@contextlib.contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """Give out a file to be written from its start to its end; on a clean exit it lands under `path`.

    What lies there stays if it is just that; and on an exception.
    """
    with _partial(path) as partial:
        with _created(partial) as descriptor, os.fdopen(os.dup(descriptor), "wb") as content:
            yield content
            content.flush()
            os.fsync(descriptor)
        if not (path.is_file() and filecmp.cmp(partial, path, shallow=False)):
            _rename(partial, path)


def file_digest(path: Path, look: Look = unheeding) -> str:
    """Return the SHA-256 of the file at `path`, hex; `look` as `digest_of` takes it."""
    with brought(path) as content:
        return digest_of(content, look)


def brought(path: Path) -> BinaryIO:
    """Return a file of a run open for reading, wherever the run lies."""
    bring(path)
    return path.open("rb")


def digest_of(content: BinaryIO, look: Look = unheeding) -> str:
    """Return the SHA-256 of a file, hex; `look` is called all the time, and may raise to give up."""
    digest = hashlib.sha256()
    while block := content.read(2**20):
        look()
        digest.update(block)
    return digest.hexdigest()


def is_own_file(run: Path, name: str) -> bool:
    """Return whether `name` is a plain file inside the run directory, and no link that may lead out of it."""
    try:
        # the last of the parents is the run itself, which may be reached by a link, as `latest` is
        links = any((run / folder).is_symlink() for folder in Path(name).parents[:-1])
        return not links and stat.S_ISREG((run / name).lstat().st_mode)
    except OSError:
        return False


def digest_path(path: Path) -> Path:
    """Return the companion file of `path` that holds its SHA-256."""
    return path.with_name(path.name + DIGEST_SUFFIX)


def digest_line(name: str, digest: str) -> str:
    """Return the line that `sha256sum -c` reads."""
    return f"{digest}  {name}\n"


def read_digest(path: Path) -> str | None:
    """Return the SHA-256 that lies beside `path`, None when there is none or it is not `sha256sum`'s line for it."""
    beside = digest_path(path)
    try:
        status = beside.lstat()
        # neither wait for a pipe nor read a file that can't be that one line
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(os.fsencode(digest_line(path.name, "0" * 64))):
            return None
        bring(beside)
        line = beside.read_bytes()
    except OSError:
        return None
    digest = line[:64].decode("latin-1")
    whole = line == os.fsencode(digest_line(path.name, digest))
    return digest if whole and set(digest) <= set("0123456789abcdef") else None


def temporary_path(path: Path, mark: str) -> Path:
    """Return a temporary name beside `path`, which `partials` finds."""
    return path.with_name(f".{path.name}.{mark}{PARTIAL_SUFFIX}")


def set_aside(path: Path) -> None:
    """Give what lies under `path`, if anything does, the temporary name `aside`: it no longer holds."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, aside(path))
    except OSError as error:
        raise write_error(path, error) from error


def aside(path: Path) -> Path:
    """Return where `set_aside` puts a file."""
    return temporary_path(path, "former")


def leave_partial(path: Path) -> None:
    """Leave an empty temporary file of `path`, as a call does that was killed before it wrote anything."""
    try:
        _write_synced(_partial_path(path), b"")
    except OSError as error:
        raise write_error(path, error) from error


def partials(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the temporary files in `folder`, each with the final name it was meant for."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        name = entry.name
        if name.startswith(".") and name.endswith(PARTIAL_SUFFIX):
            yield Path(entry.path), name[1 : -len(PARTIAL_SUFFIX)].rpartition(".")[0]


def remove_stale_partials(folder: Path, landed: Iterable[str]) -> None:
    """Remove temporary files whose final file has `landed`: whoever was writing them is dead or no longer needed."""
    names = set(landed)
    for path, final in partials(folder):
        if final in names or final.removesuffix(DIGEST_SUFFIX) in names:
            with contextlib.suppress(OSError):  # such as another user's; verify tells of it
                path.unlink(missing_ok=True)


def _rename(partial: Path, path: Path) -> None:
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in NO_RENAME:
            raise
        raise BatchcamError(
            f"{path.parent}: files can't be renamed here ({error.strerror}), as where object storage looks like a "
            "folder: let --out be on a disk, and copy the run there when it is done"
        ) from error


def _land_digest(path: Path, digest: str) -> None:
    land(digest_path(path), digest_line(path.name, digest).encode())


def _agreed_digest(path: Path, digest: str) -> str:
    """Return the digest of what has landed under `path`, which lies beside it in the end.

    It is not `digest` only where two workers landed different bytes at once, as on unlike GPUs: the file may then be
    one worker's and the digest the other's.
    """
    if read_digest(path) != digest:
        while read_digest(path) != (digest := file_digest(path)):
            _land_digest(path, digest)
    return digest


def _partial_path(path: Path) -> Path:
    return temporary_path(path, secrets.token_hex(8))


def _ready_path(path: Path, digest: str) -> Path:
    return temporary_path(path, digest[:16])


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Hand out a temporary name, for a file to be written, synced and renamed; then sync the folder and clean up."""
    partial = _partial_path(path)
    try:
        try:
            yield partial
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def _created(path: Path) -> Iterator[int]:
    """Hand out the descriptor of a new file, for writing, and for reading what was written."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | systems.BINARY, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_synced(path: Path, data: Buffer) -> int:
    """Write a new file; return its inode."""
    with _created(path) as descriptor:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        return os.fstat(descriptor).st_ino


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one that may be written to, but not read; Windows opens none
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no sync of folders
            raise
    finally:
        os.close(descriptor)
