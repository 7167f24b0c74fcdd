"""Parquet and Arrow files: tables that name images in files, or hold the images themselves."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batchcam.errors import BatchcamError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.manifest_files import columns_for
from batchcam.images.members import Holder, HolderFile, Pieces, Stored
from batchcam.images.remote import address, is_url
from batchcam.images.tables import Reading, Table, TableError, as_text, numbers

MOST_GROUP_BYTES: Final = 2**31
"""Largest row group of images: reading one image takes all of it into memory."""


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet, which only some users have.

    Raises:
        BatchcamError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BatchcamError("Parquet and Arrow need pyarrow: pip install 'batchcam[arrow]'") from error


def parquet_table(files: Sequence[str], reading: Reading, prefix: str = "") -> Table:
    """Open Parquet files of one schema: images in a column of bytes, or of bytes and paths, else paths in one of text.

    Args:
        files: one after the other.
        reading: what the user says of them.
        prefix: what ids begin with that only count the rows.

    Raises:
        TableError: they can't be read so.
        OSError: a file can't be read.
    """
    arrow, parquet = import_pyarrow()
    holders = [Holder.at(file) for file in files]
    parts: list[Any] = []
    groups: list[list[int]] = []
    schema: Any = None
    holds_some = False
    try:
        for holder in holders:
            with holder.opened() as read, parquet.ParquetFile(HolderFile(read, holder.size)) as opened:
                schema = schema or opened.schema_arrow
                _require_same(schema, opened.schema_arrow, holder.path)
                image = _image_column(arrow, schema, reading)
                nested = image is not None and arrow.types.is_struct(schema.field(image).type)
                others = _others(arrow, schema, image)
                wanted = [*others, f"{image}.path"] if nested else others
                parts.append(opened.read(columns=wanted, use_threads=False))
                if image is not None:
                    groups.append(_group_rows(opened))
                    holds_some = holds_some or _holds_some(opened.metadata, image, nested)
        table = arrow.concat_tables(parts)
        table.validate(full=True)
        stored = ParquetImages(holders, groups, image, nested) if image and holds_some else None
    except arrow.ArrowException as error:
        raise TableError(f"not Parquet, or damaged: {error}") from error
    return _table(arrow, schema, table, image, stored, reading, prefix)


def arrow_table(files: Sequence[str], reading: Reading, prefix: str = "") -> Table:
    """Open Arrow files of one schema with images in them, as `datasets` writes them.

    Raises:
        TableError: they can't be read so.
        OSError: a file can't be read.
    """
    arrow, _ = import_pyarrow()
    if any(map(is_url, files)):
        raise TableError(
            "what save_to_disk writes has no index, and all of it would be read to find the images: copy it here, or "
            "write Parquet there, by to_parquet"
        )
    parts: list[Any] = []
    places: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    holders = [Holder.at(file) for file in files]
    try:
        for holder in holders:
            with arrow.memory_map(holder.path) as mapped:
                whole = mapped.read_buffer()
                reader = arrow.ipc.open_stream(arrow.BufferReader(whole))
                if parts:
                    _require_same(parts[0].schema, reader.schema, holder.path)
                image = _image_column(arrow, reader.schema, reading)
                if image is None:
                    raise TableError(f"no column of images, but {', '.join(reader.schema.names)}")
                batches = list(reader)
                found = [_places(batch, image, whole) for batch in batches] or [_NOWHERE]
                places.append((np.concatenate([f for f, _ in found]), np.concatenate([s for _, s in found])))
                parts.append(arrow.Table.from_batches(batches, reader.schema))
    except arrow.ArrowException as error:
        raise TableError(f"not Arrow, or damaged: {error}") from error
    table = arrow.concat_tables(parts)
    sizes = np.concatenate([sizes for _, sizes in places])
    stored = Pieces(
        sizes,
        holders,
        np.repeat(np.arange(len(holders), dtype=np.int32), [len(sizes) for _, sizes in places]),
        np.concatenate([offsets for offsets, _ in places]),
        dict.fromkeys(np.flatnonzero(sizes < 0).tolist(), _NO_IMAGE),
    )
    return _table(arrow, table.schema, table, image, stored, reading, prefix)


_NOWHERE: Final = (np.empty(0, np.int64), np.empty(0, np.int64))
_NO_IMAGE: Final = "its row holds no image"


class ParquetImages(Stored):
    """Images in a column of Parquet files, of which each process keeps the row group that it read last."""

    def __init__(self, holders: Sequence[Holder], groups: Sequence[Sequence[int]], column: str, nested: bool) -> None:
        """Keep where they lie.

        Args:
            groups: rows of each row group of each file.
            column: of the images.
            nested: whether it holds paths besides.
        """
        self.sizes = np.full(sum(map(sum, groups)), -1, np.int64)
        self._holders, self._column, self._nested = holders, column, nested
        self._groups = [(file, group) for file, each in enumerate(groups) for group in range(len(each))]
        self._starts = np.cumsum([0, *(rows for each in groups for rows in each)])
        self._kept: tuple[int, int, Any] | None = None

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        kept = self._kept
        if kept is None or kept[:2] != (os.getpid(), number):
            self._kept = kept = (os.getpid(), number, self._group(*self._groups[number]))
        image = kept[2][index - int(self._starts[number])].as_py()
        if image is None:
            raise UnreadableImageError(_NO_IMAGE)
        data: bytes = image
        return data

    def _group(self, file: int, group: int) -> Any:
        arrow, parquet = import_pyarrow()
        holder, leaf = self._holders[file], f"{self._column}.bytes" if self._nested else self._column
        with holder.opened() as read:
            try:
                with parquet.ParquetFile(HolderFile(read, holder.size)) as opened:
                    found = opened.read_row_group(group, columns=[leaf], use_threads=False).column(0).combine_chunks()
            except (arrow.ArrowException, OSError) as error:
                if getattr(error, "errno", None):
                    raise
                name = os.path.basename(address(holder.path))
                raise UnreadableImageError(f"row group {group} of {name} is damaged") from error
        return found.field("bytes") if self._nested else found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}


def _group_rows(opened: Any) -> list[int]:
    """Return the rows of each row group of a Parquet file."""
    groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    if (largest := max((group.total_byte_size for group in groups), default=0)) > MOST_GROUP_BYTES:
        raise TableError(
            f"a row group of {largest} bytes, all of which one image takes to read: write it with fewer rows"
        )
    return [group.num_rows for group in groups]


def _holds_some(metadata: Any, image: str, nested: bool) -> bool:
    """Return whether a column holds images, and not only the paths of them."""
    leaf = f"{image}.bytes" if nested else image
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    known = [column for column in columns if column.path_in_schema == leaf]
    return any(each.statistics is None or each.statistics.null_count < each.num_values for each in known)


def _require_same(first: Any, other: Any, file: str) -> None:
    if not first.equals(other):
        raise TableError(
            f"{os.path.basename(address(file))} has other columns than the file before it: name one of them"
        )


def _image_column(arrow: Any, schema: Any, reading: Reading) -> str | None:
    """Return the column that holds images, None where none does."""
    held = [field.name for field in schema if _holds_images(arrow, field.type)]
    if len(set(schema.names)) != len(schema.names):
        raise TableError("two columns have the same name")
    if "path" in reading.columns:
        held = [name for name in held if name == reading.columns["path"]]
    elif len(held) > 1 and (likely := columns_for("path", held, {})):
        held = [held[index] for index in likely]
    if len(held) > 1:
        raise TableError(f"several columns hold images: {', '.join(held)}: say --columns {quote(f'path={held[0]}')}")
    return held[0] if held else None


def _holds_images(arrow: Any, kind: Any) -> bool:
    if arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0:
        kind = kind.field("bytes").type
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _places(batch: Any, column: str, whole: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the images of a batch lie in its file, and their sizes, -1 for none, int64 (n,) each."""
    batch.validate(full=True)
    if not batch.num_rows:
        return _NOWHERE
    images = batch.column(column)
    missing = np.asarray(images.is_null())
    if images.type.num_fields:
        images = images.field("bytes")
        missing = missing | np.asarray(images.is_null())
    _, ends, data = images.buffers()
    width = np.int64 if "large" in str(images.type) else np.int32
    edges = np.frombuffer(ends, width)[images.offset :][: len(images) + 1].astype(np.int64)
    first = (data.address if data else whole.address) - whole.address
    if not 0 <= first + edges[0] <= first + edges[-1] <= whole.size:
        raise TableError("its images are compressed, so that none can be read alone: write it without compression")
    return first + edges[:-1], np.where(missing, -1, np.diff(edges))


