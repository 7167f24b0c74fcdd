"""Map-style datasets, whose samples come as objects and not as files."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from batchcam.data.findings import hot_vectors
from batchcam.data.samples import (
    UNKNOWN_LABEL,
    UNKNOWN_SIZE,
    PackedText,
    Source,
    StoredSample,
    numbered_ids,
    packed_ids,
)
from batchcam.errors import DatasetError, one_line
from batchcam.images.decoding import UnreadableImageError, UnsupportedImageError, describe
from batchcam.images.map_datasets import stored_item
from batchcam.images.passing_faults import passing_fault
from batchcam.images.planes import Decoding

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels")
_FILE_ATTRIBUTES = ("samples", "_samples", "_image_files", "_images")
_EXPECTED = "a PIL image, or a tensor (C, H, W) of uint8 or floats"


class MapSource(Source):
    """Items (image, label[, id]) of a map-style dataset."""

    def __init__(self, spec: str, dataset: Any, id_prefix: str = "") -> None:
        """List `dataset`: from its attributes where it has them, else by one pass over its items.

        Raises:
            DatasetError: its items, labels, ids or class names can't be used.
        """
        where = one_line(spec)
        count = _length(where, dataset)
        self._dataset = dataset
        with_ids = _check_first_item(where, dataset, count)
        labels = _attribute(dataset, _LABEL_ATTRIBUTES)
        if labels is None and getattr(dataset, "target_type", None) == ["attr"]:  # torchvision's CelebA
            labels = getattr(dataset, "attr", None)
        sample_ids = _attribute(dataset, ("sample_ids",))
        notes = []
        sizes = _sizes(dataset, count)
        if labels is None or (sample_ids is None and with_ids):
            items = _Pass(dataset, count)
            notes.append("labels or ids read from the items: attributes targets and sample_ids would list it quicker")
            if items.unread and sample_ids is None and with_ids:
                unread = f"{len(items.unread)} of {count} items can't be read, first item {items.unread[0]}"
                raise DatasetError(f"{where}: {unread}, and only items tell their ids: give an attribute sample_ids")
            if items.unread and labels is None:
                notes.append(
                    f"{len(items.unread)} items can't be read: only an attribute targets would tell their labels"
                )
            labels = items.labels if labels is None else labels
            sample_ids = items.sample_ids if sample_ids is None and with_ids else sample_ids
        vectors = hot_vectors(where, labels, count)
        class_indices = _class_indices(where, labels, count) if vectors is None else np.full(count, UNKNOWN_LABEL)
        class_names = _class_names(where, dataset, class_indices)
        ids = _ids(where, sample_ids, count, id_prefix)
        super().__init__(spec, ids, class_indices, sizes, class_names, notes)
        self.numbered = sample_ids is None
        self.multi_hot = vectors
        if vectors is not None:
            self.several = (
                f"{where}: labels are vectors, several labels a sample (multi-label), and a sample has one here: "
                "--problem-type multi-label reads them"
            )

    def read(self, index: int) -> StoredSample:
        """Ask the dataset for one item; what it raises makes the sample unreadable.

        Raises:
            UnreadableImageError: it raised something, or gave no image.
            PassingFaultError: it raised one that says nothing about the sample; a rerun may read it.
        """
        index = range(len(self))[index]
        try:
            item = self._dataset[index]
        except UnreadableImageError:
            raise
        except Exception as error:  # whatever the user's code raises is about this sample
            _raise_passing(error)
            raise UnreadableImageError(f"{type(error).__name__}: {describe(error)}") from error
        if not _is_item(item):
            raise UnsupportedImageError(f"the dataset gave {type(item).__name__}, not (image, label)")
        return _stored(item[0], self.decoding)


class _Pass:
    """Labels and ids gathered from the items themselves."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.labels: list[object] = []
        self.sample_ids: list[object] = []
        self.unread: list[int] = []
        numbers = numbered_ids(count)
        for index, item in enumerate(_items(dataset, count)):
            if item is None:
                self.unread.append(index)
            self.labels.append(None if item is None else item[1])
            self.sample_ids.append(item[2] if item is not None and len(item) > 2 else numbers[index])


def _items(dataset: Any, count: int) -> Iterator[Sequence[Any] | None]:
    """Yield every item, None for those that can't be read or used: reading reports them."""
    for index in range(count):
        try:
            item = dataset[index]
        except Exception as error:  # reading it again says what is wrong with it
            _raise_passing(error)
            item = None
        yield item if _is_item(item) else None


def _raise_passing(error: Exception) -> None:
    if fault := passing_fault(error):
        raise fault from error


