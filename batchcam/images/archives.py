"""What lies in a tar or a zip, found without unpacking: names, which lead to no file of this machine, and places."""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from batchcam.images import remote
from batchcam.images.decoding import IMAGE_ENDINGS
from batchcam.images.members import ENCRYPTED, LINK, Holder, HolderFile, Pieces, Read, Stored, Zipped
from batchcam.images.names import is_hidden, is_image

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)

_NEAR, _AHEAD = 2**14, 2**17
"""Bytes between two headers up to which a tar is read whole, and how many at one go; where images are larger, the
headers alone are read."""

_FAR_NEAR, _FAR_AHEAD = 2**20, 2**23
"""The same of a tar behind a URL, where a read takes as long as a megabyte."""

_MOST_WORDS: Final = 2**20
"""Bytes of what a tar says of a name or a member besides its header."""

_COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.z")

_WITHOUT_CONTENT: Final = b"123456"
"""Kinds of members of a tar that have none, whatever size they tell: links, devices, folders, pipes."""

_ABOUT_THE_NEXT: Final = (b"L", b"K", b"x", b"g")
"""Kinds of members that say something of the one that follows, or of all."""

_LINK: Final = "a link in the tar, which is not followed: make it with --dereference --hard-dereference"
_PROBLEMS: Final = {
    **dict.fromkeys((b"1", b"2"), _LINK),
    **dict.fromkeys((b"3", b"4", b"6"), "a pipe or device in the tar"),
}

_HERE: Final = re.compile("^(?:[.]/+)+")


