"""Where the objects are: boxes and masks by sample id, from CSV, COCO's JSON, WSOL's or YOLO's texts, or masks."""

from __future__ import annotations

import array
import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from batchcam.commands.localize.annotation_files import (
    LABELS_FILE,
    LOCALIZATION_FILE,
    WHOLE,
    Entry,
    coco_entries,
    csv_entries,
    fields,
    is_yolo,
    mask_entries,
    wsol_entries,
    yolo_entries,
)
from batchcam.errors import ConfigError, DatasetError, one_line
from batchcam.rules import composed

LISTED: Final = 1000
"""Names of images that are not in the run, kept to be told."""


@dataclasses.dataclass(frozen=True)
class Objects:
    """What is annotated of one sample.

    Attributes:
        boxes: x0, y0, x1, y1 in pixels, from the outer edge of the first pixel, float64 (G, 4).
        masks: files, one for each object or for several together; any pixel above zero is one of an object.
        ignored: file of a mask whose pixels outside of objects do not count; None: all pixels count.
        size: (height, width) of the picture that the boxes were drawn in; None: the image's.
    """

    boxes: np.ndarray
    masks: tuple[Path, ...]
    ignored: Path | None
    size: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Objects of n cases: samples, or of a multi-label run a sample and a class that is annotated of it.

    Attributes:
        samples: row of each case in the run, ascending, int64 (n).
        boxes: of all cases, float64 (R, 4), those of a case together.
        box_starts: first box of each case, and the end, int64 (n + 1).
        masks: files of all cases, those of a case together.
        mask_starts: first mask of each case, and the end, int64 (n + 1).
        ignored: file of the ignored pixels by case.
        sizes: height, width of the picture that the boxes were drawn in, int64 (n, 2); -1: the image's.
        labels: class that the annotations state, int64 (n); -1: none.
        root: folder that the paths of masks are relative to.
        prefix: what stands before the sample ids in the annotations.
        strangers: how many annotated images are not among the samples.
        strangers_listed: some of their names.
        other_form: how many samples are annotated under a name in another Unicode form than their ids.
        other_classes: how many objects are of each class that a multi-label run does not have.
    """

    samples: np.ndarray
    boxes: np.ndarray
    box_starts: np.ndarray
    masks: list[str]
    mask_starts: np.ndarray
    ignored: dict[int, str]
    sizes: np.ndarray
    labels: np.ndarray
    root: Path
    prefix: str
    strangers: int
    strangers_listed: tuple[str, ...]
    other_form: int
    other_classes: Mapping[str, int]

    @property
    def annotated(self) -> np.ndarray:
        """Which cases have a box or a mask, bool (n)."""
        return np.asarray((np.diff(self.box_starts) > 0) | (np.diff(self.mask_starts) > 0))

    def of(self, case: int) -> Objects:
        """Return what is annotated of a case."""
        boxes = self.boxes[self.box_starts[case] : self.box_starts[case + 1]]
        masks = self.masks[self.mask_starts[case] : self.mask_starts[case + 1]]
        height, width = self.sizes[case].tolist()
        ignored = self.ignored.get(case)
        return Objects(
            boxes,
            tuple(self.root / each for each in masks),
            None if ignored is None else self.root / ignored,
            (height, width) if height > 0 else None,
        )


def read_annotations(
    source: Path,
    sample_ids: Sequence[str],
    mask_root: Path | None = None,
    prefix: str | None = None,
    data: str | None = None,
    classes: Sequence[str] | None = None,
) -> Annotations:
    """Read the annotations of a run's samples, and of a multi-label run those of each class by itself.

    Args:
        source: a CSV file with a header; COCO's JSON; a folder of masks, or of YOLO's text files; or the metadata of
            WSOL evaluation: `localization.txt`, or the folder that holds it.
        mask_root: folder that paths of masks are relative to; None: the one in which the file lies.
        prefix: what stands before the sample ids in the annotations, such as `images/test/`; None: found by itself.
        data: the run's dataset, as it was named: it settles which of several prefixes is meant.
        classes: of a multi-label run; None: what the annotations say of classes is passed over.

    Raises:
        ConfigError: there is nothing of these kinds, or several prefixes are possible.
        DatasetError: a line can't be understood, or none names a sample; or one of several classes names none.
    """
    names = _Names(sample_ids, prefix)
    folder = source.parent if source.is_file() else source
    listing = folder / LOCALIZATION_FILE
    is_wsol = source == listing or (source.is_dir() and listing.is_file())
    if not is_wsol and not source.is_dir() and not source.is_file():
        raise ConfigError(f"--annotations {source}: no such file or folder")

    def entries() -> Iterator[Entry]:
        if is_wsol:
            return wsol_entries(folder)
        if source.is_dir():
            boxes = source / "labels" if (source / "images").is_dir() and (source / "labels").is_dir() else source
            return (
                yolo_entries(boxes, sample_ids)
                if is_yolo(boxes)
                else mask_entries(source, sample_ids, classes is not None)
            )
        return coco_entries(source) if source.suffix.lower() == ".json" else csv_entries(source)

    if names.prefix is None:
        names.prefix = _one_prefix(collections.Counter(names.prefix_of(e.name) for e in entries()), data, source)
    cases = _Cases(classes) if classes is not None else None
    found = _gathered(entries(), names, cases, source, mask_root or folder)
    if is_wsol:
        _read_labels(folder / LABELS_FILE, names, found.labels)
    in_pixels = np.repeat(found.sizes.max(1) != 1, np.diff(found.box_starts))
    if in_pixels.any() and found.boxes[in_pixels].max() <= 1:
        raise DatasetError(f"{source}: all its boxes lie within 0…1: shares of the image, not pixels: scale them")
    return found


def read_mask(path: Path) -> np.ndarray:
    """Return which pixels of a mask are above zero, bool (height, width); colours count as their grey.

    Raises:
        DatasetError: it is no image that OpenCV reads.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DatasetError(f"{path}: cannot read this mask: not a file")
    try:
        stored = np.frombuffer(path.read_bytes(), np.uint8)
        grey = cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH) if len(stored) else None
    except OSError as error:
        raise DatasetError(f"{path}: cannot read this mask: {error.strerror}") from error
    except ValueError as error:  # a NUL
        raise DatasetError(f"{path}: cannot read this mask: no file has such a name") from error
    except cv2.error as error:
        raise DatasetError(f"{path}: cannot read this mask: OpenCV refuses it") from error
    if grey is None:
        raise DatasetError(f"{path}: cannot read this mask: not an image")
    return np.asarray(grey > 0)