def _is_item(item: object) -> bool:
    return isinstance(item, (tuple, list)) and len(item) >= 2


def _check_first_item(where: str, dataset: Any, count: int) -> bool:
    """Refuse a dataset whose first item that can be had has no image or label; return whether it has an id."""
    for index in range(count):
        try:
            item = dataset[index]
            break
        except Exception as error:  # one unreadable sample says nothing about the others
            _raise_passing(error)
    else:
        return False
    if not _is_item(item):
        raise DatasetError(f"{where}: items are {type(item).__name__}: return (image, label) or (image, label, id)")
    if not isinstance(item[0], Image.Image) and not _is_image_tensor(item[0]):
        raise DatasetError(f"{where}: images are {_kind(item[0])}: return {_EXPECTED}")
    return len(item) > 2


def _length(where: str, dataset: Any) -> int:
    try:
        count = len(dataset)
    except TypeError as error:
        raise DatasetError(f"{where}: {type(dataset).__name__} has no length: return a map-style dataset") from error
    if not count:
        raise DatasetError(f"{where}: no samples: the dataset is empty")
    return count


def _attribute(dataset: Any, names: Sequence[str]) -> Any:
    """Return the first of these attributes that the dataset has, or None."""
    return next((value for name in names if (value := getattr(dataset, name, None)) is not None), None)


def _class_indices(where: str, labels: Any, count: int) -> NDArray[np.int64]:
    try:
        values = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
        indices = [UNKNOWN_LABEL if value is None else operator.index(value) for value in values]
    except TypeError as error:
        raise DatasetError(
            f"{where}: labels are not class indices: give whole numbers, -1 where not known, or for several labels a "
            "sample (multi-label) vectors of 1 and 0"
        ) from error
    if len(indices) != count:
        raise DatasetError(f"{where}: {len(indices)} labels for {count} samples: give one for each")
    if min(indices) < UNKNOWN_LABEL:
        raise DatasetError(f"{where}: label {min(indices)}: class indices start at 0, -1 is not known")
    return np.array(indices, np.int64)


def _class_names(where: str, dataset: Any, labels: NDArray[np.int64]) -> tuple[str, ...] | None:
    classes = getattr(dataset, "classes", None)
    if classes is None:
        attributes = getattr(dataset, "attr_names", ())  # torchvision's CelebA: its last one is empty
        return tuple(filter(None, attributes)) or None
    # torchvision's ImageNet gives a tuple of synonyms for each class
    names = tuple(str(name[0]) if isinstance(name, tuple) else str(name) for name in classes)
    if int(labels.max()) >= len(names):
        raise DatasetError(f"{where}: label {int(labels.max())} has no name: attribute classes names {len(names)}")
    return names


def _ids(where: str, sample_ids: Any, count: int, prefix: str) -> PackedText:
    if sample_ids is None:
        return numbered_ids(count, prefix)
    ids = list(sample_ids)
    if len(ids) != count:
        raise DatasetError(f"{where}: {len(ids)} ids for {count} samples: give one for each")
    return packed_ids(ids, where)


def _sizes(dataset: Any, count: int) -> NDArray[np.int64]:
    """Return the bytes of each stored image where the dataset tells, without reading one, int64 (n,)."""
    data = getattr(dataset, "data", None)
    if isinstance(data, (Tensor, np.ndarray)) and len(data) == count:
        return np.full(count, data.nbytes // count, np.int64)
    files = _attribute(dataset, _FILE_ATTRIBUTES)
    if not isinstance(files, (list, tuple)) or len(files) != count:
        return np.full(count, UNKNOWN_SIZE, np.int64)
    return np.array([_file_size(file[0] if isinstance(file, tuple) else file) for file in files], np.int64)


def _file_size(path: object) -> int:
    try:
        return os.stat(path).st_size if isinstance(path, (str, os.PathLike)) else UNKNOWN_SIZE
    except OSError:
        return UNKNOWN_SIZE


def _stored(image: object, decoding: Decoding) -> StoredSample:
    """Return an item's image as it is stored, or float32 and preprocessed."""
    if not isinstance(image, Image.Image) and not _is_image_tensor(image):
        raise UnsupportedImageError(f"the dataset gave {_kind(image)}: expected {_EXPECTED}")
    digest, stored = stored_item(image, decoding)
    return StoredSample(digest, torch.from_numpy(stored) if isinstance(stored, np.ndarray) else stored)


def _is_image_tensor(image: object) -> bool:
    return isinstance(image, Tensor) and image.ndim == 3 and (image.dtype == torch.uint8 or image.is_floating_point())


def _kind(image: object) -> str:
    return f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
