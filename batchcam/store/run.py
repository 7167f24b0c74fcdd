"""A run, opened for reading: lazy arrays over all shards, samples by position or id, tables for pandas and xarray."""

from __future__ import annotations

import collections
import dataclasses
import json
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.rules import Status
from batchcam.store import landing, structure
from batchcam.store.layout import array_shape
from batchcam.store.manifest import Manifest, read_manifest
from batchcam.store.plan import Plan, Shard, not_a_run, read_plan
from batchcam.store.reader import decode, open_hdf5, open_structured, require_digest
from batchcam.store.schema import MASTER_FILE, SHARD_FOLDER, VIRTUAL_IN_MASTER, Array, sample_arrays
from batchcam.store.shard import landed_shards

if TYPE_CHECKING:
    import pandas
    import xarray

OPEN_FILES = 64
"""Shards kept open at once; far below any limit of the system, however many shards a run has."""

ROWS_PER_BYTE = 64
"""A run that claims more samples for its bytes on disk is refused; honest rows take more than 100 bytes each."""

DENSE = 4
"""Rows are read in one slice when at least every so-manieth is wanted."""

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

Proof = Callable[[Path], str | None]
"""The SHA-256 that a file of the run must have, hex; None where nothing is known to prove it by."""

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
    landed. Files are opened read-only and never locked, unless HDF5_USE_FILE_LOCKING says otherwise. Before the HDF5
    library sees a file for the first time, its SHA-256 is compared with the one that was written with it.

    Attributes:
        path: the run directory or shard.
        plan: what the run is.
        complete: whether the manifest is there; False also for a single shard.
        shards: those whose rows the run has, absent ones of a partial run included.
        absent: indices of the shards whose rows read as fill values; empty unless opened with `partial`.
        class_names: K names.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        shards: Sequence[Shard],
        complete: bool,
        folder: Path | None,
        proof: Proof | None = None,
        absent: frozenset[int] = frozenset(),
    ) -> None:
        self.path, self.plan, self.shards, self.complete = path, plan, tuple(shards), complete
        self.class_names = plan.class_names
        self.absent = absent
        self._folder, self._proof = folder, proof
        self._proven: set[Path] = set()
        self._starts = np.cumsum([0, *(s.count for s in self.shards)])
        self._files: collections.OrderedDict[Path, h5py.File] = collections.OrderedDict()
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
        while self._files:
            self._files.popitem()[1].close()

    def __getattr__(self, name: str) -> RunArray:
        """Return an array of the schema, such as `run.cams` or `run.prediction`."""
        array = self.__dict__.get("_arrays", {}).get(name)
        if array is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return RunArray(self, array)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._arrays]

    def __getitem__(self, row: int) -> Sample:
        """Return the sample at `row`; negative rows count from the end."""
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
            KeyError: no such sample or class, or the run does not store this class's map of this sample.
        """
        row = self.row(sample) if isinstance(sample, str) else self._valid(sample)
        wanted = int(self.prediction[row]) if class_ is None else self.class_index(class_)
        (ranks,) = np.nonzero(self.cam_class[row] == wanted)
        if wanted < 0 or not len(ranks):
            raise KeyError(f"{self.path}: row {row} has no map of class {wanted}; the run stores {self.plan.cams!r}")
        cam: np.ndarray = self.cams[row, int(ranks[0])]
        return cam

    def map(self, sample: int | str) -> np.ndarray:
        """Return the upsampled map of the predicted class, as stored, (H, W).

        Raises:
            KeyError: no such sample, or the run stores no maps.
        """
        row = self.row(sample) if isinstance(sample, str) else self._valid(sample)
        if "maps" not in self._arrays:
            raise KeyError(f"{self.path}: stores no maps; upsample run.cam() instead")
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
        """
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
        """Weight (K, C) and bias (K,) of the last linear layer."""
        file = self._shard_file(self._readable()[0])
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
        value = _read(self._dataset(array, shard), (row - int(self._starts[shard]), *rest))
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value

    def _rows_of(self, array: Array, rows: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        """Return the rows in the order asked for, read shard by shard; text as str."""
        if self.complete and not self.absent and self._is_copied(array):
            values = _read_rows(self._file(self.path / MASTER_FILE, None)[array.name], rows)
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
        return not structure.lies_in_shards(self._file(self.path / MASTER_FILE, None), array)

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
            values[places] = _read_rows(self._dataset(array, shard), rows[places] - self._starts[shard])
        return values

    def _readable(self) -> list[int]:
        return [place for place, shard in enumerate(self.shards) if shard.index not in self.absent]

    def _dataset(self, array: Array, shard: int) -> h5py.Dataset:
        return self._shard_file(shard)[array.name]

    def _shard_file(self, shard: int) -> h5py.File:
        each = self.shards[shard]
        return self._file(self.path if self._folder is None else self._folder / each.file, each)

    def _file(self, path: Path, shard: Shard | None) -> h5py.File:
        """Return the open file of `shard`, or run.h5 (None); the least recently used one is closed when too many are.

        Raises:
            RunError: it can't be read, is not this run's, or not built as the schema says.
        """
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if self._folder is not None and not landing.is_own_file(self.path, path.relative_to(self.path).as_posix()):
            raise RunError(f"{path}: gone, or not a file of its own; see batchcam verify")
        self._prove(path)
        self._files[path] = file = open_structured(path, self.plan, shard)
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file

    def _prove(self, path: Path) -> None:
        """Compare the file's SHA-256 with the one that was written with it, the first time it is opened.

        Raises:
            RunError: they differ, or the file can't be read.
        """
        if path in self._proven or self._proof is None or (digest := self._proof(path)) is None:
            return
        require_digest(path, digest)
        self._proven.add(path)


def _read_rows(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Return rows of an HDF5 dataset in the order asked for, which HDF5 itself can't."""
    if not len(rows):
        return np.empty((0, *dataset.shape[1:]), dataset.dtype)
    wanted, back = np.unique(rows, return_inverse=True)
    first, stop = int(wanted[0]), int(wanted[-1]) + 1
    if stop - first <= DENSE * len(wanted):  # a slice reads quicker than a list of rows
        block: np.ndarray = _read(dataset, slice(first, stop))[wanted - first][back]
        return block
    scattered: np.ndarray = _read(dataset, wanted)[back]
    return scattered


def _read(dataset: h5py.Dataset, selection: Any) -> Any:
    try:
        return dataset[selection]
    except (OSError, RuntimeError, MemoryError) as error:
        name = dataset.name.lstrip("/")
        raise RunError(f"{dataset.file.filename}: {name}: cannot read: {error}; see batchcam verify") from error


def open_run(path: str | os.PathLike[str], *, prove: bool = True, partial: bool = False) -> Run:
    """Open a run directory, or a single shard, for reading.

    Args:
        path: run directory, complete or still being written, or a file `shard-NNNNN.h5`.
        prove: compare the SHA-256 of each file with the recorded one before it is read for the first time: about
            20 ms for a shard of 30 MiB. Without, a shard that was edited with an HDF5 library is read as it is.
        partial: give every sample of the plan its row, whatever is left of the run: `Run.missing` tells which rows
            hold fill values because their shard is absent or, if `prove`, damaged. All shards are proven at once.

    Raises:
        RunError: it is neither, its plan or manifest is damaged, a shard is gone from a complete run (unless
            `partial`), or nothing has landed yet. Reading raises it for a file that is damaged or another run's.

    Example:
        >>> with batchcam.open_run("runs/monday") as run:
        ...     print(run[0].prediction, run.cam(0, "cat").max())
    """
    path = Path(path)
    if path.is_file():
        return _open_shard(path, landing.read_digest if prove else None)
    try:
        plan = read_plan(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_a_run(path) from error
    try:
        manifest = read_manifest(path, plan)
    except FileNotFoundError:
        manifest = None
    landed = landed_shards(path, plan)
    gone = frozenset(s.index for s in plan.shards if s.index not in landed)
    if manifest and gone and not partial:
        raise RunError(f"{path}: {len(gone)} shards are gone from a complete run; see batchcam verify")
    if len(gone) == len(plan.shards):
        raise RunError(f"{path}: no shard has landed yet; run explain")
    proof = (_stated_by(manifest, path) if manifest else landing.read_digest) if prove else None
    _require_plausible(path, plan.sample_count, _size(path, plan, landed))
    if partial:
        return _open_partial(Run(path, plan, plan.shards, bool(manifest), path / SHARD_FOLDER, proof, gone))
    shards = [s for s in plan.shards if s.index in landed]
    return Run(path, plan, shards, bool(manifest), path / SHARD_FOLDER, proof)


def _size(run: Path, plan: Plan, landed: set[int]) -> int:
    """Return the bytes of run.h5, or of the landed shards while there is none."""
    names = [MASTER_FILE, *(f"{SHARD_FOLDER}/{s.file}" for s in plan.shards if s.index in landed)]
    sizes = ((run / name).stat().st_size for name in names if landing.is_own_file(run, name))
    return next(sizes, 0) if landing.is_own_file(run, MASTER_FILE) else sum(sizes)


def _stated_by(manifest: Manifest, run: Path) -> Proof:
    digests = {run / SHARD_FOLDER / record.file: record.sha256 for record in manifest.shards}
    digests[run / MASTER_FILE] = manifest.master.sha256
    return digests.get


def _open_partial(run: Run) -> Run:
    """Return `run` with the shards that can't be opened among the absent ones.

    Raises:
        RunError: none can be opened.
    """
    damaged: dict[int, RunError] = {}
    for place in run._readable():
        try:
            run._shard_file(place)
        except RunError as error:
            damaged[run.shards[place].index] = error
    run.absent |= damaged.keys()
    if len(run.absent) == len(run.shards):
        run.close()
        raise next(iter(damaged.values()))
    return run


def _open_shard(path: Path, proof: Proof | None) -> Run:
    digest = proof(path) if proof else None
    if digest:
        require_digest(path, digest)
    try:
        with open_hdf5(path) as file:
            content = json.loads(structure.config_text(file))
            names = decode(structure.class_names(file))
            _, first, count = structure.identity(file)
        plan = Plan.from_dict({**content, "class_names": names})
        if not isinstance(first, int) or not isinstance(count, int) or not 0 <= first < first + count:
            raise ValueError("its samples are not told")
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise RunError(f"{path}: not a shard of batchcam: {error}") from error
    _require_plausible(path, count, path.stat().st_size)
    return Run(path, plan, [Shard(first // plan.shard_size, first, count)], False, None)


def _require_plausible(path: Path, rows: int, size: int) -> None:
    """Raise RunError for more rows than `size` bytes could hold even if most shards are gone: rows take memory."""
    if rows > ROWS_PER_BYTE * size:
        raise RunError(f"{path}: tells of {rows} samples, with {size} bytes to show for them; see batchcam verify")
