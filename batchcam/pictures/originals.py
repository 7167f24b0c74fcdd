"""A run's original images: found by sample id, checked, and decoded as the worker decoded them."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from batchcam import systems
from batchcam.errors import BatchcamError, ConfigError, one_line
from batchcam.images import stl10_files
from batchcam.images.archives import ArchiveError, open_archive, root_in, split_archive
from batchcam.images.decoding import UnreadableImageError, decode_image, describe, image_of
from batchcam.images.kinds import any_table, is_table
from batchcam.images.manifest_files import columns_for, stored_path
from batchcam.images.map_datasets import python_dataset, stored_item, torchvision_dataset
from batchcam.images.members import HolderError, Stored
from batchcam.images.passing_faults import passing_fault
from batchcam.images.planes import Decoded, Decoding, shown
from batchcam.images.regular_files import MOST_BYTES, NotRegularError, TooLargeError
from batchcam.images.remote import expanded, is_url, joined, read_file, without_secrets
from batchcam.images.tables import Reading, TableError, folder_of
from batchcam.rules import IN_MEMORY
from batchcam.store.plan import named_dataset, named_reading
from batchcam.store.run import Run, Sample

ORIGIN: Final = ("sample_id", "input_sha256", "image_size")
"""Arrays that tell which image a sample was made from."""

WITHOUT_FILES: Final = ("torchvision", "python", IN_MEMORY)
"""Kinds of dataset whose digests are of what their code gives, which runs only where the user names it."""

_UNASKED: Final = "behind a URL, which no run may open by itself: say"
"""Why some images are not read: a record is someone else's, and must not let this machine ask servers of its choice."""

_ESCAPED_BYTE: Final = re.compile(rb"\\x([89a-f][0-9a-f])")
"""Only bytes that are not UTF-8 are escaped: never a slash, a dot or a NUL."""


class State(enum.IntEnum):
    """Whether an original can be shown."""

    FOUND = 0
    MISSING = 1
    CHANGED = 2  # there, but not the image that was explained
    UNREADABLE = 3  # the right bytes, which the Pillow that is installed here reads otherwise or not at all


@dataclasses.dataclass(frozen=True)
class Original:
    """An original image, or why it can't be shown.

    Attributes:
        state: whether it can.
        image: RGB uint8 (H0, W0, 3), upright, as the worker saw it, see `shown`; only when found.
        reason: one line; "" when found.
    """

    state: State
    image: np.ndarray | None = None
    reason: str = ""

    @property
    def remark(self) -> str:
        """What a picture says in its place; "" when found."""
        plain = {State.CHANGED: "ORIGINAL CHANGED", State.MISSING: "original missing"}
        return plain.get(self.state, self.reason)


@dataclasses.dataclass(frozen=True)
class _Stored:
    digest: str
    decode: Callable[[], np.ndarray]


class _MissingError(Exception):
    """There is no image for a sample; the message says why."""


_Reader = Callable[[str], _Stored]


class Originals:
    """Where the original images of a run are; `read` finds, checks and decodes one.

    Attributes:
        where: the folders or files that are searched; None when there are none.
    """

    def __init__(self, readers: Sequence[_Reader], where: str | None) -> None:
        self.where = where
        self._readers = readers

    def read(self, sample: Sample) -> Original:
        """Return the original of a sample, whose digest has been compared with the run's."""
        return self.find(sample.id, sample.input_sha256, sample.image_size)

    def of(self, row: Mapping[str, Any]) -> Original:
        """Return the original of a row, of which the arrays ORIGIN are known."""
        height, width = row["image_size"].tolist()
        return self.find(row["sample_id"], row["input_sha256"].tobytes().hex(), (height, width))

    def find(self, sample_id: str, sha256: str, image_size: tuple[int, int]) -> Original:
        """Return the original of a sample.

        Args:
            sha256: digest that the run has of it, hex.
            image_size: (height, width) that the run has of it, upright.
        """
        stored, missing = None, ""
        for reader in self._readers:
            try:
                stored = reader(sample_id)
            except _MissingError as error:
                missing = missing or one_line(error)
                continue
            if stored.digest == sha256:
                break
        if stored is None:
            return Original(State.MISSING, reason=missing)
        if stored.digest != sha256:
            return Original(State.CHANGED, reason="not the image that was explained: its SHA-256 differs")
        try:
            image = stored.decode()
        except UnreadableImageError as error:
            return Original(State.UNREADABLE, reason=one_line(error))
        if image.shape[:2] != image_size:
            sizes = f"{image.shape[0]}×{image.shape[1]}, explained as {image_size[0]}×{image_size[1]}"
            return Original(State.UNREADABLE, reason=f"it is read as {sizes}")
        return Original(State.FOUND, image)


