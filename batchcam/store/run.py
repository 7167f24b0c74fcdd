"""A run, opened for reading: lazy arrays over all shards, samples by position or id, tables for pandas and xarray."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.rules import Status
from batchcam.store import structure
from batchcam.store.files import RunFiles, read, read_rows
from batchcam.store.layout import array_shape
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import decode
from batchcam.store.schema import VIRTUAL_IN_MASTER, Array, sample_arrays
from batchcam.store.stored_cams import stored_ranks

if TYPE_CHECKING:
    import pandas
    import xarray

SCALAR_COLUMNS = (
    "sample_index",
    "sample_id",
    "label",
    "prediction",
    "confidence",
    "identity_residual",
    "status",
    "error",
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
        prediction: name of the predicted class, None where there is none.
        confidence: softmax of the logits at the predicted class.
        logits: float32 (K,).
        cam_class: class index of each stored map, int64 (M,).
        cams: raw CAMs, float32 (M, h, w), in units of the logit.
        map: upsampled map of the predicted class, (H, W); None where the run stores none.
        crop_box: x0, y0, x1, y1 of the network's view in pixels of the upright original.
        image_size: (height, width) of the upright original.
        input_sha256: digest of the stored image, hex.
        identity_residual: largest abs(mean of CAM + bias - logit).
        status: flags.
        error: why the sample is unreadable, "" if it is not.
    """

    row: int
    index: int
    id: str
    label: str | None
    prediction: str | None
    confidence: float
    logits: np.ndarray
    cam_class: np.ndarray
    cams: np.ndarray
    map: np.ndarray | None
    crop_box: tuple[float, float, float, float]
    image_size: tuple[int, int]
    input_sha256: str
    identity_residual: float
    status: Status
    error: str


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
        return self._run._rows_of(self._array, np.atleast_1d(np.arange(len(self))[first]), rest)