class _Names:
    """Which sample each name of an annotation means: its id, after one prefix that is the same for all.

    A name that is no id letter by letter is one in another Unicode form. The prefix is None until it is known.
    """

    def __init__(self, ids: Sequence[str], prefix: str | None) -> None:
        self.ids = ids
        self.prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        self._rows = {composed(each): row for row, each in enumerate(ids)}
        self._rows |= {each: row for row, each in enumerate(ids)}

    def row(self, name: str) -> int:
        """Return the row of the sample that a name means, -1 for none."""
        name, prefix = name.removeprefix("./"), self.prefix or ""
        for text, start in ((name, prefix), (composed(name), composed(prefix))):
            if text.startswith(start) and (row := self._rows.get(text[len(start) :])) is not None:
                return row
        return -1

    def is_written_as(self, name: str, row: int) -> bool:
        """Return whether a name means the sample of a row letter by letter."""
        return name.removeprefix("./") == (self.prefix or "") + self.ids[row]

    def prefix_of(self, name: str) -> str | None:
        """Return what stands before the longest sample id, of whole folders and a name, that a name ends in."""
        name = name.removeprefix("./")
        start = 0
        while not self._rows.keys() & {name[start:], composed(name[start:])}:
            start = name.find("/", start) + 1
            if not start:
                return None
        return name[:start]


def _one_prefix(prefixes: collections.Counter[str | None], data: str | None, source: Path) -> str:
    """Return the prefix that is meant: none at all, the only one, or the one that the dataset's name ends in.

    Args:
        prefixes: how many objects have each; None: of images that are not in the run.
        source: for the message.
    """
    found = {p: count for p, count in prefixes.most_common() if p is not None}
    if "" in found or not found:
        return ""
    ends = [p for p in found if data and f"/{data.strip('/')}/".endswith(f"/{p}")]
    if len(found) > 1 and len(ends) != 1:
        choices = ", ".join(f"{one_line(p)} ({count})" for p, count in list(found.items())[:5])
        raise ConfigError(f"{source}: sample ids stand after several prefixes, {choices}: choose one with --prefix")
    return ends[0] if len(found) > 1 else next(iter(found))


