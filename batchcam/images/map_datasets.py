"""Map-style datasets by name: torchvision's, already on disk, and the user's own; without torch of ours."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchcam.errors import DatasetError, one_line
from batchcam.images.callables import did_you_mean, load_callable
from batchcam.images.decoding import describe, image_of, load_image
from batchcam.images.passing_faults import passing_fault
from batchcam.images.planes import Decoded, Decoding, planes, stored_bytes


def torchvision_dataset(spec: str, rest: str) -> tuple[Any, str | None, bool]:
    """Return `NAME:ROOT[:split]`, a dataset of `torchvision.datasets` that is already on disk; nothing is downloaded.

    Returns:
        The dataset, its split, None where it has none, and whether the words name the split.

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
    return dataset, split, given is not None


def python_dataset(spec: str, rest: str) -> Any:
    """Return what `module:callable` returns: a map-style dataset.

    Raises:
        DatasetError: the module or callable can't be found, or the call fails.
    """
    factory = load_callable(rest, DatasetError, "python:")
    try:
        return factory()
    except Exception as error:
        if fault := passing_fault(error):
            raise fault from error
        called = f"{one_line(spec)}: {rest.partition(':')[2]}()"
        raise DatasetError(f"{called} failed: {type(error).__name__}: {describe(error)}") from error


def _torchvision_class(name: str) -> Callable[..., Any]:
    """Return the class `torchvision.datasets.NAME`, if it is a dataset under a folder."""
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise DatasetError(f"torchvision:{name}: needs torchvision: pip install 'batchcam[worker]'") from error
    known = {}
    for candidate in datasets.__all__:
        found = getattr(datasets, candidate)
        if (
            inspect.isclass(found)
            and issubclass(found, datasets.VisionDataset)
            and "root" in inspect.signature(found).parameters
        ):
            known[candidate] = found
    if name not in known:
        hint = did_you_mean(name, list(known))
        raise DatasetError(f"torchvision has no dataset {name!r} under a folder{hint}")
    return known[name]


def stored_item(image: Any, decoding: Decoding) -> tuple[bytes, Decoded | NDArray[np.float32]]:
    """Return the digest of an item's image, 32 bytes, and itself as it counts; floats are preprocessed.

    Args:
        image: a PIL image, or a tensor (C, H, W) of uint8 or floats.
        decoding: how its values are read.

    Raises:
        UnreadableImageError: its pixels can't be loaded.
        UnsupportedImageError: it has other channels than the network takes.
    """
    if isinstance(image, Image.Image):
        return _digested(lambda wanted: load_image(image, wanted), decoding)
    if image.is_floating_point():
        values: NDArray[np.float32] = np.ascontiguousarray(image.detach().cpu().float().numpy())
        return hashlib.sha256(values.astype("<f4", copy=False).tobytes()).digest(), values
    array = image.detach().cpu().permute(1, 2, 0).numpy()
    return _digested(lambda wanted: image_of(array, wanted), decoding)


def _digested(load: Callable[[Decoding], Decoded], decoding: Decoding) -> tuple[bytes, Decoded]:
    if decoding.range is None and decoding.channels == 1:
        # the digest is the same whatever network is explained
        image = load(dataclasses.replace(decoding, channels=3))
        return hashlib.sha256(stored_bytes(image)).digest(), load_image(planes(image)[0], decoding)
    image = load(decoding)
    return hashlib.sha256(stored_bytes(image)).digest(), image


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
