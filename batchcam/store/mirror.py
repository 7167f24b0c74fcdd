"""Runs behind URLs and in zip files, read as folders, whose files have their names and sizes and are filled on demand.

What proves a file of this machine proves these; the HDF5 library is given nothing but whole files of this machine.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from batchcam.errors import RunError
from batchcam.images.decoding import describe
from batchcam.images.passing_faults import PassingFaultError
from batchcam.images.remote import RemoteFolder, expanded, without_secrets
from batchcam.store import landing
from batchcam.store.bringing import Elsewhere, is_elsewhere, is_url, stand_for
from batchcam.store.plan import open_plan
from batchcam.store.schema import DIGEST_SUFFIX, LIST_FILE, MANIFEST_FILE, MASTER_FILE, PLAN_FILE, SHARD_FOLDER
from batchcam.systems import is_below

KEPT_BYTES: Final = 2**30
"""Of files that have been read: beyond, those go that were read longest ago."""

MOST_FILES: Final = 1_000_000
DEEPEST: Final = 3
"""Folders one in another of which files are listed: a series, a run, its shards."""

AT_ONCE: Final = 16
"""Files that a web server is asked about at once."""

_SCHEME: Final = re.compile(r"(^|::)([A-Za-z][A-Za-z0-9+.-]+):/+")
_CHAIN: Final = re.compile(r"::(?![^/]*\])")
"""Of fsspec's URLs: a place inside of another file; an address such as [::1] has none."""

_END: Final = re.compile(rf"[?]|{_CHAIN.pattern}")
"""Where the path in a URL ends."""

_mirrors: list[Mirror] = []
_kept: collections.OrderedDict[Path, int] = collections.OrderedDict()
"""Files of all runs that are whole, with their sizes, those first that were read longest ago."""


def mirrored(path: Path) -> Path:
    """Return what stands for a URL, or the path of a zip file; see `places.local`."""
    url = _SCHEME.sub(_slashes, path.as_posix()) if is_url(path) else os.path.abspath(path)
    if url.lower().startswith("file:"):
        here = Path(expanded(url))
        return mirrored(here) if is_elsewhere(here) else here
    head, mark, query = url.partition("?")
    shard = head.rpartition("/")[2] if head.endswith(".h5") else ""
    if head.lower().endswith(".zip") and not _CHAIN.search(url):
        mirror = Mirror(f"zip://::{url}")
    else:
        mirror = Mirror(head.removesuffix(f"/{shard}" if shard else "") + mark + query, shard)
    _mirrors.append(mirror)
    return mirror.root / shard


