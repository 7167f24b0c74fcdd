"""Open a dataset by its name on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from batchcam.config.shared import ManifestReading
from batchcam.data.archive import open_packed
from batchcam.data.csv_manifest import manifest_digest, open_csv, open_table, refusing
from batchcam.data.folder import open_folder
from batchcam.data.named_datasets import open_python, open_torchvision
from batchcam.data.planned import Listing, Planned, planned, planned_files
from batchcam.data.samples import Source, StoredSample
from batchcam.data.stl10 import open_stl10
from batchcam.errors import ConfigError, DatasetError, one_line
from batchcam.images.archives import split_archive
from batchcam.images.kinds import BY_PREFIX, is_table
from batchcam.images.manifest_files import is_of_windows
from batchcam.images.remote import absolute, expanded, is_url, without_secrets
from batchcam.images.tables import NOTHING_SAID, Reading, folder_of

__all__ = ["KINDS", "Source", "StoredSample", "dataset_folder", "open_planned", "open_source", "reading_of"]

_PREFIXES: Final[dict[str, Callable[[str, str], Source]]] = {
    "stl10": open_stl10,
    "torchvision": open_torchvision,
    "python": open_python,
}

KINDS: Final = (
    "a folder of class folders or of images, a .tar or .zip of one, FILE.csv, .tsv, .jsonl or .parquet, URLs of these, "
    "wds:PATTERN, hf:PATH[:split], stl10:ROOT[:split], torchvision:NAME:ROOT[:split], python:module:callable"
)
"""What `open_source` opens, for messages."""

_WAYS_OUT: Final = {
    ".txt": "commas and a header, path,label, make it a .csv",
    ".json": "an object a line, with path and label, makes it a .jsonl",
}
"""By the ending of a file that is not read, what makes it one that is."""


def open_source(spec: str, sizes: bool = True, reading: Reading = NOTHING_SAID) -> Source:
    """List the dataset that `spec` names, without decoding it; `KINDS` says what there is.

    Args:
        sizes: whether to look at each file of a manifest for its size.
        reading: what the user says of how a manifest is meant.

    Raises:
        DatasetError: there is no such dataset, it is empty, or it can't be listed.
    """
    told = without_secrets(spec)
    source = _open(spec, told, sizes, reading)
    if told != spec:
        source.notes += (f"{told}: recorded without its password or signature, which each start has to be given",)
    return source


def _open(given: str, spec: str, sizes: bool, reading: Reading) -> Source:
    """Open the dataset that was `given`, which messages and records call `spec`."""
    prefix, colon, rest = given.partition(":")
    if colon and prefix in BY_PREFIX:
        with refusing(one_line(spec)):
            return open_table(spec, BY_PREFIX[prefix](rest, reading), reading)
    path = expanded(given)
    if (is_url(path) or os.path.isfile(path)) and is_table(path):
        return open_csv(spec, path, sizes, reading)
    if reading != NOTHING_SAID:
        raise DatasetError(f"{spec}: --columns, --root and --suffix are of manifests; leave them out")
    if colon and prefix in _PREFIXES:
        return _PREFIXES[prefix](spec, rest)
    if (folder := dataset_folder(given)) is not None:
        return open_folder(spec, folder)
    if (archive := split_archive(path)) is not None:
        return open_packed(spec, *archive)
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise DatasetError(f"{spec}: a pipe or device, which may never end: expected {KINDS}")
        way_out = _WAYS_OUT.get(os.path.splitext(path)[1].lower(), "a python: dataset of yours may read it")
        raise DatasetError(f"{spec}: a file of another kind: {way_out}: expected {KINDS}")
    if is_of_windows(given):
        raise ConfigError(f"{spec}: a drive of Windows, which is not here: name the folder as this machine has it")
    if colon and "/" not in prefix:
        raise DatasetError(f"{spec}: unknown kind of dataset {prefix!r}: expected {KINDS}")
    raise DatasetError(f"{spec}: no such file or folder: expected {KINDS}")


def reading_of(config: ManifestReading) -> Reading:
    """Return what the user says of how a manifest is meant."""
    root = absolute(config.root) if config.root else ""
    return Reading(config.columns or {}, root, config.suffix or "")


def open_planned(spec: str, listing: Listing, look: bool, reading: Reading = NOTHING_SAID) -> Planned:
    """Return the samples of a listing out of the dataset that `spec` names.

    Args:
        look: whether to find out what has become of the listing, where reading the samples does not need it.
        reading: as for `open_source`; what the listing was made with need not be said again.

    Raises:
        DatasetError: there is no such dataset, or it is another one, or it was planned with another reading.
    """
    if reading not in (NOTHING_SAID, listing.reading):
        raise DatasetError(f"{spec}: this run was planned with other --columns, --root or --suffix: leave them out")
    folder = dataset_folder(spec) or _folder_of_manifest(spec, listing.manifest_sha256)
    if folder is None or look:
        return planned(listing, open_source(spec, look, listing.reading))
    return Planned(planned_files(spec, folder, listing))


def _folder_of_manifest(spec: str, sha256: str) -> str | None:
    """Return the folder that the paths of a manifest start from, None where it is not the one with this digest."""
    path = expanded(spec)
    is_there = is_url(path) or os.path.isfile(path)
    return folder_of(path) if sha256 and is_there and manifest_digest(path) == sha256 else None


def dataset_folder(spec: str) -> str | None:
    """Return the folder of images that `spec` names, or its URL; None: it names another kind of dataset, or nothing."""
    prefix, colon, _ = spec.partition(":")
    path = expanded(spec)
    if is_url(path):
        return None if is_table(path) or split_archive(path) else path
    return path if not (colon and prefix in _PREFIXES | BY_PREFIX) and os.path.isdir(path) else None
