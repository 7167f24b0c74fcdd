"""A run, opened for reading: lazy arrays over all shards, samples by position or id, tables for pandas and xarray."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.rules import Status
from batchcam.store import notebook, structure
from batchcam.store.bringing import shown, source
from batchcam.store.files import RunFiles
from batchcam.store.layout import array_shape
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import READ_BYTES, blocks, decode, read, split
from batchcam.store.schema import (
    FEATURES,
    LABELS,
    OFFSET,
    SAMPLE_ARRAYS,
    THRESHOLD,
    TRAINED_ON,
    Array,
    meta_array,
    stays_in_shards,
)
from batchcam.store.stored_cams import stored_ranks

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure

SCALAR_COLUMNS = (
    *("sample_index", "sample_id", "label", "prediction", "confidence", "identity_residual", "status", "error"),
)

NO_MAPS = "the run stores no maps; upsample run.cam() instead"

Rows = int | np.integer[Any] | slice | Sequence[int] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row of a run.

    Attributes:
        row: position in the opened run; in a complete one also the position in the dataset.
        index: position in the dataset.
        id: stable name.
        label: class name from the dataset, None where not known.
        labels: of each class 1 (yes), 0 (no) or -1 (not known), int8 (K,); None in a single-label run.
        prediction: name of the predicted class, None where there is none.
        confidence: softmax of the logits at the predicted class, or its sigmoid in a multi-label run.
        logits: float32 (K,).
        cam_class: class index of each stored map, int64 (M,).
        cams: raw CAMs, float32 (M, h, w), in units of the logit.
        map: upsampled map of the predicted class, (H, W); None where the run stores none.
        crop_box: x0, y0, x1, y1 of the network's view in pixels of the upright original.
        image_size: (height, width) of the upright original.
        input_sha256: digest of the stored image, hex.
        input_bytes: size of the stored file when the dataset was listed, -1 where there is none; None in schema 1.
        trained_on: whether the network was trained on this image, None where that is not known.
        identity_residual: largest abs(mean of CAM + bias + offset - logit).
        offset: what of each map's logit lies in no cell, (M,); None where all of it does, but for the bias.
        features: what the classifier takes, (C,): W f + b = logits; None where the run stores none.
        status: flags.
        error: why the sample is unreadable, "" if it is not.
        meta: what a manifest says besides, by column.
        run: that it is a row of; pickled, it travels as its path.
    """

    row: int
    index: int
    id: str
    label: str | None
    labels: np.ndarray | None
    prediction: str | None
    confidence: float
    logits: np.ndarray
    cam_class: np.ndarray
    cams: np.ndarray
    map: np.ndarray | None
    crop_box: tuple[float, float, float, float]
    image_size: tuple[int, int]
    input_sha256: str
    input_bytes: int | None
    trained_on: bool | None
    identity_residual: float
    offset: np.ndarray | None
    features: np.ndarray | None
    status: Status
    error: str
    meta: Mapping[str, str]
    run: Run = dataclasses.field(repr=False, compare=False)

    def overlay(
        self,
        class_: int | str | None = None,
        data: str | None = None,
        *,
        palette: str = "viridis",
        cells: bool = False,
        signed: bool = False,
    ) -> np.ndarray:
        """Return the original under the map of a class, as reports show it, RGB uint8 (H, W, 3).

        Args:
            class_: index or name of the class; default: the predicted one.
            data: where the originals are; default: where they were when they were explained. Grey stands for one that
                is not there, or is another now.
            palette: viridis or jet.
            cells: show the map's cells as they are, instead of interpolating.
            signed: show raw values, red for and blue against the class, instead of their range.

        Raises:
            KeyError: no such class, or the run does not store its map of this sample.
            RunError: the sample has no prediction, or its map says nothing about where.
            ConfigError: `data` can't be searched.
        """
        from batchcam.pictures import plots

        return plots.draw(self, class_, data, palette=palette, cells=cells, signed=signed)


class RunArray:
    """One array of the schema over all shards of a run, read when it is indexed.

    The first index may be a row, a slice, a boolean mask or a sequence of rows; further ones go to the other axes.

    Example:
        >>> run.cams[run.prediction[:] != run.label[:]].shape
        (12, 10, 4, 4)
    """

    def __init__(self, run: Run, array: Array) -> None:
        self._run, self._array = run, array
        self.shape = array_shape(array, run.plan, len(run))
        self.dtype = np.dtype(object) if array.dtype == "text" else np.dtype(array.dtype)

    @property
    def name(self) -> str:
        """Its name in the schema."""
        return self._array.name

    @property
    def meaning(self) -> str:
        """What its numbers or texts are."""
        return self._array.meaning

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self._array.name} {self.dtype} {self.shape}: {self._array.meaning}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values: np.ndarray = self[:]
        return values.astype(dtype) if dtype else values

    def __getitem__(self, index: Rows | tuple[Any, ...]) -> Any:
        """Return rows as numpy arrays, text as objects of type str; a single row without its axis."""
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if isinstance(first, (int, np.integer)):
            return self._run._row_of(self._array, int(first), rest)
        return self._run._rows_of(self._array, _numbered(first, len(self)), rest)