def _table(
    arrow: Any, schema: Any, table: Any, image: str | None, stored: Stored | None, reading: Reading, prefix: str
) -> Table:
    names, features = _others(arrow, schema, image), _features(schema.metadata or {})
    notes = [f"column passed over: {name}: bytes" for name in schema.names if name not in names and name != image]
    try:
        columns = [[*map(as_text, _named(table.column(name).to_pylist(), features.get(name)))] for name in names]
    except (ValueError, OverflowError) as error:  # such as a date that Python can't say
        raise TableError(f"a value that is no text: {error}") from error
    said, class_names = _labelled(schema, names, reading)
    numbered = False
    if image is not None:
        ids = _paths(arrow, table, image)
        if ids is None and stored is None:
            raise TableError(f"column {image} holds neither images nor a path of each")
        if ids is None:
            numbered, ids = True, [*numbers(len(table), prefix)]
            notes.append(
                "rows have no ids of their own, and count as samples by their number; --columns id=… names some"
            )
        names, columns, said = [image, *names], [ids, *columns], {**said, "path": image}
        notes.append(f"column {image} holds {'the images' if stored else 'only paths of the images'}")
    rows = enumerate(zip(*columns, strict=True), start=1)
    return Table(names, rows, notes, stored, class_names, numbered, said)