def open_originals(run: Run, data: str | None) -> Originals:
    """Find the original images of a run.

    Args:
        data: folder, tar or zip that sample ids are paths in, manifest, URL of one, wds:, hf: or stl10:ROOT[:split], or
            for a run over python:, torchvision: or a dataset in memory one of the first two; None: the dataset that the
            run was made from, as far as it is still there and no code.

    Raises:
        ConfigError: `data` was given and can't be searched, or is no files where the run is, or files where it is none.
    """
    decoding = Decoding(run.plan.bits, run.plan.image_channels, run.plan.value_range)
    named = {named_dataset(each.path): Reading(*named_reading(each.path)) for each in reversed(run.runs)}
    if data is None:
        searched = [_search(*place, decoding, reading) for place, reading in named.items()]
        places = list(dict.fromkeys(where for _, where in searched if where is not None))
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return Originals([reader for reader, _ in searched], f"{places[0]}{more}" if places else None)
    for origin, _ in named:
        if origin and bool(_kind_without_files(origin)) != bool(_kind_without_files(data)):
            raise ConfigError(f"--data {data}: its images have other digests than those of the run's dataset, {origin}")
    if (reader := _reader(data, decoding, next(iter(named.values())), is_named=True)) is None:
        raise ConfigError(
            f"--data {data}: no such folder, tar, zip, manifest, wds:, hf:, stl10:ROOT[:split], torchvision: or python:"
        )
    return Originals([reader], data)


def _kind_without_files(origin: str | None) -> str:
    """Return the kind of a dataset that has no files, "" of any other."""
    kind, colon, _ = (origin or "").partition(":")
    return kind if colon and kind in WITHOUT_FILES else ""


def _search(origin: str | None, folder: str, decoding: Decoding, reading: Reading) -> tuple[_Reader, str | None]:
    """Return what reads the images of the dataset that was named `origin` in `folder`, and where they are."""
    if origin is None:
        return _nothing("--data does not say where the images are"), None
    if kind := _kind_without_files(origin):
        meant = "python:module:callable that returns it" if kind == IN_MEMORY else one_line(origin)
        return _nothing(f"a dataset of kind {kind} is code, which no run may start: say --data {meant}"), None
    places = (_from(folder, origin), origin)
    if any(_is_elsewhere(place.removeprefix(_kind(place))) for place in places):
        return _nothing(f"{_UNASKED} --data {one_line(origin)}"), None
    for there in places:
        with contextlib.suppress(ConfigError):  # a file of that name which is not the run's
            if (reader := _reader(there, decoding, reading)) is not None:
                return reader, there
    return _nothing(f"{one_line(origin)}: not there; give --data"), None


def _from(folder: str, data: str) -> str:
    """Return a dataset as it is named from elsewhere than `folder`, in which it was named."""
    return (kind := _kind(data)) + joined(folder, data.removeprefix(kind))


def _kind(data: str) -> str:
    return next((kind for kind in ("stl10:", "wds:", "hf:") if data.startswith(kind)), "")


def _is_elsewhere(path: str) -> bool:
    """Return whether a path leads to another machine."""
    return systems.is_share(expanded(path)) or (is_url(path) and not path.startswith("file:"))


def _reader(data: str, decoding: Decoding, reading: Reading, is_named: bool = False) -> _Reader | None:
    """Return what reads the images of a dataset, behind URLs only where the user has named it; None: there is none."""
    kind, _, rest = data.partition(":")
    if kind == "stl10":
        return _stl10(expanded(stl10_files.root_and_split(rest)[0]), decoding)
    if kind == "torchvision":
        return _of_items(torchvision_dataset(data, rest)[0], decoding)
    if kind == "python":
        return _of_items(python_dataset(data, rest), decoding)
    path = expanded(data)
    if os.path.isdir(path):
        return lambda sample_id: _read_file(_inside(os.fsencode(path), sample_id), decoding)
    try:
        if (archive := split_archive(path)) is not None:
            return _of_archive(*archive, decoding)
        if is_url(path) and not is_table(path):
            return lambda sample_id: _read_file(joined(path, _below(sample_id).decode()), decoding)
        return _of_table(path, decoding, reading, is_named)
    except (OSError, BatchcamError, ArchiveError, HolderError, TableError) as error:
        raise ConfigError(f"--data {one_line(data)}: {getattr(error, 'strerror', None) or one_line(error)}") from error


def _nothing(reason: str) -> _Reader:
    def read(sample_id: str) -> _Stored:
        raise _MissingError(reason)

    return read


def _below(sample_id: str) -> bytes:
    """Return the path of a sample below a folder; an id is what a file says, and must not lead out of it."""
    encoded = sample_id.encode("utf-8", "backslashreplace")
    if b"\0" in encoded or not systems.is_below(encoded) or b"://" in encoded:
        raise _MissingError("its id is no path in the folder")
    return encoded


def _inside(folder: bytes, sample_id: str) -> bytes:
    """Return the path of a sample in a folder."""
    encoded = _below(sample_id)
    path = os.path.join(folder, encoded)
    if os.path.lexists(path):
        return path
    # bytes of a file name that are not UTF-8 stand as escapes in the id
    return os.path.join(folder, _ESCAPED_BYTE.sub(lambda m: bytes.fromhex(m[1].decode()), encoded))