class _Cases:
    """The samples and classes that are annotated of a multi-label run, by a number each.

    Attributes:
        numbers: of each row and class.
        others: how many objects are of classes that the run does not have, by their names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = {composed(name): index for index, name in enumerate(classes)}
        self.numbers: dict[tuple[int, int], int] = {}
        self.others: collections.Counter[str] = collections.Counter()

    def number(self, row: int, entry: Entry) -> int | None:
        """Return the number of an object's case, None where the run does not have its class."""
        name = entry.class_name
        if not name:
            raise DatasetError(
                f"{entry.where}: no class: the run is multi-label, and each class has a map of its own: a column class "
                "names it, or COCO's category, or a folder of masks for each class"
            )
        class_ = self._classes.get(composed(name))
        if class_ is None and name.isdecimal() and int(name) < len(self._classes):
            class_ = int(name)
        if class_ is None:
            self.others[name] += 1
            return None
        return self.numbers.setdefault((row, class_), len(self.numbers))


def _gathered(entries: Iterable[Entry], names: _Names, cases: _Cases | None, source: Path, root: Path) -> Annotations:
    sizes: dict[int, tuple[int, int]] = {}
    box_rows, mask_rows, edges = array.array("q"), array.array("q"), array.array("d")
    masks: list[str] = []
    ignored: dict[int, str] = {}
    strangers: dict[str, None] = {}
    other_form: set[int] = set()
    count, last = 0, ""
    for entry in entries:
        row = names.row(entry.name)
        if row < 0:
            count += entry.name != last  # the objects of an image follow one another
            last = entry.name
            if len(strangers) < LISTED:
                strangers[last] = None
            continue
        case = row if cases is None else cases.number(row, entry)
        if case is None:
            continue
        if not names.is_written_as(entry.name, row):
            other_form.add(row)
        if entry.box is not None:
            box_rows.append(case)
            edges.extend(entry.box)
        if entry.mask:
            mask_rows.append(case)
            masks.append(entry.mask)
        if entry.ignored and ignored.setdefault(case, entry.ignored) != entry.ignored:
            raise DatasetError(f"{entry.where}: a second mask of ignored pixels for {entry.name}")
        if entry.size is not None:
            sizes[case] = entry.size
    if not box_rows and not mask_rows:
        if cases and cases.others:
            raise DatasetError(
                f"{source}: annotates no class of the run, only {one_line(', '.join(cases.others))[:80]}"
            )
        stated = f"its first name is {one_line(next(iter(strangers)))}" if strangers else "it names no image"
        sample = one_line(names.ids[0]) if names.ids else "-"
        raise DatasetError(f"{source}: annotates no sample of the run: {stated}, the run's first is {sample}")
    keys = [(row, -1) for row in range(len(names.ids))] if cases is None else sorted(cases.numbers)
    order = range(len(keys)) if cases is None else [cases.numbers[key] for key in keys]
    box_order, box_starts = _grouped(box_rows, order)
    mask_order, mask_starts = _grouped(mask_rows, order)
    samples, labels = np.array(keys, np.int64).reshape(-1, 2).T.copy()
    return Annotations(
        samples=samples,
        boxes=np.array(edges, np.float64).reshape(-1, 4)[box_order],
        box_starts=box_starts,
        masks=[masks[i] for i in mask_order],
        mask_starts=mask_starts,
        ignored={place: ignored[case] for place, case in enumerate(order) if case in ignored},
        sizes=np.array([sizes.get(case, (-1, -1)) for case in order], np.int64).reshape(-1, 2),
        labels=labels,
        root=root,
        prefix=names.prefix or "",
        strangers=count,
        strangers_listed=tuple(strangers),
        other_form=len(other_form),
        other_classes=cases.others if cases else {},
    )


def _grouped(cases: array.array[int], order: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the order that brings the objects of a case together, and where those of each one start.

    Args:
        cases: of each object the number of its case.
        order: the cases' numbers in their order.
    """
    places = np.argsort(np.array(order, np.int64))
    each = places[np.array(cases, np.int64)]
    together = np.argsort(each, kind="stable")
    return together, np.searchsorted(each[together], np.arange(len(order) + 1))


def _read_labels(file: Path, names: _Names, labels: np.ndarray) -> None:
    for where, (name, label) in fields(file, (2,)):
        if not WHOLE.fullmatch(label):
            raise DatasetError(f"{where}: {label} is no class index")
        if (row := names.row(name)) >= 0:
            labels[row] = int(label)
