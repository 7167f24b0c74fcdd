"""Map-style datasets by name: torchvision's, already on disk, and the user's own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import torchvision.datasets
from torchvision.datasets import VisionDataset

from batchcam.data.callables import did_you_mean, load_callable, module_digest
from batchcam.data.map_source import MapSource
from batchcam.data.samples import default_split
from batchcam.errors import DatasetError, one_line
from batchcam.images.decoding import describe
from batchcam.images.passing_faults import passing_fault


def open_torchvision(spec: str, rest: str) -> MapSource:
    """Open `NAME:ROOT[:split]`, a dataset of `torchvision.datasets` that is already on disk; nothing is downloaded.

    Raises:
        DatasetError: there is no such dataset, or torchvision can't open it there.
    """
    name, _, place = rest.partition(":")
    constructor = _torchvision_class(name)
    if not place:
        raise DatasetError(f"{spec}: no folder: write torchvision:{name}:ROOT[:split]")
    root, given = place, None
    if ":" in place and not os.path.isdir(os.path.expanduser(place)):
        root, _, given = place.rpartition(":")
    if not os.path.isdir(os.path.expanduser(root)):
        raise DatasetError(f"{root}: no such folder: put torchvision's {name} there first")
    arguments, split = _split_arguments(spec, constructor, given)
    try:
        dataset = constructor(root=os.path.abspath(os.path.expanduser(root)), **arguments)
    except Exception as error:  # torchvision's own errors differ from dataset to dataset
        raise DatasetError(
            f"{spec}: torchvision can't open it: {describe(error)} (batchcam never downloads)"
        ) from error
    source = MapSource(spec, dataset, f"{split}/" if split else "")
    source.notes += (default_split(split),) if split and given is None else ()
    return source


def open_python(spec: str, rest: str) -> MapSource:
    """Open `module:callable`, whose call without arguments returns a map-style dataset.

    Raises:
        DatasetError: the module or callable can't be found, the call fails, or its dataset can't be used.
    """
    factory = load_callable(rest, DatasetError, "python:")
    try:
        dataset = factory()
    except Exception as error:
        if fault := passing_fault(error):
            raise fault from error
        called = f"{one_line(spec)}: {rest.partition(':')[2]}()"
        raise DatasetError(f"{called} failed: {type(error).__name__}: {describe(error)}") from error
    source = MapSource(spec, dataset)
    source.code = {"callable": rest, "module_sha256": module_digest(rest)}
    return source


def _torchvision_class(name: str) -> Callable[..., Any]:
    """Return the class `torchvision.datasets.NAME`, if it is a dataset under a folder."""
    known = {}
    for candidate in torchvision.datasets.__all__:
        found = getattr(torchvision.datasets, candidate)
        if (
            inspect.isclass(found)
            and issubclass(found, VisionDataset)
            and "root" in inspect.signature(found).parameters
        ):
            known[candidate] = found
    if name not in known:
        hint = did_you_mean(name, list(known))
        raise DatasetError(f"torchvision has no dataset {name!r} under a folder{hint}")
    return known[name]


def _split_arguments(
    spec: str, constructor: Callable[..., Any], split: str | None
) -> tuple[dict[str, Any], str | None]:
    """Return what to pass for `split`, and the split's name for ids; None: the dataset has none."""
    parameters = inspect.signature(constructor).parameters
    arguments: dict[str, Any] = {"download": False} if "download" in parameters else {}
    where = one_line(spec)
    if "split" in parameters:
        default = parameters["split"].default
        if split is None and default is inspect.Parameter.empty:
            raise DatasetError(f"{where}: this dataset needs a split: add :split")
        return arguments | ({} if split is None else {"split": split}), split or str(default)
    if "train" in parameters:
        if split not in (None, "train", "test"):
            raise DatasetError(f"{where}: no split {split!r}: this dataset has train and test")
        return arguments | {"train": split != "test"}, split or "train"
    if split is not None:
        raise DatasetError(f"{where}: this dataset has no splits: remove :{split}")
    return arguments, None
