"""A dataset as it was listed when a run was planned, read from where its samples lie now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batchcam.data.samples import (
    GONE,
    UNKNOWN_SIZE,
    FileSource,
    Numbers,
    PackedText,
    Source,
    StoredSample,
    Texts,
    require_planned_size,
)
from batchcam.errors import DatasetError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.tables import NOTHING_SAID, Reading


class Slices(Protocol):
    """A list of samples that is read so many rows at a time, as arrays by name, texts encoded."""

    @property
    def slice_rows(self) -> int: ...
    def __len__(self) -> int: ...
    def rows(self, number: int, /) -> Mapping[str, NDArray[Any]]: ...


class _Sliced:
    """A column of a list; of the slices of which it reads rows few stay in memory."""

    def __init__(self, slices: Slices, name: str) -> None:
        self._slices, self._name = slices, name

    def __len__(self) -> int:
        return len(self._slices)

    def _at(self, index: int) -> Any:
        number, row = divmod(range(len(self))[index], self._slices.slice_rows)
        return self._slices.rows(number)[self._name][row]

    def _parts(self) -> Iterator[NDArray[Any]]:
        return (self._slices.rows(number)[self._name] for number in range(-(-len(self) // self._slices.slice_rows)))


class SlicedNumbers(_Sliced):
    """Numbers of a list."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return one number, or those at several rows as an array."""
        if isinstance(rows, (int, np.integer)):
            return self._at(int(rows))
        wanted = np.asarray(rows)
        found, slices = np.empty(0, np.int64), wanted // self._slices.slice_rows
        for number in np.unique(slices).tolist():
            here, part = slices == number, self._slices.rows(number)[self._name]
            if not len(found):
                found = np.empty((len(wanted), *part.shape[1:]), part.dtype)
            found[here] = part[wanted[here] - number * self._slices.slice_rows]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(list(self._parts()))


