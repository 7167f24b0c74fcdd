"""Open a dataset by its name on the command line, and fit its labels to a model's classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batchcam.data.csv_manifest import open_csv
from batchcam.data.folder import open_folder
from batchcam.data.named_datasets import open_python, open_torchvision
from batchcam.data.samples import UNKNOWN_LABEL, Source, StoredSample
from batchcam.data.stl10 import open_stl10
from batchcam.errors import DatasetError, one_line

__all__ = ["KINDS", "Source", "StoredSample", "dataset_folder", "match_classes", "open_source"]

_PREFIXES: Final[dict[str, Callable[[str, str], Source]]] = {
    "stl10": open_stl10,
    "torchvision": open_torchvision,
    "python": open_python,
}

KINDS: Final = (
    "a folder of class folders, FILE.csv, stl10:ROOT[:split], torchvision:NAME:ROOT[:split], python:module:callable"
)
"""What `open_source` opens, for messages."""

_NAMED_CLASSES: Final = 10
"""Unknown classes that an error lists."""


def open_source(spec: str) -> Source:
    """List the dataset that `spec` names, without decoding it; `KINDS` says what there is.

    Raises:
        DatasetError: there is no such dataset, it is empty, or it can't be listed.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in _PREFIXES:
        return _PREFIXES[prefix](spec, rest)
    if (folder := dataset_folder(spec)) is not None:
        return open_folder(spec, folder)
    path = os.path.expanduser(spec)
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise DatasetError(f"{spec}: a pipe or device, which may never end: expected {KINDS}")
        if path.lower().endswith(".csv"):
            return open_csv(spec, path)
        raise DatasetError(f"{spec}: a file, but no .csv: expected {KINDS}")
    if colon and "/" not in prefix:
        raise DatasetError(f"{spec}: unknown kind of dataset {prefix!r}: expected {KINDS}")
    raise DatasetError(f"{spec}: no such file or folder: expected {KINDS}")


def dataset_folder(spec: str) -> str | None:
    """Return the folder of class folders that `spec` names; None: it names another kind of dataset, or nothing."""
    prefix, colon, _ = spec.partition(":")
    path = os.path.expanduser(spec)
    return path if not (colon and prefix in _PREFIXES) and os.path.isdir(path) else None


def match_classes(source: Source, model_classes: Sequence[str]) -> NDArray[np.int64]:
    """Return a dataset's labels as indices of the model's classes, matched by name where both name them.

    Args:
        source: the dataset.
        model_classes: the model's class names by index.

    Returns:
        Indices of the model's classes, -1 where not known, int64 (n,).

    Raises:
        DatasetError: the model does not know a class, or knows only names or numbers that can't be told apart.
    """
    names = source.class_names
    if names is None or tuple(names) == tuple(model_classes):
        return _checked_range(source, len(model_classes))
    return _by_name(source, names, model_classes)


def _by_name(source: Source, source_classes: Sequence[str], model_classes: Sequence[str]) -> NDArray[np.int64]:
    counts = Counter(model_classes)
    unknown = [name for name in source_classes if counts[name] == 0]
    if unknown:
        listed = ", ".join(one_line(name) for name in unknown[:_NAMED_CLASSES])
        more = f" and {len(unknown) - _NAMED_CLASSES} more" if len(unknown) > _NAMED_CLASSES else ""
        raise DatasetError(
            f"{source.spec}: the model does not know these classes of the dataset: {listed}{more}; name "
            "them as the model does"
        )
    repeated = [name for name in source_classes if counts[name] > 1]
    if repeated:
        raise DatasetError(
            f"{source.spec}: two classes of the model are named {repeated[0]}: label by class index instead"
        )
    index = {name: position for position, name in enumerate(model_classes)}
    # the last place is what label -1 picks
    table = np.array([index[name] for name in source_classes] + [UNKNOWN_LABEL], np.int64)
    return table[_checked_range(source, len(source_classes))]


def _checked_range(source: Source, class_count: int) -> NDArray[np.int64]:
    labels = source.labels
    wrong = np.flatnonzero((labels < UNKNOWN_LABEL) | (labels >= class_count))
    if len(wrong):
        raise DatasetError(
            f"{source.spec}: label {labels[wrong[0]]} of sample {wrong[0]} is outside the {class_count} classes: "
            f"labels are 0…{class_count - 1}, -1 where not known"
        )
    return labels.astype(np.int64)