class Run:
    """A run directory, or one of its shards, opened for reading; close it, or use it with `with`.

    A complete run is read from run.h5 and its shards; of a run that is still being written the shards that have
    landed. Files are opened read-only, with HDF5's lock where the file system has one. Before the HDF5 library sees a
    file for the first time, its SHA-256 is compared with the one that was written with it.

    Attributes:
        path: the run directory or shard.
        plan: what the run is.
        complete: whether the manifest is there; False also for a single shard, and where `open_partial` left
            files out.
        shards: those whose rows the run has, absent ones of a partial run included.
        absent: indices of the shards whose rows read as fill values; empty unless opened with `partial`.
        lost: what is wrong with each file that was left out, by `open_partial`.
        class_names: K names.
    """

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
        self.path, self.plan, self.shards, self.complete = path, plan, tuple(shards), complete
        self.class_names = plan.class_names
        self.absent, self.lost = absent, tuple(lost)
        self._files = files
        self._starts = np.cumsum([0, *(s.count for s in self.shards)])
        self._arrays = {a.name: a for a in sample_arrays(plan.maps)}
        self._rows_by_id: dict[str, int] | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        readable = len(self.shards) - len(self.absent)
        state = "complete" if self.complete and not self.absent else f"{readable} of {len(self.plan.shards)} shards"
        return f"<batchcam run {self.path}: {len(self)} samples, {len(self.class_names)} classes, {state}>"

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    def __getattr__(self, name: str) -> RunArray:
        """Return an array of the schema, such as `run.cams` or `run.prediction`."""
        array = self.__dict__.get("_arrays", {}).get(name)
        if array is None:
            why = f": {NO_MAPS}" if name in ("maps", "map_range") else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{why}")
        return RunArray(self, array)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._arrays]

    def __getitem__(self, row: int) -> Sample:
        """Return the sample at `row`; negative rows count from the end.

        Raises:
            IndexError: there is no such row.
        """
        return self._sample(self._valid(row))

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
        cam: np.ndarray = self.cams[row, rank]
        return cam

    def map(self, sample: int | str) -> np.ndarray:
        """Return the upsampled map of the predicted class, as stored, (H, W).

        Raises:
            KeyError: no such id, or the run stores no maps.
            IndexError: no such row.
        """
        row = self.row(sample) if isinstance(sample, str) else self._valid(sample)
        if "maps" not in self._arrays:
            raise KeyError(f"{self.path}: {NO_MAPS}")
        upsampled: np.ndarray = self.maps[row]
        return upsampled

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

    def chunks(self, *names: str, rows: int = 1024, mask: np.ndarray | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Yield arrays in chunks of at most `rows` rows, so that a run of any size passes through little memory.

        Args:
            names: arrays of the schema.
            rows: rows of a chunk.
            mask: bool (n,), which rows; default: all.

        Raises:
            KeyError: there is no such array.
        """
        for name in names:
            if name not in self._arrays:
                raise KeyError(f"{self.path}: no array {name!r}; there are {', '.join(self._arrays)}")
        chosen = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
        for start in range(0, len(chosen), rows):
            part = chosen[start : start + rows]
            yield {name: self._rows_of(self._arrays[name], part, ()) for name in names}

    @property
    def missing(self) -> np.ndarray:
        """Rows of absent shards, bool (n,): their values are fill values. All False unless opened with `partial`."""
        absent = [shard.index in self.absent for shard in self.shards]
        return np.repeat(absent, np.diff(self._starts))

    @property
    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight (K, C) and bias (K,) of the linear map from pooled activations to logits; NaN for gradient methods."""
        file = self._files.shard(self.shards[self._readable()[0]])
        return file["classifier/weight"][...], file["classifier/bias"][...]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the columns with one value a sample as a DataFrame, indexed by `sample_index`; needs pandas."""
        import pandas

        columns = {name: getattr(self, name)[:] for name in SCALAR_COLUMNS}
        names = np.array([*self.class_names, None], dtype=object)
        for name in ("label", "prediction"):
            columns[f"{name}_name"] = names[columns[name]]
        return pandas.DataFrame(columns).set_index("sample_index")

    def to_xarray(self) -> xarray.Dataset:
        """Return all arrays as an xarray Dataset with named dimensions, read at once; xarray is needed."""
        import xarray

        variables = {a.name: (a.dims, getattr(self, a.name)[:]) for a in self._arrays.values()}
        weight, bias = self.classifier
        variables["classifier_weight"] = (("class_name", "channel"), weight)
        variables["classifier_bias"] = (("class_name",), bias)
        return xarray.Dataset(variables, {"class_name": list(self.class_names)}, {"run_id": self.plan.run_id})

    def _sample(self, row: int) -> Sample:
        at = {name: self._row_of(array, row, ()) for name, array in self._arrays.items()}
        return Sample(
            row=row,
            index=int(at["sample_index"]),
            id=at["sample_id"],
            label=self._class_name(row, "label", int(at["label"])),
            prediction=self._class_name(row, "prediction", int(at["prediction"])),
            confidence=float(at["confidence"]),
            logits=at["logits"],
            cam_class=at["cam_class"],
            cams=at["cams"],
            map=at.get("maps"),
            crop_box=tuple(at["crop_box"].tolist()),
            image_size=tuple(at["image_size"].tolist()),
            input_sha256=at["input_sha256"].tobytes().hex(),
            identity_residual=float(at["identity_residual"]),
            status=Status(int(at["status"])),
            error=at["error"],
        )

    def _class_name(self, row: int, array: str, number: int) -> str | None:
        if not -1 <= number < len(self.class_names):
            raise RunError(f"{self.path}: row {row}: {array} {number} is no class; see batchcam verify")
        return None if number == -1 else self.class_names[number]

    def _valid(self, row: int) -> int:
        """Return `row` counted from the start.

        Raises:
            IndexError: there is no such row.
        """
        number = operator.index(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.path}: row {number} of {len(self)}")
        return number % len(self)

    def _row_of(self, array: Array, row: int, rest: tuple[Any, ...]) -> Any:
        row = self._valid(row)
        shard = int(np.searchsorted(self._starts, row, "right")) - 1
        if self.shards[shard].index in self.absent:
            return self._rows_of(array, np.array([row]), rest)[0]
        value = read(self._dataset(array, shard), (row - int(self._starts[shard]), *rest))
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value

    def _rows_of(self, array: Array, rows: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        """Return the rows in the order asked for, read shard by shard; text as str."""
        if self.complete and not self.absent and self._is_copied(array):
            values = read_rows(self._files.master()[array.name], rows)
        else:
            values = self._gather(array, rows)
        if array.dtype == "text":
            return np.array(decode(values), dtype=object)
        chosen: np.ndarray = values[(slice(None), *rest)] if rest else values
        return chosen

    def _is_copied(self, array: Array) -> bool:
        """Return whether run.h5 holds `array` itself: HDF5 would follow a reference to whatever file it names."""
        if array.name in VIRTUAL_IN_MASTER:
            return False
        return not structure.lies_in_shards(self._files.master(), array)

    def _gather(self, array: Array, rows: np.ndarray) -> np.ndarray:
        """Return the rows from the shards; those of absent ones hold the array's fill value."""
        owners = np.searchsorted(self._starts, rows, "right") - 1
        wanted = [s for s in np.unique(owners).tolist() if self.shards[s].index not in self.absent]
        dtype: str | np.dtype[Any] = array.dtype
        if array.dtype == "text":
            dtype = f"S{max((self._dataset(array, s).dtype.itemsize for s in wanted), default=1)}"
        elif wanted:
            self._dataset(array, wanted[0])  # a shard proves that rows are as large as the plan says
        values = np.full((len(rows), *array_shape(array, self.plan, 1)[1:]), array.fill, dtype)
        for shard in wanted:
            places = np.flatnonzero(owners == shard)
            values[places] = read_rows(self._dataset(array, shard), rows[places] - self._starts[shard])
        return values

    def _readable(self) -> list[int]:
        return [place for place, shard in enumerate(self.shards) if shard.index not in self.absent]

    def _dataset(self, array: Array, shard: int) -> h5py.Dataset:
        return self._files.shard(self.shards[shard])[array.name]