class ArchiveError(Exception):
    """An archive that can't be read, or not by place; the message says why and what to do."""


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: its bytes.
        offset: where its content begins.
        size: bytes.
        problem: why it can't be read, "" where it can.
    """

    name: bytes
    offset: int
    size: int
    problem: str


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """Files in an archive, in its order.

    Attributes:
        names: with slashes, unique; none is absolute or leads out.
        stored: their bytes, by index.
    """

    names: Sequence[str]
    stored: Stored


def is_archive(path: str) -> bool:
    """Return whether a file is called like an archive."""
    return path.lower().endswith((".tar", ".zip", *_COMPRESSED))


def open_archive(path: str) -> Archive:
    """List a .tar or .zip file.

    Raises:
        ArchiveError: it is damaged, compressed as a whole, or holds names that are not to be trusted.
        OSError: it can't be read.
    """
    if remote.address(path).lower().endswith(".zip"):
        return _open_zip(path)
    holder, names, found = Holder.at(path), list[str](), PieceList()
    with holder.opened() as read:
        for member in tar_members(TarFile(read, holder)):
            names.append(_checked(os.fsdecode(member.name)))
            found.add(0, member)
    _require_unique(names)
    return Archive(names, found.pieces([holder]))


def split_archive(path: str) -> tuple[str, str] | None:
    """Return the archive that a path leads to, and the folder in it, "" where none is named; None for another path."""
    if remote.is_url(path):
        names = (plain := remote.address(path)).split("/")
        for count, name in enumerate(names[3:], start=4):
            if is_archive(name):
                return "/".join(names[:count]) + path[len(plain) :], "/".join(filter(None, names[count:]))
        return None
    inside: list[str] = []
    while path and not os.path.isfile(path):
        (path, name), whole = os.path.split(path), path
        if path == whole:  # the root
            return None
        inside.insert(0, name)
    return (path, "/".join(filter(None, inside))) if is_archive(path) else None


def root_in(archive: Archive, inside: str = "") -> str:
    """Return the folder of an archive in which its dataset lies, "" or with a slash at its end.

    Args:
        inside: the folder that is meant; "" for the one that holds its images.

    Raises:
        ArchiveError: there is no such folder, or several may be meant.
    """
    if inside:
        if not any(name.startswith(f"{inside}/") for name in archive.names):
            raise ArchiveError(f"it has no folder {inside:.80}")
        return f"{inside}/"
    split = (name.rpartition("/") for name in archive.names)
    folders = {folder for folder, _, name in split if is_image(name) and not name.startswith(".")}
    folders = {folder for folder in folders if not any(map(is_hidden, filter(None, folder.split("/"))))}
    if not folders:
        raise ArchiveError(f"no images in it: looked for {', '.join(IMAGE_ENDINGS)}")
    common = os.path.commonpath(folders)
    if common and common in folders and (len(folders) > 1 or "/" in common):
        why = "and in folders below it" if len(folders) > 1 else "alone, which may be a class, or no class folder"
        name = common.partition("/")[0]
        raise ArchiveError(f"its images lie in {common:.80} {why}: name the folder that is meant, such as …/{name:.80}")
    return f"{common}/" if common else ""


class PieceList:
    """Members of tars that are to be images, a row each."""

    def __init__(self) -> None:
        # numbers alone: a million tuples would each be looked at again and again by the garbage collector
        self._columns: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._problems: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._columns[0])

    def add(self, holder: int, member: Member) -> int:
        """Add a member of a tar, which is given by its index; return its row."""
        row = len(self)
        for column, value in zip(self._columns, (holder, member.offset, member.size), strict=True):
            column.append(value)
        if member.problem:
            self._problems[row] = member.problem
            self._columns[2][row] = -1
        return row

    def pieces(self, holders: Sequence[Holder]) -> Pieces:
        """Return the images."""
        holder, offsets, sizes = (np.array(column, np.int64) for column in self._columns)
        return Pieces(sizes, holders, holder.astype(np.int32), offsets, self._problems)


class TarFile:
    """A tar that is read from its beginning to its end, as far as its headers lie close together at one go."""

    def __init__(self, read: Read, holder: Holder) -> None:
        self.path, self.size, self._read = remote.address(holder.path), holder.size, read
        self._near, self._ahead = (_FAR_NEAR, _FAR_AHEAD) if remote.is_url(holder.path) else (_NEAR, _AHEAD)
        self._start, self._data = 0, b""

    def read(self, offset: int, count: int = _BLOCK) -> bytes:
        """Return `count` bytes from `offset`, fewer where the file ends."""
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._data):
            near = 0 <= begin < len(self._data) + self._near
            self._data = self._read(max(count, self._ahead if near else _BLOCK), offset)
            self._start, begin = offset, 0
        return self._data[begin : begin + count]


def tar_members(tar: TarFile) -> Iterator[Member]:
    """Yield the members of a tar that are no folders: of the formats v7, ustar, GNU and pax.

    Raises:
        ArchiveError: it is damaged or cut off, or goes on after its end.
        OSError: it can't be read.
    """
    if tar.path.lower().endswith(_COMPRESSED):
        raise ArchiveError("is compressed as a whole, so that no image can be read alone: unpack it to a .tar")
    offset, long_name, words = 0, b"", dict[bytes, bytes]()
    while (block := tar.read(offset)) and block != _ZEROS:
        size, kind, start = _size(block, words, offset), block[156:157], offset + _BLOCK
        has_content = kind not in _WITHOUT_CONTENT
        if has_content and start + size > tar.size:
            raise ArchiveError(
                f"ends inside of its member {os.fsdecode(_name(block))!r:.80}: it was cut off; copy it again"
            )
        offset = start + has_content * -(-size // _BLOCK) * _BLOCK
        if kind in _ABOUT_THE_NEXT:
            content = _words(tar, size, start)
            long_name = content.rstrip(b"\0") if kind == b"L" else long_name
            words = _pax(content) if kind == b"x" else words
            continue
        if kind == b"S" or (words and any(key.startswith(b"GNU.sparse") for key in words)):
            raise ArchiveError("holds a sparse file: make it without --sparse")
        name = words.get(b"path") or long_name or _name(block)
        if kind != b"5" and not name.endswith(b"/"):
            yield Member(name, start, size, _PROBLEMS.get(kind, ""))
        long_name, words = b"", {}
    if not block:
        raise ArchiveError("has no end: it was cut off; copy it again")
    _require_end(tar, offset)


def _size(block: bytes, words: dict[bytes, bytes], offset: int) -> int:
    """Return the size that a header of a tar tells, after its own sum has been checked."""
    try:
        # the low half of Adler-32 is 1 + the sum of the bytes, modulo 65521: many times quicker than to add them up
        told = int(block[148:156].strip(b" \0") or b"0", 8)
        if (1 + told) % 65521 != zlib.adler32(block[:148] + b" " * 8 + block[156:]) & 0xFFFF or len(block) != _BLOCK:
            raise ValueError
        if b"size" in words:
            size = int(words[b"size"])
        elif block[124] & 0x80:
            size = int.from_bytes(block[125:136], "big")
        else:
            size = int(block[124:136].strip(b" \0") or b"0", 8)
        if size < 0:
            raise ValueError
    except ValueError as error:
        raise ArchiveError(f"no tar, or damaged, at byte {offset}: copy it again") from error
    return size


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _words(tar: TarFile, size: int, start: int) -> bytes:
    if size > _MOST_WORDS:
        raise ArchiveError(f"a name of {size} bytes at byte {start}: it is damaged")
    return tar.read(start, size)


def _pax(content: bytes) -> dict[bytes, bytes]:
    """Return the records "LENGTH KEY=VALUE\\n" of an extended header."""
    words: dict[bytes, bytes] = {}
    while content.strip(b"\0"):
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(content):
            raise ArchiveError("its extended headers are damaged: copy it again")
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        words[key], content = value, content[int(length) :]
    return words


def _require_end(tar: TarFile, offset: int) -> None:
    """Refuse a tar after whose end there is more than zeros."""
    while rest := tar.read(offset, _AHEAD):
        if rest.strip(b"\0"):
            raise ArchiveError("goes on after its end, as tars do that cat put together: tar --ignore-zeros unpacks it")
        offset += len(rest)


def _open_zip(path: str) -> Archive:
    holder = Holder.at(path)
    collects = gc.isenabled()
    gc.disable()  # else a million entries are looked at again and again
    try:
        with (
            holder.opened() as read,
            io.BufferedReader(HolderFile(read, holder.size), _AHEAD) as whole,
            zipfile.ZipFile(whole) as file,
        ):
            infos = [info for info in file.infolist() if not info.is_dir()]
        numbers = [(i.file_size, i.header_offset, i.compress_size, i.CRC, _method(i)) for i in infos]
        columns = np.array(numbers, np.int64).reshape(-1, 5).T
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        raise ArchiveError(f"no zip, or damaged: {error}: copy it again") from error
    finally:
        if collects:
            gc.enable()
    windows = not any("/" in info.filename for info in infos)
    names = [_checked(info.filename.replace("\\", "/") if windows else info.filename) for info in infos]
    _require_unique(names)
    return Archive(names, Zipped(columns[0], holder, *columns[1:]))


def _method(info: zipfile.ZipInfo) -> int:
    if stat.S_ISLNK(info.external_attr >> 16):
        return LINK
    return ENCRYPTED if info.flag_bits & 1 else info.compress_type


def _checked(name: str) -> str:
    """Return a member's name without what stands for the folder itself before it."""
    name = _HERE.sub("", name) if name.startswith(".") else name
    if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
        raise ArchiveError(f"a name that leads out of it, {name!r:.80}: make the archive of names inside of one folder")
    return name


def _require_unique(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        (twice, _), *_ = Counter(names).most_common(1)
        raise ArchiveError(f"holds {twice!r:.80} twice: which is meant? unpack it and make it again")
