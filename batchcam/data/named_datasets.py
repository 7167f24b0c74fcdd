"""Map-style datasets by name, as what a run is of."""

from __future__ import annotations

from batchcam.data.map_source import MapSource
from batchcam.data.samples import default_split
from batchcam.images.callables import module_digest
from batchcam.images.map_datasets import python_dataset, torchvision_dataset


def open_torchvision(spec: str, rest: str) -> MapSource:
    """Open `NAME:ROOT[:split]`."""
    dataset, split, is_named = torchvision_dataset(spec, rest)
    source = MapSource(spec, dataset, f"{split}/" if split else "")
    source.notes += (default_split(split),) if split and not is_named else ()
    return source


def open_python(spec: str, rest: str) -> MapSource:
    """Open `module:callable`, whose call without arguments returns a map-style dataset."""
    source = MapSource(spec, python_dataset(spec, rest))
    source.code = {"callable": rest, "module_sha256": module_digest(rest)}
    return source