class Column:
    """An attribute of a run: the array of the schema that has its name; AttributeError where the run stores none."""

    def __set_name__(self, owner: type, name: str) -> None:
        array = next(array for array in SAMPLE_ARRAYS if array.name == name)
        self._name, self._since = name, array.since
        self.__doc__ = f"{array.meaning}: {array.dtype} ({', '.join(array.dims)})."

    @overload
    def __get__(self, run: None, owner: type) -> Column: ...
    @overload
    def __get__(self, run: Run, owner: type) -> RunArray: ...
    def __get__(self, run: Run | None, owner: type) -> Column | RunArray:
        if run is None:
            return self
        if self._name not in run._arrays:
            newer = f"the run is of schema {run.plan.schema_version}, which does not have it"
            reasons = {TRAINED_ON: "the checkpoint does not say it of such images", LABELS: "the run is single-label"}
            reasons[OFFSET] = "all of its logits but the bias lies in cells"
            reasons[FEATURES] = "it was explained without --features"
            why = newer if self._since > run.plan.schema_version else reasons.get(self._name, NO_MAPS)
            raise AttributeError(f"{owner.__name__} has no attribute {self._name!r}: {why}")
        return RunArray(run, run._arrays[self._name])

    def __set__(self, run: Run, value: object) -> None:
        raise AttributeError(f"{self._name} is read from the run's files")


