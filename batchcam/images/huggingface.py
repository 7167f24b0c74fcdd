"""Datasets of Hugging Face as they lie on a disk: what `save_to_disk` writes, and folders of Parquet as on the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from batchcam.images.arrow_tables import arrow_table, parquet_table
from batchcam.images.regular_files import MOST_BYTES, NotRegularError, TooLargeError
from batchcam.images.remote import entries, expanded, is_url, read_file
from batchcam.images.tables import Reading, Table, TableError

_DICT_FILE: Final = "dataset_dict.json"
_STATE_FILE: Final = "state.json"

_PART: Final = re.compile(r"(?P<split>.+?)(?:-(?P<part>[0-9]{5})-of-(?P<parts>[0-9]{5})(?:-[0-9a-f]+)?)?\.parquet")


def open_huggingface(words: str, reading: Reading) -> Table:
    """Open `PATH[:split]`; the split may be left out where there is one.

    Raises:
        TableError: there is no such dataset or split, or it can't be read.
        OSError: a file can't be read.
    """
    path, split = expanded(words), ""
    if (names := _names(path)) is None:
        path, _, split = path.rpartition(":")
        names = _names(path)
    if names is None:
        raise TableError("no such folder")
    if _DICT_FILE in names:
        split = _chosen(split, _json(os.path.join(path, _DICT_FILE)).get("splits", []))
        return _saved(os.path.join(path, split), split, split, reading)
    if _STATE_FILE in names:
        return _saved(path, "", split, reading)
    splits = _parquet_splits(path, names)
    split = _chosen(split, list(splits))
    return parquet_table(splits[split], reading, f"{split}/")


def _names(folder: str) -> list[str] | None:
    """Return the names of what lies in a folder, sorted; None: there is no such folder."""
    try:
        if is_url(folder):
            return sorted(name for name, _, _ in entries(folder)) or None
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else None
    except FileNotFoundError:
        return None


def _chosen(split: str, known: Any) -> str:
    """Return the split that is meant, which is the name of a file or folder."""
    names = [name for name in known if isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name)]
    if split in names:
        return split
    if not split and len(names) == 1:
        return names[0]
    there = f"say one of its splits, {', '.join(names)}" if names else "nothing that save_to_disk or the hub writes"
    raise TableError(f"no split {split}: {there}" if split else there)


def _saved(folder: str, named: str, asked: str, reading: Reading) -> Table:
    """Open what `Dataset.save_to_disk` wrote into a folder."""
    state = _json(os.path.join(folder, _STATE_FILE))
    split = str(state.get("_split") or named)
    if asked not in ("", named, split):
        raise TableError(f"no split {asked}: it is {split or 'a dataset without splits'}")
    files = [_plain(part.get("filename")) for part in state.get("_data_files", ()) if isinstance(part, dict)]
    if state.get("_indices_files") or not files:
        raise TableError(f"{_STATE_FILE}: of rows that are selected by other files: save it by flatten_indices()")
    return arrow_table([os.path.join(folder, file) for file in files], reading, f"{split}/" if split else "")


def _plain(name: object) -> str:
    if not isinstance(name, str) or name != os.path.basename(name) or name in ("", ".", ".."):
        raise TableError(f"{_STATE_FILE}: {name!r:.80} is no name of a file beside it")
    return name


def _json(file: str) -> Mapping[str, Any]:
    try:
        document = json.loads(read_file(file, MOST_BYTES // 2**6))
    except (ValueError, RecursionError, NotRegularError, TooLargeError) as error:
        raise TableError(f"{os.path.basename(file)}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise TableError(f"{os.path.basename(file)}: no object of JSON")
    return document


def _parquet_splits(path: str, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the Parquet files of each split: in the folder itself or in `data`, as on the hub."""
    splits: dict[str, list[str]] = {}
    data = os.path.join(path, "data")
    for folder, listed in ((path, names), (data, _names(data) or () if "data" in names else ())):
        for name in listed if not splits else ():
            if found := _PART.fullmatch(name):
                split = os.path.basename(path) if found["split"].isdigit() else found["split"]
                splits.setdefault(split, []).append(os.path.join(folder, name))
    for split, files in splits.items():
        stated = {int(found["parts"]) for file in files if (found := _PART.search(file)) and found["parts"]}
        if stated and stated != {len(files)}:
            raise TableError(f"split {split}: {len(files)} of {max(stated)} parts are there")
    return dict(splits)
