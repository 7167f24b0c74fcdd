"""The folder of one export: what it was made from, and files that land whole and never outside of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from batchcam.errors import RunError
from batchcam.record.names import write_csv
from batchcam.store import landing
from batchcam.store.document import canonical
from batchcam.store.plan import Plan
from batchcam.store.sink import Sink

EXPORT_FILE: Final = "export.json"
LAYOUT: Final = 4
"""Changes with the files of any format, so that a newer batchcam does not go on with an older one's export."""


class ExportFolder:
    """The output of one export.

    Attributes:
        files: how many files the export has so far, other than `export.json`.
        kept: how many of them an earlier call wrote.
        folds_case: whether its file system takes names that differ in case for one.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        """Create or reopen the folder `root` for what `identity` says (see `identity_of`)."""
        self.root = root
        self.files = self.kept = 0
        landing.make_folder(root)
        _claim(root, identity)
        self.folds_case = (root / EXPORT_FILE.upper()).exists()
        self._real = root.resolve()
        self._checked: set[Path] = set()
        self._parents: set[Path] = set()

    def has(self, name: str) -> bool:
        """Return whether the file is there, and then count it as kept."""
        if not self.lies(name):
            return False
        self.files += 1
        self.kept += 1
        return True

    def lies(self, name: str) -> bool:
        """Return whether the file is there."""
        path = self._path(name)
        return path.is_file() and not path.is_symlink()

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Land `data` as the file `name`, a path relative to the folder, unless just that lies there."""
        path = self._path(name)
        self.files += 1
        if self.lies(name) and path.stat().st_size == len(data) and path.read_bytes() == data:
            self.kept += 1
            return
        self._make_parents(path.parent)
        landing.land(path, data)

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Give out a file of any size to be written, which lands as `write` lands one."""
        path = self._path(name)
        self.files += 1
        self._make_parents(path.parent)
        before = path.stat().st_ino if self.lies(name) else None
        with landing.growing(path) as content:
            yield content
        self.kept += path.stat().st_ino == before

    @contextlib.contextmanager
    def stream_hdf5(self, name: str) -> Iterator[Sink]:
        """Give out what HDF5 writes a file of any size into, which lands with its digest."""
        path = self._path(name)
        self.files += 2
        self._make_parents(path.parent)
        before = landing.read_digest(path) if self.lies(name) else None
        with landing.stream(path) as sink:
            yield sink
        self.kept += 2 * (before == sink.sha256)

    def write_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Land a CSV file, see `names.write_csv`."""
        with self.stream(name) as content:
            write_csv(content, header, rows)

    def finish(self) -> None:
        """Remove the temporary files that an earlier call, killed while it wrote, left beside its files."""
        for parent in self._parents:
            if parent.is_dir():
                landing.remove_stale_partials(parent, os.listdir(parent))

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ValueError(f"{name!r} is no path below an export's folder")
        path = self.root / name
        self._parents.add(path.parent)
        return path

    def _make_parents(self, parent: Path) -> None:
        if parent in self._checked:
            return
        # before anything is made: a link that lies in the folder may lead anywhere
        if not parent.resolve().is_relative_to(self._real):
            raise RunError(f"{parent}: a link leads out of {self.root}; remove it or choose another --out")
        landing.make_folder(parent)
        self._checked.add(parent)


def identity_of(plan: Plan, format_: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an export is made from; a rerun goes on with a folder of the same identity only."""
    return {
        "layout": LAYOUT,
        "format": format_,
        "run_id": plan.run_id,
        # also tells apart runs of one id that store other maps, or cut their shards otherwise
        "plan_sha256": hashlib.sha256(canonical(plan.to_dict()).encode()).hexdigest(),
        **options,
    }


def _claim(root: Path, identity: Mapping[str, Any]) -> None:
    path = root / EXPORT_FILE
    text = (json.dumps(identity, indent=1, sort_keys=True) + "\n").encode()
    identity = json.loads(text)  # JSON has no tuples
    try:
        existing = json.loads(path.read_bytes())
    except FileNotFoundError:
        if any(not name.endswith(".partial") for name in os.listdir(root)):
            raise RunError(f"{root}: not empty, and no export of batchcam; choose another --out") from None
        landing.land(path, text)
        return
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot read: {error}; choose another --out") from error
    if existing == identity:
        return
    if set(os.listdir(root)) == {EXPORT_FILE}:  # an export that failed before its first file
        landing.land(path, text)
    else:
        theirs = existing if isinstance(existing, dict) else {}
        differing = [k for k in identity if theirs.get(k) != identity[k]] or ["fields"]
        raise RunError(f"{root}: holds another export: other {', '.join(differing)}; choose another --out")
