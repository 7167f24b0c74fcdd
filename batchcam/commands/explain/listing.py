"""The list of samples that a run was planned with: from the dataset into samples.h5, and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.planned import Listing, SlicedNumbers, SlicedText
from batchcam.errors import RunError
from batchcam.images.remote import without_secrets
from batchcam.images.tables import Reading
from batchcam.job.console import note
from batchcam.store import landing
from batchcam.store.plan import Plan, named_reading
from batchcam.store.samples import SampleList, list_image, list_record, stated_list
from batchcam.store.schema import LABELS, LIST_FILE, LIST_PATH, meta_array

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")


def planned_image(plan: Plan, assembly: Assembly) -> bytes:
    """Return the bytes of samples.h5 for a run over this dataset."""
    source = assembly.source
    columns: dict[str, Sequence[str] | np.ndarray] = {
        "sample_id": source.sample_ids,
        "input_bytes": np.asarray(source.sizes),
        "label": np.asarray(assembly.labels),
    }
    if assembly.findings is not None:
        columns[LABELS] = np.asarray(assembly.findings.values)
    paths = source.paths
    if paths is not None and any(a != b.encode() for a, b in zip(paths.raws(), source.sample_ids, strict=True)):
        columns[LIST_PATH.name] = [without_secrets(written(path)) for path in paths.raws()]
    columns |= {meta_array(name).name: source.meta[name] for name in plan.meta}
    return list_image(plan, columns)


def read_listing(run: Path, plan: Plan) -> Listing | None:
    """Return the list of a run, to be read as far as it is asked for.

    None: it has none, as of earlier versions, or has lost it.
    """
    stated = stated_list(run)
    if stated is None:
        return None
    if not landing.ready(run / LIST_FILE, stated.record.sha256).exists():
        note(f"warning: {run / LIST_FILE}: is gone: the dataset is listed again, and must be as it was", quiet=False)
        return None
    slices = SampleList(run, plan, stated)
    return Listing(
        sample_ids=SlicedText(slices, "sample_id"),
        labels=SlicedNumbers(slices, "label"),
        sizes=SlicedNumbers(slices, "input_bytes"),
        paths=SlicedText(slices, LIST_PATH.name, unwritten) if LIST_PATH.name in slices.names else None,
        class_names=plan.class_names,
        label_kind=plan.label_kind or None,
        left_out=stated.left_out,
        meta={name: SlicedText(slices, meta_array(name).name) for name in plan.meta},
        manifest_sha256=stated.manifest_sha256,
        findings=SlicedNumbers(slices, LABELS) if plan.is_multi_label else None,
        reading=Reading(*named_reading(run)),
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