def _others(arrow: Any, schema: Any, image: str | None) -> list[str]:
    """Return the columns that can be texts."""
    return [name for name in schema.names if name != image and not _holds_images(arrow, schema.field(name).type)]


def _paths(arrow: Any, table: Any, image: str) -> list[str] | None:
    """Return the paths that are stored beside images or instead, None where they do not tell these apart."""
    if image in table.column_names and arrow.types.is_struct(table.schema.field(image).type):
        paths = [path for chunk in table.column(image).chunks for path in chunk.field("path").to_pylist()]
        if all(paths) and len(set(paths)) == len(paths):
            return paths
    return None


def _labelled(schema: Any, names: Sequence[str], reading: Reading) -> tuple[dict[str, str], tuple[str, ...] | None]:
    """Return which columns are which, and the class names of labels that are numbers, as `datasets` notes them down."""
    said = dict(reading.columns)
    features = _features(schema.metadata or {})
    known = [name for name in names if _class_names(features.get(name)) or _list_names(features.get(name))]
    if not columns_for("label", names, said) and known:
        if len(known) > 1:
            raise TableError(
                f"several columns of labels: {', '.join(known)}: say --columns {quote(f'label={known[0]}')}"
            )
        said["label"] = known[0]
    label = next((names[index] for index in columns_for("label", names, said)), "")
    return said, _class_names(features[label]) if label in known else None


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return tuple(map(as_text, names)) if isinstance(names, list) and names else None


def _list_names(feature: Any) -> tuple[str, ...] | None:
    """Return the class names of a column of lists of class indices."""
    items = feature.get("feature") if isinstance(feature, dict) else feature
    return _class_names(items[0] if isinstance(items, list) and items else items)


def _named(values: list[Any], feature: Any) -> list[Any]:
    """Return the values of a column, lists of class indices as lists of names."""
    if (names := _list_names(feature)) is None:
        return values
    indices = {index for value in values for index in value or ()}
    if wrong := [index for index in indices if not isinstance(index, int) or not 0 <= index < len(names)]:
        raise TableError(f"label {wrong[0]} is none of its {len(names)} classes")
    return [value if value is None else [names[index] for index in value] for value in values]