class SlicedText(_Sliced, Texts):
    """Texts of a list; `decoded` gives the bytes of one that is stored escaped."""

    def __init__(self, slices: Slices, name: str, decoded: Callable[[bytes], bytes] = bytes) -> None:
        super().__init__(slices, name)
        self._decoded = decoded

    def raw(self, index: int) -> bytes:
        """Return the bytes of one text."""
        return self._decoded(self._at(index))

    def raws(self) -> Iterator[bytes]:
        """Yield the bytes of each text."""
        return (self._decoded(text) for part in self._parts() for text in part.tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """The samples of a dataset as they were listed once.

    Attributes:
        sample_ids: n unique texts.
        labels: as the classes of the model, -1 where not known, int64 (n,).
        sizes: bytes of each stored image, -1 where not known, int64 (n,).
        paths: where the files lie below the dataset's folder; None where there are none.
        class_names: of the model.
        label_kind: what labels that are whole numbers were read as, names or indices; None: they are none.
        left_out: how many samples the dataset had besides, which were none of the listing.
        meta: as `Source.meta`.
        manifest_sha256: as `Source.manifest_sha256`.
        findings: of a multi-label run as `Findings.values`, else None.
        reading: how the manifest was meant.
    """

    sample_ids: Texts
    labels: Numbers
    sizes: Numbers
    paths: Texts | None
    class_names: tuple[str, ...] = ()
    label_kind: str | None = None
    left_out: int = 0
    meta: Mapping[str, Texts] = dataclasses.field(default_factory=dict)
    manifest_sha256: str = ""
    findings: Numbers | None = None
    reading: Reading = NOTHING_SAID

    def whole(self) -> Listing:
        """Return the same, all of it in memory."""
        return dataclasses.replace(
            self,
            sample_ids=PackedText(self.sample_ids.raws()),
            labels=np.asarray(self.labels),
            sizes=np.asarray(self.sizes),
            paths=None if self.paths is None else PackedText(self.paths.raws()),
            meta={name: PackedText(texts.raws()) for name, texts in self.meta.items()},
            findings=None if self.findings is None else np.asarray(self.findings),
        )


class PlannedSource(Source):
    """The samples of a listing that are no files: each is read wherever the dataset has it now."""

    def __init__(self, listing: Listing, now: Source, positions: NDArray[np.int64]) -> None:
        """Wrap `now`, which has the samples of `listing` at `positions`, -1 where it does not."""
        super().__init__(now.spec, listing.sample_ids, listing.labels, listing.sizes, now.class_names, now.notes)
        self.code, self.digests_of, self.meta = now.code, now.digests_of, listing.meta
        self._now, self._positions = now, positions

    def read(self, index: int) -> StoredSample:
        """Read one sample, if it is there as it was planned."""
        position = int(self._positions[range(len(self))[index]])
        if position < 0:
            raise UnreadableImageError(GONE)
        require_planned_size(int(self._now.sizes[position]), int(self.sizes[index]))
        return self._now.read(position)


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """The samples of a listing, and where the dataset has them now.

    Attributes:
        now: the dataset as it is listed now; None where it was not.
        positions: of the samples there, -1 where they are gone, int64 (n,).
        listing: all of it; None where the dataset was not listed, or there is none.
    """

    source: Source
    now: Source | None = None
    positions: NDArray[np.int64] | None = None
    listing: Listing | None = None


def planned(listing: Listing, now: Source) -> Planned:
    """Return the samples of a listing out of the dataset as it is listed now.

    Raises:
        DatasetError: it has none of them as they were planned; or fewer than planned, which have no ids of their own.
    """
    listing = listing.whole()
    positions = _find(listing, now)
    if not isinstance(now, FileSource):
        return Planned(PlannedSource(listing, now, positions), now, positions, listing)
    return Planned(planned_files(now.spec, now.folder, listing, now), now, positions, listing)


def part(now: Source, labels: Numbers, rows: NDArray[np.int64]) -> Source:
    """Return some of the samples of a dataset.

    Args:
        labels: of all its samples, as the classes of the model, int64 (n,).
        rows: positions of the samples to keep, int64 (m,).
    """
    listing = Listing(
        PackedText(now.sample_ids[row].encode() for row in rows.tolist()),
        labels[rows],
        now.sizes[rows],
        None if now.paths is None else _at(now.paths, rows),
        meta={name: _at(texts, rows) for name, texts in now.meta.items()},
        manifest_sha256=now.manifest_sha256,
    )
    if isinstance(now, FileSource):
        return planned_files(now.spec, now.folder, listing)
    return PlannedSource(listing, now, rows)


def _at(texts: Texts, rows: NDArray[np.int64]) -> PackedText:
    return PackedText(map(texts.raw, rows.tolist()))


def planned_files(spec: str, folder: str, listing: Listing, now: FileSource | None = None) -> FileSource:
    """Return the files of a listing, each where the dataset has it now, or else where it was planned.

    Args:
        now: the dataset as it is listed now, None where it was not.
    """
    paths = listing.paths or listing.sample_ids
    if now is not None and now.sample_ids is not now.paths:  # named by ids, they may have moved
        found = {sample_id: now.paths.raw(position) for position, sample_id in enumerate(now.sample_ids)}
        paths = PackedText(found.get(each, paths.raw(i)) for i, each in enumerate(listing.sample_ids))
    notes = now.notes if now is not None else ()
    ids = listing.sample_ids
    source = FileSource(spec, folder, paths, listing.labels, listing.sizes, notes=notes, sample_ids=ids)
    source.meta, source.manifest_sha256 = listing.meta, listing.manifest_sha256
    return source


@dataclasses.dataclass(frozen=True, eq=False)
class Since:
    """What has become of a listing's samples, bool (n,) each.

    Attributes:
        came: how many samples the dataset has that it had not when it was listed.
        gone: those that the dataset has no more.
        changed: those of another size.
        relabelled: those of another label.
        redescribed: those of which a manifest says other things besides.
        called: what a sample of the dataset is called.
        uncompared: why labels could not be compared.
    """

    came: int
    gone: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    relabelled: NDArray[np.bool_]
    redescribed: NDArray[np.bool_]
    called: str
    uncompared: str = ""

    def relabelled_by(self, listing: Listing, positions: NDArray[np.int64], labels: NDArray[Any]) -> Since:
        """Return the same with the labels compared.

        Args:
            positions: as for `since`.
            labels: of the dataset as it is now, as the listing has them: one class each, or of each class.
        """
        then = np.asarray(listing.labels if listing.findings is None else listing.findings)
        there = (labels[positions] != then).reshape(len(positions), -1).any(1)
        return dataclasses.replace(self, relabelled=(positions >= 0) & there)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know of it, a line each."""
        counts = tuple(
            f"{count} {self.called if count == 1 else self.called + 's'} {told}"
            for count, told in (
                (self.came, "came since: the next run explains them"),
                (int(self.gone.sum()), "gone from the dataset since: explained where they can still be read"),
                (int(self.changed.sum()), "changed since: unreadable where not explained yet"),
                (int(self.relabelled.sum()), "labelled otherwise since: the run keeps the labels that were planned"),
                (int(self.redescribed.sum()), "with other meta columns since: the run keeps those that were planned"),
            )
            if count
        )
        return (*counts, f"labels were not compared: {self.uncompared}") if self.uncompared else counts


def _find(listing: Listing, now: Source) -> NDArray[np.int64]:
    """Return at which position the dataset has each sample of a listing now, -1 where it does not, int64 (n,)."""
    count = len(listing.sample_ids)
    if now.numbered and _prefix(now) == _prefix(listing):
        if len(now) < count:
            raise DatasetError(
                f"{now.spec}: {len(now)} samples, planned were {count}: which are gone can't be told, since they have "
                "no ids of their own: choose another --out"
            )
        positions = np.arange(count)
    else:
        found = {sample_id: position for position, sample_id in enumerate(now.sample_ids)}
        positions = np.fromiter((found.get(sample_id, -1) for sample_id in listing.sample_ids), np.int64, count)
    if ((positions < 0) | _changed(listing, now, positions)).all():
        raise DatasetError(f"{now.spec}: not the dataset of this run: it has none of its {count} samples as planned")
    return positions


def _prefix(listed: Listing | Source) -> str:
    """Return what stands before the numbers of samples without ids of their own, such as the name of a split."""
    return listed.sample_ids[0].rpartition("/")[0]


def since(listing: Listing, now: Source, positions: NDArray[np.int64]) -> Since:
    """Return what has become of a listing, but for its labels.

    Args:
        now: the dataset as it is listed now.
        positions: of its samples there, -1 where they are not, int64 (n,).
    """
    there = positions >= 0
    vanished = there & (np.asarray(listing.sizes) != UNKNOWN_SIZE) & (now.sizes[positions] == UNKNOWN_SIZE)
    return Since(
        came=max(0, len(now) - int(there.sum()) - listing.left_out),
        gone=~there | vanished,
        changed=there & _changed(listing, now, positions),
        relabelled=np.zeros(len(there), bool),
        redescribed=there & _redescribed(listing, now, positions),
        called="sample" if now.paths is None else "file",
    )


def _changed(listing: Listing, now: Source, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which samples have another size now; of those that are gone it means nothing."""
    sizes, then = now.sizes[positions], np.asarray(listing.sizes)
    return np.asarray((sizes != then) & (sizes != UNKNOWN_SIZE) & (then != UNKNOWN_SIZE))


def _redescribed(listing: Listing, now: Source, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return of which samples a column says something else now; of those that are gone it means nothing."""
    changed = np.zeros(len(positions), bool)
    for name, texts in listing.meta.items():
        there = now.meta.get(name)
        changed |= [there is None or there.raw(at) != then for at, then in zip(positions, texts.raws(), strict=True)]
    return changed