class Run:
    """A run directory, or one of its shards, opened for reading; close it, or use it with `with`.

    A complete run is read from run.h5 and its shards; of a run that is still being written the shards that have
    landed. Files are opened read-only, with HDF5's lock where the file system has one. Before the HDF5 library sees a
    file for the first time, its SHA-256 is compared with the one that was written with it.

    It may go to other processes: a fork opens files of its own; pickled, it travels as its path, gives the same rows
    there, and proves its files again.

    Attributes:
        path: the run directory or shard.
        plan: what the run is.
        complete: whether the manifest is there; False also for a single shard, and where `open_partial` left
            files out.
        shards: those whose rows the run has, absent ones of a partial run included.
        absent: indices of the shards whose rows read as fill values; empty unless opened with `partial`.
        lost: what is wrong with each file that was left out, by `open_partial`.
        remarks: how the rows were put together, a line each; a single run needs none.
        class_names: K names.
    """

    sample_index = Column()
    sample_id = Column()
    input_sha256 = Column()
    input_bytes = Column()
    trained_on = Column()
    label = Column()
    labels = Column()
    prediction = Column()
    confidence = Column()
    logits = Column()
    cam_class = Column()
    cams = Column()
    offset = Column()
    features = Column()
    maps = Column()
    map_range = Column()
    crop_box = Column()
    image_size = Column()
    identity_residual = Column()
    status = Column()
    error = Column()

    def __init__(
        self,
        path: Path,
        plan: Plan,
        shards: Sequence[Shard],
        complete: bool,
        files: RunFiles,
        absent: frozenset[int] = frozenset(),
        lost: Sequence[str] = (),
    ) -> None:
        self.path, self.plan, self.complete = path, plan, complete
        self.shards = plan.shards if len(shards) == len(plan.shards) else tuple(shards)
        self.class_names = plan.class_names
        self.absent, self.lost = absent, tuple(lost)
        self.remarks: tuple[str, ...] = ()
        self._files = files
        self._starts = np.cumsum([0, *(s.count for s in self.shards)])
        self._arrays = {a.name: a for a in plan.arrays}
        self._rows_by_id: dict[str, int] | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"<batchcam run {shown(self.path)}: {len(self)} samples, {len(self.class_names)} classes, {self.state}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what the run is, and a line for each array."""
        return notebook.page(
            self.path, self.plan, self.state, [(a.name, a.shape, a.dtype, a.meaning) for a in self.arrays]
        )

    @property
    def opened(self) -> tuple[Any, ...]:
        """What `opening.open_again` needs for the same rows; pickled, a run travels as this."""
        shards = tuple(shard.index for shard in self.shards)
        kept = {"complete": self.complete, "absent": self.absent, "lost": self.lost}
        return source(self.path), self._files.proves, self.plan.run_id, shards, kept

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: str) -> RunArray: ...
    def __getitem__(self, key: int | str) -> Sample | RunArray:
        """Return the sample at a row, negative ones count from the end; or an array by its name, as in `meta/site`.

        Raises:
            IndexError: there is no such row.
            KeyError: there is no such array.
        """
        if isinstance(key, str):
            self._require([key])
            return RunArray(self, self._arrays[key])
        return self._sample(self._valid(key))

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(row) for row in range(len(self)))

    def sample(self, sample_id: str) -> Sample:
        """Return the sample with this id.

        Raises:
            KeyError: there is none.
        """
        return self._sample(self.row(sample_id))

    def row(self, sample_id: str) -> int:
        """Return the row of the sample with this id.

        Raises:
            KeyError: there is none.
        """
        if self._rows_by_id is None:
            present = np.flatnonzero(~self.missing)
            self._rows_by_id = dict(zip(self.sample_id[present], present.tolist(), strict=True))
        try:
            return self._rows_by_id[sample_id]
        except KeyError:
            raise KeyError(f"{self.path}: no sample {sample_id!r} among {len(self)}") from None

    def cam(self, sample: int | str, class_: int | str | None = None) -> np.ndarray:
        """Return the raw CAM of one class for one sample, float32 (h, w), in units of the logit.

        Args:
            sample: row, or sample id.
            class_: index or name of the class; default: the predicted one.

        Raises:
            KeyError: no such id or class, or the run does not store this class's map of this sample.
            IndexError: no such row.
        """
        row = self.row(sample) if isinstance(sample, str) else self._valid(sample)
        wanted = int(self.prediction[row]) if class_ is None else self.class_index(class_)
        (rank,) = stored_ranks(self.cam_class[row][None], np.array([wanted])).tolist()
        if rank < 0:
            raise KeyError(f"{self.path}: row {row} has no map of class {wanted}; the run stores '{self.plan.cams}'")
        return np.asarray(self.cams[row, rank])

    def map(self, sample: int | str) -> np.ndarray:
        """Return the upsampled map of the predicted class, as stored, (H, W).

        Raises:
            KeyError: no such id, or the run stores no maps.
            IndexError: no such row.
        """
        row = self.row(sample) if isinstance(sample, str) else self._valid(sample)
        if "maps" not in self._arrays:
            raise KeyError(f"{self.path}: {NO_MAPS}")
        return np.asarray(self.maps[row])

    def plot(
        self,
        rows: Rows | None = None,
        class_: int | str | None = None,
        data: str | None = None,
        *,
        columns: int = 4,
        palette: str = "viridis",
        cells: bool = False,
        signed: bool = False,
    ) -> Figure:
        """Return a figure of samples, each with its overlay, id, label, prediction and confidence; needs matplotlib.

        What is not said here is as for `Sample.overlay`; a sample without a map says why.

        Args:
            rows: as `RunArray` takes them, 200 at most; default: the first 12.
            columns: pictures beside each other.

        Raises:
            KeyError: no such class.
            ValueError: no rows, or too many.
            ConfigError: `data` can't be searched.
        """
        from batchcam.pictures import plots

        look = {"palette": palette, "cells": cells, "signed": signed}
        return plots.plot(self, rows, class_, data, columns, **look)

    def class_index(self, class_: int | str) -> int:
        """Return the index of a class given by index or name.

        Raises:
            KeyError: there is none.
        """
        if isinstance(class_, str) and class_ in self.class_names:
            return self.class_names.index(class_)
        if not isinstance(class_, str) and 0 <= operator.index(class_) < len(self.class_names):
            return operator.index(class_)
        raise KeyError(f"{self.path}: no class {class_!r}")

    def blocks(
        self, names: Sequence[str], rows: Rows | None = None, budget: int = READ_BYTES, held: int = 0
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield (rows, arrays by name) in blocks, so that a run of any size passes through little memory.

        A block ends where its shard does, unless run.h5 has all of these arrays.

        Args:
            names: arrays of the schema, at least one; texts come as objects of type str.
            rows: as `RunArray` takes them, default: all. Blocks keep their order; ascending rows open each shard once.
            budget: bytes of memory for one block.
            held: bytes that the caller makes of each row of a block and holds at once, part of the budget.

        Raises:
            KeyError: there is no such array.
            IndexError: there is no such row.
            RunError: a file can't be read.
        """
        self._require(names)
        copied = self.complete and not self.absent and all(map(self._is_copied, names))
        for part in self._parts(rows, copied):
            shard = None if copied else int(self._owners(part[0]))
            start = 0 if shard is None else int(self._starts[shard])
            inside = range(part.start - start, part.stop - start) if isinstance(part, range) else part - start
            for own, block in blocks(functools.partial(self._dataset, shard), names, inside, budget, held):
                yield own + start, {name: _plain(values) for name, values in block.items()}

    def _parts(self, rows: Rows | None, whole: bool) -> Iterator[np.ndarray | range]:
        """Yield the rows wanted, all if None, in their order: shard by shard, or as a whole."""
        if rows is None:
            ends = [0, len(self)] if whole else self._starts.tolist()
            yield from (range(first, stop) for first, stop in itertools.pairwise(ends))
        else:
            wanted = _numbered(rows, len(self))
            yield from split(wanted, np.zeros_like(wanted) if whole else self._owners(wanted))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that it is read from: itself, or those of a series."""
        return (self,)

    @property
    def networks(self) -> frozenset[tuple[str, str]]:
        """The networks that its rows are of: the checkpoint's digest, and which weights of it."""
        return frozenset((run.plan.checkpoint_sha256, run.plan.weights_key) for run in self.runs)

    @property
    def shard_counts(self) -> tuple[int, int]:
        """How many shards can be read, and how many were planned."""
        return len(self.shards) - len(self.absent), len(self.plan.shards)

    @property
    def state(self) -> str:
        """`complete`, or how many of its shards can be read."""
        there, planned = self.shard_counts
        return "complete" if self.complete and there == planned else f"{there} of {planned} shards"

    @property
    def arrays(self) -> list[RunArray]:
        """The arrays that the run stores, which are its attributes too, in the schema's order."""
        return [RunArray(self, array) for array in self._arrays.values()]

    @property
    def scalar_columns(self) -> list[str]:
        """Names of the arrays that tables have as columns."""
        more = (TRAINED_ON, *(meta_array(name).name for name in self.plan.meta))
        own = [name for name in SCALAR_COLUMNS if not (self.plan.is_multi_label and name == "label")]
        return [*own, *(name for name in more if name in self._arrays)]

    @property
    def missing(self) -> np.ndarray:
        """Rows of absent shards, bool (n,): their values are fill values. All False unless opened with `partial`."""
        absent = [shard.index in self.absent for shard in self.shards]
        return np.repeat(absent, np.diff(self._starts))

    def file(self, shard: Shard | None) -> h5py.File:
        """Return one of its shards, or run.h5 (None), open until others need its place.

        Raises:
            RunError: it can't be read, is not this run's, or not built as the schema says.
        """
        return self._files.master() if shard is None else self._files.shard(shard)

    @property
    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight (K, C) and bias (K,) of the linear map from pooled activations to logits; NaN for gradient methods."""
        file = self.file(self.shards[self._readable()[0]])
        return file["classifier/weight"][...], file["classifier/bias"][...]

    def class_columns(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return what each class has of (n, K) values as tables have it: a column `<name>.<class>`."""
        return {f"{name}.{class_name}": values[:, k] for k, class_name in enumerate(self.class_names)}

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the columns with one value a sample as a DataFrame, indexed by `sample_index`; needs pandas.

        Of a multi-label run the labels of each class are the column `label.<class>`.
        """
        import pandas

        columns = {name: self[name][:] for name in self.scalar_columns}
        columns |= self.class_columns("label", self.labels[:]) if self.plan.is_multi_label else {}
        names = np.array([*self.class_names, None], dtype=object)
        for name in [name for name in ("label", "prediction") if name in columns]:
            columns[f"{name}_name"] = names[columns[name]]
        return pandas.DataFrame(columns).set_index("sample_index")

    def to_xarray(self) -> xarray.Dataset:
        """Return all arrays as an xarray Dataset with named dimensions, read at once; xarray is needed."""
        import xarray

        variables = {a.name: (a.dims, self[a.name][:]) for a in self._arrays.values()}
        weight, bias = self.classifier
        variables["classifier_weight"] = (("class_name", "channel"), weight)
        variables["classifier_bias"] = (("class_name",), bias)
        if self.plan.is_multi_label:
            variables[THRESHOLD.name] = (THRESHOLD.dims, np.array(self.plan.thresholds, np.float32))
        return xarray.Dataset(variables, {"class_name": list(self.class_names)}, {"run_id": self.plan.run_id})

    def _sample(self, row: int) -> Sample:
        at = {name: self._row_of(array, row, ()) for name, array in self._arrays.items()}
        return Sample(
            row=row,
            index=int(at["sample_index"]),
            id=at["sample_id"],
            label=self._class_name(row, "label", int(at["label"])),
            labels=at.get(LABELS),
            prediction=self._class_name(row, "prediction", int(at["prediction"])),
            confidence=float(at["confidence"]),
            logits=at["logits"],
            cam_class=at["cam_class"],
            cams=at["cams"],
            map=at.get("maps"),
            crop_box=tuple(at["crop_box"].tolist()),
            image_size=tuple(at["image_size"].tolist()),
            input_sha256=at["input_sha256"].tobytes().hex(),
            input_bytes=int(at["input_bytes"]) if "input_bytes" in at else None,
            trained_on=bool(at[TRAINED_ON]) if at.get(TRAINED_ON, -1) >= 0 else None,
            identity_residual=float(at["identity_residual"]),
            offset=at.get(OFFSET),
            features=at.get(FEATURES),
            status=Status(int(at["status"])),
            error=at["error"],
            meta={name: at[meta_array(name).name] for name in self.plan.meta},
            run=self,
        )

    def _require(self, names: Sequence[str]) -> None:
        """Raise KeyError unless there are arrays of these names."""
        for name in names:
            if name not in self._arrays:
                raise KeyError(f"{self.path}: no array {name!r}; there are {', '.join(self._arrays)}")

    def _class_name(self, row: int, array: str, number: int) -> str | None:
        if not -1 <= number < len(self.class_names):
            raise RunError(f"{self.path}: row {row}: {array} {number} is no class; see batchcam verify")
        return None if number == -1 else self.class_names[number]

    def _wanted(self, names: Sequence[str], rows: Rows | None) -> np.ndarray:
        """Return the rows that are asked for, int64 (m,)."""
        self._require(names)
        return _numbered(slice(None) if rows is None else rows, len(self))

    def _valid(self, row: int) -> int:
        """Return `row` counted from the start."""
        number = operator.index(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.path}: row {number} of {len(self)}")
        return number % len(self)

    def _row_of(self, array: Array, row: int, rest: tuple[Any, ...]) -> Any:
        row = self._valid(row)
        shard = int(self._owners(row))
        value = read(self._dataset(shard, array.name), (row - int(self._starts[shard]), *rest))
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value

    def _rows_of(self, array: Array, rows: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        """Return the rows in the order asked for; text as str."""
        order, done = np.argsort(rows, kind="stable"), 0
        values = np.empty(array_shape(array, self.plan, 0), object if array.dtype == "text" else array.dtype)
        values = values[(slice(None), *rest)]
        for some, block in self.blocks((array.name,), rows[order]):
            part = block[array.name][(slice(None), *rest)]
            if not done:  # a file proves that rows are as large as the plan says
                values = np.empty((len(rows), *part.shape[1:]), part.dtype)
            values[order[done : done + len(some)]] = part
            done += len(some)
        return values

    def _owners(self, rows: Any) -> Any:
        """Return the place in `shards` of each row's shard."""
        return np.searchsorted(self._starts, rows, "right") - 1

    def _is_copied(self, name: str) -> bool:
        """Return whether run.h5 holds the array itself: HDF5 would follow a reference to whatever file it names."""
        if stays_in_shards(name, len(self.plan.shards)):
            return False
        return not structure.lies_in_shards(self._files.master(), self._arrays[name], self.plan)

    def _dataset(self, shard: int | None, name: str) -> h5py.Dataset:
        """Return an array of a shard, or of run.h5 (None); an absent shard's has the fill value everywhere."""
        if shard is None:
            return self._files.master()[name]
        if self.shards[shard].index not in self.absent:
            return self._files.shard(self.shards[shard])[name]
        array = self._arrays[name]
        fill = np.array(array.fill, "S" if array.dtype == "text" else array.dtype)
        return np.broadcast_to(fill, array_shape(array, self.plan, self.shards[shard].count))

    def _readable(self) -> list[int]:
        return [place for place, shard in enumerate(self.shards) if shard.index not in self.absent]


def _numbered(rows: Rows, count: int) -> np.ndarray:
    """Return which of `count` rows are meant, int64 (m,), as numpy understands an index."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count))
    if isinstance(rows, np.ndarray) and rows.dtype == np.int64 and rows.ndim == 1:
        known = rows.min(initial=0) >= 0 and rows.max(initial=-1) < count
        return rows if known else np.arange(count)[rows]
    return np.atleast_1d(np.arange(count)[rows])


def _plain(values: np.ndarray) -> np.ndarray:
    """Return stored text as objects of type str, and anything else as it is."""
    return np.array(decode(values), dtype=object) if values.dtype.kind == "S" else values