def _of_items(dataset: Any, decoding: Decoding) -> _Reader:
    """Return what reads the items of a map-style dataset: by its own ids, or else the number in which an id ends."""

    @functools.cache
    def rows() -> dict[str, int]:
        ids = getattr(dataset, "sample_ids", None)
        with contextlib.suppress(Exception):  # items that can't be read, of which no id is known
            if ids is None and len(dataset[0]) > 2:
                ids = [dataset[row][2] for row in range(len(dataset))]
        return {str(each).encode("utf-8", "backslashreplace").decode(): row for row, each in enumerate(ids or ())}

    def read(sample_id: str) -> _Stored:
        number = sample_id.rpartition("/")[2]
        try:
            row = rows().get(sample_id, int(number) if not rows() and number.isdecimal() else -1)
            if not 0 <= row < len(dataset):
                raise _MissingError("the dataset does not hold it")
            digest, image = stored_item(dataset[row][0], decoding)
        except (_MissingError, BatchcamError):
            raise
        except Exception as error:  # whatever the user's code raises
            if fault := passing_fault(error):
                raise fault from error
            raise _MissingError(f"the dataset does not give it: {type(error).__name__}: {describe(error)}") from error
        return _Stored(digest.hex(), lambda: _picture(image))

    return read


def _picture(image: Decoded | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray):
        raise UnreadableImageError("a preprocessed tensor, of which no picture is known")
    return shown(image)


def _of_archive(file: str, inside: str, decoding: Decoding) -> _Reader:
    archive = open_archive(file)
    root = root_in(archive, inside)
    ids = (os.fsencode(name).decode("utf-8", "backslashreplace") for name in archive.names)
    rows = {sample_id.removeprefix(root): row for row, sample_id in enumerate(ids) if sample_id.startswith(root)}
    return _of_stored(rows, archive.stored, decoding)


def _of_table(data: str, decoding: Decoding, reading: Reading, is_named: bool) -> _Reader | None:
    """Return what reads the images of a table, by the ids that it gives them."""
    with any_table(data, reading) as table:
        if table is None:
            return None
        said = reading.columns if table.columns is None else table.columns
        paths, ids = columns_for("path", table.header, said), columns_for("id", table.header, said)
        if len(paths) != 1 or len(ids) > 1:
            raise TableError("not a manifest with one column path")
        lines = [fields for _, fields in table.rows]
    if any(len(fields) != len(table.header) for fields in lines):
        raise TableError("not a manifest: its rows do not have the fields of its header")
    rows = [(fields[(ids or paths)[0]], fields[paths[0]]) for fields in lines]
    if table.stored is not None:
        return _of_stored({sample_id: row for row, (sample_id, _) in enumerate(rows)}, table.stored, decoding)
    folder = folder_of(data)
    files = {without_secrets(sample_id): joined(folder, stored_path(folder, reading.path(p))) for sample_id, p in rows}

    def read(sample_id: str) -> _Stored:
        if "\0" in (file := files.get(sample_id, "\0")):
            raise _MissingError("the manifest does not name it")
        if _is_elsewhere(file) and not is_named:
            raise _MissingError(f"{_UNASKED} --data {one_line(data)}")
        return _read_file(file.encode(), decoding)

    return read


def _of_stored(rows: dict[str, int], stored: Stored, decoding: Decoding) -> _Reader:
    def read(sample_id: str) -> _Stored:
        if sample_id not in rows:
            raise _MissingError("the dataset does not hold it")
        try:
            return _image(stored.read(rows[sample_id]), decoding)
        except (UnreadableImageError, HolderError, OSError) as error:
            raise _MissingError(str(error)) from error

    return read


def _read_file(path: bytes | str, decoding: Decoding) -> _Stored:
    try:
        data = read_file(path, MOST_BYTES)
    except (NotRegularError, TooLargeError) as error:
        raise _MissingError(f"not a file of at most {MOST_BYTES} bytes") from error
    except OSError as error:
        raise _MissingError(error.strerror or str(error)) from error
    return _image(data, decoding)


def _image(data: bytes, decoding: Decoding) -> _Stored:
    return _Stored(hashlib.sha256(data).hexdigest(), lambda: shown(decode_image(data, decoding)))


def _stl10(root: str, decoding: Decoding) -> _Reader | None:
    """Return a reader of STL10's binary files; the worker's digests of it are of arrays (height, width, channel)."""
    folder = stl10_files.binary_folder(root)
    if not any(os.path.isfile(stl10_files.images_file(folder, split)) for split in stl10_files.SPLITS):
        return None

    def read(sample_id: str) -> _Stored:
        split, _, number = sample_id.partition("/")
        if split not in stl10_files.SPLITS or not re.fullmatch("[0-9]{1,9}", number):
            raise _MissingError("its id is none of STL10")
        try:
            pixels = stl10_files.read_pixels(stl10_files.images_file(folder, split), int(number))
        except OSError as error:
            raise _MissingError(error.strerror or str(error)) from error
        except EOFError as error:
            raise _MissingError(f"{split}_X.bin ends before it") from error
        return _Stored(hashlib.sha256(pixels.tobytes()).hexdigest(), lambda: shown(image_of(pixels, decoding)))

    return read