class Mirror:
    """A folder of this machine that stands for one behind a URL, until the process ends.

    Args:
        url: of the folder.
        only: its only file of interest, a shard; "": all.

    Attributes:
        root: the folder.
    """

    _lock = threading.RLock()

    def __init__(self, url: str, only: str = "") -> None:
        self._url, self._shown, self._files = url, without_secrets(url.removeprefix("zip://::")), RemoteFolder(url)
        self._home = tempfile.TemporaryDirectory(prefix="batchcam-run-", ignore_cleanup_errors=True)
        self.root = Path(self._home.name).resolve() / _name(url)
        self.root.mkdir()
        self._top = ""
        stand_for(self.root, Elsewhere(self.bring, self.source, not self._files.is_web), self._shown)
        self._sizes: dict[Path, int] = {}
        self._digests: dict[Path, str] = {}
        try:
            with _named(self.root):
                if only:
                    self._look_at([only, f"{only}{DIGEST_SUFFIX}"])
                elif self._files.is_web:
                    self._look_for_run()
                else:
                    self._list(self.root)
        except OSError as error:
            raise RunError(f"{self._shown}: cannot read: {error.strerror or error}") from error
        if not self._sizes:
            raise RunError(f"{self._shown}: no file of a run lies there")

    def bring(self, path: Path) -> None:
        """Fill a file of the folder that was not filled yet, or was emptied since.

        Raises:
            FileNotFoundError: it is gone, here too now.
            OSError: it can't be read, has another size than was told, or changed since it was read first.
            StoppedEarlyError: the network or the server is away, or there is no room.
        """
        with self._lock:
            if path in _kept:
                _kept.move_to_end(path)
            elif (size := self._sizes.get(path)) is not None:
                self._fill(path, size)
                _make_room()

    def source(self, path: Path) -> str:
        """Return the URL of a path of the folder."""
        end = found.start() if (found := _END.search(self._url)) else len(self._url)
        head, name = self._url[:end], self._at(path).rstrip("/")
        return f"{head}{'' if head.endswith('/') or not name else '/'}{name}{self._url[end:]}"

    def _fill(self, path: Path, size: int) -> None:
        partial = Path(self._home.name, f"partial-{os.getpid()}")
        try:
            with _named(path), partial.open("wb") as target:
                digest = self._files.copy(self._at(path), size, target)
            if self._digests.setdefault(path, digest) != digest:
                raise OSError(errno.EIO, "changed where it lies since it was read first")
            os.replace(partial, path)
            _kept[path] = size
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            del self._sizes[path]
            raise
        except OSError as error:
            if error.errno in landing.NO_ROOM:
                raise landing.write_error(partial, error) from error
            raise
        finally:
            partial.unlink(missing_ok=True)

    def _at(self, path: Path) -> str:
        return self._top + ("" if path == self.root else path.relative_to(self.root).as_posix())

    def _list(self, folder: Path, depth: int = 1) -> None:
        """Lay out what lies in a folder, and in those below it."""
        found = self._files.entries(self._at(folder))
        while _CHAIN.search(self._url) and not self._sizes and folder == self.root and _is_folder_alone(found):
            self._top += f"{found[0][0]}/"  # a zip file mostly has the run's own folder
            found = self._files.entries(self._top)
        for name, size, is_folder in found:
            if name == "." or "\0" in name or not is_below(os.fsencode(name)) or len(self._sizes) >= MOST_FILES:
                raise RunError(f"{self._shown}: has a name that leads out of it, {name!r}, or too many files")
            if is_folder:
                (folder / name).mkdir()
                if depth < DEEPEST:
                    self._list(folder / name, depth + 1)
            else:
                path = folder / name
                self._lay(path, size if size is not None else self._files.size(self._at(path)))

    def _look_for_run(self) -> None:
        """Lay out the files of one run, as its plan names them: a web server lists none."""
        self._look_at([PLAN_FILE, MANIFEST_FILE, LIST_FILE, MASTER_FILE, MASTER_FILE + DIGEST_SUFFIX])
        try:
            shards = open_plan(self.root).shards
        except RunError:  # told by who opens it
            return
        if len(shards) > MOST_FILES:
            raise RunError(f"{self._shown}: {len(shards)} shards are too many to ask a web server for")
        (self.root / SHARD_FOLDER).mkdir()
        self._look_at([f"{SHARD_FOLDER}/{shard.file}" for shard in shards])
        for path in [each for each in self._sizes if each.parent != self.root]:
            self._lay(landing.digest_path(path), len(landing.digest_line(path.name, "0" * 64)))

    def _look_at(self, names: list[str]) -> None:
        """Lay out the files of these names that are there; stores hide by 403 whether something is."""

        def size(name: str) -> int | None:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                return self._files.size(name)
            return None

        with ThreadPoolExecutor(AT_ONCE) as asked:
            for name, found in zip(names, asked.map(size, names), strict=True):
                if found is not None:
                    self._lay(self.root / name, found)

    def _lay(self, path: Path, size: int) -> None:
        self._sizes[path] = size
        _empty(path, size)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of a fault that passes what was to be read."""
    try:
        yield
    except PassingFaultError as error:
        told = without_secrets(describe(error.__cause__ or error))
        raise PassingFaultError(f"{path}: cannot be read now: {told}; run the same command again") from error


def _slashes(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}://{'/' * (found[2].lower() == 'file')}"


def _is_folder_alone(entries: list[tuple[str, int | None, bool]]) -> bool:
    return len(entries) == 1 and entries[0][2] and entries[0][0] not in (".", "..")


def _name(url: str) -> str:
    """Return the last name of a URL, for a folder."""
    name = _END.split(url.removeprefix("zip://"))[0].rstrip("/").rpartition("/")[2]
    return name if name not in ("", ".", "..") else "run"


def _empty(path: Path, size: int) -> None:
    with path.open("xb") as file:
        file.truncate(size)


def _make_room() -> None:
    while sum(_kept.values()) > KEPT_BYTES and len(_kept) > 1:
        path, size = _kept.popitem(last=False)
        path.unlink(missing_ok=True)  # a process that reads it does so to its end
        _empty(path, size)
