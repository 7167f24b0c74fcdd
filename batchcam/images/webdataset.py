"""WebDataset: tars in which the files of one sample have one name, `KEY.jpg`, `KEY.cls`, `KEY.json`."""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from batchcam.images import remote
from batchcam.images.archives import ArchiveError, Member, PieceList, TarFile, tar_members
from batchcam.images.decoding import IMAGE_ENDINGS
from batchcam.images.members import Holder, HolderError
from batchcam.images.tables import MOST_COLUMNS, Reading, Table, TableError, as_text

_BRACES: Final = re.compile(r"\{([^{}]+)\}")
_RANGE: Final = re.compile(r"([0-9]+)\.\.([0-9]+)")

_KEY: Final = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""As the library cuts a name: the part begins after the first dot of the last name."""

_MOST_SHARDS: Final = 10**6
_MOST_WORDS: Final = 2**20
"""Bytes of a label, or of what else is known of a sample."""

_KEY_COLUMN, _LABEL_COLUMN = "__key__", ".cls"


def open_webdataset(pattern: str, reading: Reading) -> Table:
    """Open the tars that a pattern names, with {000..099}, {a,b} or wildcards in it.

    Raises:
        TableError: they can't be read so, or a key comes twice.
        OSError: one can't be read.
    """
    shards = _Shards([Holder.at(file) for file in _files(remote.expanded(pattern))])
    for number in range(len(shards.holders)):
        shards.list(number)
    return shards.table(reading)


class _Shards:
    """Samples found so far, by key in the order in which they come."""

    def __init__(self, holders: list[Holder]) -> None:
        self.holders = holders
        self._rows: dict[str, int] = {}
        self._images = PieceList()
        self._columns: dict[str, dict[str, str]] = {}
        self._others: Counter[str] = Counter()
        self._unread = 0

    def list(self, number: int) -> None:
        """Add the samples of one tar."""
        holder = self.holders[number]
        try:
            with holder.opened() as read:
                tar = TarFile(read, holder)
                for member in tar_members(tar):
                    self._add(number, member, tar)
        except (ArchiveError, HolderError) as error:
            raise TableError(f"{os.path.basename(remote.address(holder.path))}: {error}") from error

    def table(self, reading: Reading) -> Table:
        """Return what was found."""
        if not self._rows:
            raise TableError(f"no images in it: looked for {', '.join(IMAGE_ENDINGS)}")
        notes = []
        if self._others:
            notes.append(f"parts of samples ignored: {self._others.total()}, {', '.join(sorted(self._others)[:5])}")
        if self._unread:
            notes.append(f"samples whose .json is no object, and says nothing: {self._unread}")
        without = {key for column in self._columns.values() for key in column if key not in self._rows}
        if without:
            notes.append(f"samples without an image: {len(without)}, such as {min(without)!r:.80}")
        for key in sorted(without):
            self._rows[key] = self._images.add(0, Member(b"", 0, 0, "the tars hold no image of its key"))
        columns = [[column.get(key, "") for key in self._rows] for column in self._columns.values()]
        labelled = {"label": _LABEL_COLUMN} if _LABEL_COLUMN in self._columns else {}
        return Table(
            [_KEY_COLUMN, *self._columns],
            enumerate(zip(self._rows, *columns, strict=True), start=1),
            notes,
            self._images.pieces(self.holders),
            columns={**labelled, **reading.columns, "path": _KEY_COLUMN},
        )

    def _add(self, number: int, member: Member, tar: TarFile) -> None:
        name = member.name.decode("utf-8", "backslashreplace")
        found = _KEY.fullmatch(name)
        if found is None:
            self._others[os.path.basename(name)] += 1
            return
        key, part = found[1], found[2].lower()
        if part in ("cls", "json"):
            self._take(key, part, member, tar)
        elif f".{part}".endswith(IMAGE_ENDINGS):
            row = self._images.add(number, member)
            if self._rows.setdefault(key, row) != row:
                raise TableError(
                    f"key {key!r:.80} has another image already, in this tar or an earlier one: ids are keys: make the "
                    "tars with one image a key, or name one tar at a time"
                )
        else:
            self._others["." + part] += 1

    def _take(self, key: str, part: str, member: Member, tar: TarFile) -> None:
        """Keep what a part says of a sample."""
        if member.problem or member.size > _MOST_WORDS:
            raise TableError(f"{key!r:.80}.{part}: {member.problem or f'more than {_MOST_WORDS} bytes'}")
        content = tar.read(member.offset, member.size)
        said: Any = None
        if part == "cls":
            said = {_LABEL_COLUMN: content.decode("utf-8", "backslashreplace").strip()}
        else:
            with contextlib.suppress(ValueError, RecursionError):
                said = json.loads(content)
        if not isinstance(said, dict):
            self._unread += 1
            return
        said.pop(_KEY_COLUMN, None)
        for name, value in said.items():
            if self._columns.setdefault(as_text(name), {}).setdefault(key, text := as_text(value)) != text:
                raise TableError(f"key {key!r:.80} has two different {name!r:.80}: make the tars with one")
        if len(self._columns) > MOST_COLUMNS:
            raise TableError(f"more than {MOST_COLUMNS} different names in its .json")


def _files(pattern: str) -> list[str]:
    """Return the files of a pattern."""
    files: list[str] = []
    for name in itertools.islice(_expanded(pattern), _MOST_SHARDS + 1):
        if not glob.has_magic(remote.address(name)) or os.path.exists(name):
            found = [name]
        else:
            found = remote.matching(name) if remote.is_url(name) else sorted(glob.glob(name))
        if not found:
            raise TableError(f"{name}: no such files")
        files += found
    if not files:
        raise TableError("names no files: its range runs backwards")
    if len(files) > _MOST_SHARDS or len(set(files)) != len(files):
        raise TableError(f"names more than {_MOST_SHARDS} files, or one of them twice")
    if gone := [file for file in files if not remote.is_url(file) and not os.path.isfile(file)]:
        raise TableError(f"{len(gone)} of {len(files)} files are not there: {gone[0]}")
    return files


def _expanded(pattern: str) -> Iterator[str]:
    """Yield what a pattern with braces stands for, as a shell would have it."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    if numbers := _RANGE.fullmatch(found[1]):
        first, last = numbers.groups()
        choices: Any = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    else:
        choices = found[1].split(",")
    for choice in choices:
        yield from _expanded(pattern[: found.start()] + choice + pattern[found.end() :])
