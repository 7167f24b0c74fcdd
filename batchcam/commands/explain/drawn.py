"""Drawn samples of a run whose images are read again: which of them can be judged."""

from __future__ import annotations

import numpy as np

from batchcam.data.loader import LoadedBatch
from batchcam.errors import RunError
from batchcam.record.study import Reason, first_reasons
from batchcam.rules import Status
from batchcam.store.run import Run
from batchcam.store.stored_cams import stored_ranks


class LeftOut(Reason):
    """Why a drawn sample is not judged."""

    JUDGED = 0
    UNREADABLE = 1
    NON_FINITE = 2, "not finite"
    CONSTANT = 3, "constant map"
    GONE = 4, "unreadable now"
    CHANGED = 5, "another image now"
    OVERFLOWN = 6, "not finite once changed"
    OTHERWISE = 7, "the network does not say this class now"
    ALONE = 8, "drawn beside no image of another class"


def require_consistent(run: Run, rows: np.ndarray, count: int) -> None:
    """Refuse a record that names a sample, a class or a map that is not there, of a dataset of `count` samples."""
    index, status, prediction = run.sample_index[rows], run.status[rows], run.prediction[rows]
    sound = (index >= 0) & (index < count) & (prediction < len(run.class_names))
    sound &= (prediction >= 0) | (status & (Status.UNREADABLE | Status.NON_FINITE) > 0)
    sound &= (stored_ranks(run.cam_class[rows], prediction) >= 0) | (prediction < 0)
    if not sound.all():
        raise RunError(f"{run.path}: row {rows[int(sound.argmin())]} contradicts itself; see batchcam verify")


def left_out(run: Run, rows: np.ndarray, batch: LoadedBatch) -> np.ndarray:
    """Return why samples can't be judged whose images were read again, `LeftOut`, uint8 (n,).

    Args:
        rows: of the run, int64 (n,).
        batch: their images as they are now.
    """
    status = run.status[rows]
    return first_reasons(
        {
            LeftOut.UNREADABLE: (status & Status.UNREADABLE) > 0,
            LeftOut.GONE: batch.unreadable,
            LeftOut.CHANGED: (run.input_sha256[rows] != batch.sha256.numpy()).any(1),
            LeftOut.NON_FINITE: (status & Status.NON_FINITE) > 0,
            LeftOut.CONSTANT: (status & Status.CONSTANT_MAP) > 0,
        }
    )
