"""The list of samples that a run was planned with: from the dataset into samples.h5, and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.planned import Listing
from batchcam.data.samples import PackedText
from batchcam.errors import RunError
from batchcam.job.console import note
from batchcam.store import landing
from batchcam.store.plan import Plan, left_out
from batchcam.store.samples import list_image, list_record, list_slices, open_list
from batchcam.store.schema import LIST_FILE, LIST_PATH

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")


def planned_image(plan: Plan, assembly: Assembly) -> bytes:
    """Return the bytes of samples.h5 for a run over this dataset."""
    source = assembly.source
    columns: dict[str, Sequence[str] | np.ndarray] = {
        "sample_id": source.sample_ids,
        "input_bytes": source.sizes,
        "label": assembly.labels,
    }
    if source.paths is not None and not (source.paths is source.sample_ids and source.paths.is_plain):
        paths = [source.paths.raw(index) for index in range(len(source))]
        if any(path != sample_id.encode() for path, sample_id in zip(paths, source.sample_ids, strict=True)):
            columns[LIST_PATH.name] = [*map(written, paths)]
    return list_image(plan, columns)


def read_listing(run: Path, plan: Plan) -> Listing | None:
    """Return the list of a run; None where it has none, as of earlier versions, or where it was lost.

    Raises:
        RunError: it was changed.
    """
    record = list_record(run)
    if record is None:
        return None
    if not landing.ready(run / LIST_FILE, record.sha256).exists():
        note(f"warning: {run / LIST_FILE}: is gone: the dataset is listed again, and must be as it was", quiet=False)
        return None
    with open_list(run, plan, record) as file:
        slices = list(list_slices(file, plan))
    paths = None
    if LIST_PATH.name in slices[0]:
        paths = PackedText(unwritten(path) for each in slices for path in each[LIST_PATH.name].tolist())
    return Listing(
        sample_ids=PackedText(sample_id for each in slices for sample_id in each["sample_id"].tolist()),
        labels=np.concatenate([each["label"] for each in slices]),
        sizes=np.concatenate([each["input_bytes"] for each in slices]),
        paths=paths,
        class_names=plan.class_names,
        label_kind=plan.label_kind or None,
        left_out=left_out(run),
    )


def settle_list(run: Path, plan: Plan, assembly: Assembly) -> None:
    """Give a run's list its final name, after its plan has landed; one that was lost is made again.

    Raises:
        RunError: it can't be made again as it was.
    """
    record = list_record(run)
    if record is None:
        return
    landing.take_up(run / LIST_FILE, record.sha256)
    if not (run / LIST_FILE).exists():
        image = planned_image(plan, assembly)
        if hashlib.sha256(image).hexdigest() != record.sha256:
            raise RunError(f"{run / LIST_FILE}: is gone, and can't be made again byte by byte: bring it back")
        landing.land(run / LIST_FILE, image)


def written(path: bytes) -> str:
    """Return a path as samples.h5 has it: a backslash doubled, a byte that is no UTF-8 as `\\xNN`."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def unwritten(path: bytes) -> bytes:
    """Return the path that `written` gave, encoded."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", path)
