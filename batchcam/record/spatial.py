"""How much of a logit lies in the cells of its map, where some of it lies in none."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from batchcam.store.run import Run
from batchcam.store.schema import OFFSET
from batchcam.store.series import Series
from batchcam.store.stored_cams import stored_ranks

SMALL_SHARE: Final = 0.25
"""Of less, in the median, it is a finding: three times as much of the logit, or more, is where no map shows it.

A small ViT that finds its objects by these maps has 0.41: half would be a finding about sound runs.
"""


@dataclasses.dataclass(frozen=True)
class SpatialShare:
    """`spatial_share` of the predicted class over samples: the median, and what nine of ten samples lie between."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{self.median:.0%} of the predicted class's logit, in the median, is in the cells of its map "
            f"({self.low:.0%} to {self.high:.0%} in nine of ten samples)"
        )

    @property
    def finding(self) -> str:
        """What a reader should know of a share that is small; else nothing."""
        if self.median >= SMALL_SHARE:
            return ""
        return (
            f"maps explain little: in the median {self.median:.0%} of the predicted class's logit is in their cells, "
            f"less than {SMALL_SHARE:.0%}"
        )


def spatial_share(in_cells: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return abs(s) / (abs(s) + abs(o)), s being the mean of a map and o its offset: 0 to 1, whatever their signs."""
    return np.asarray(np.abs(in_cells) / (np.abs(in_cells) + np.abs(offset)))


def spatial_shares(run: Run) -> SpatialShare | None:
    """Return how much of the predictions of a run or a series is in the cells; None where all but the bias is."""
    parts = [_of_run(each) for each in (run.runs if isinstance(run, Series) else [run]) if each.plan.has_offset]
    shares = np.concatenate([np.empty(0), *parts])
    if not len(shares):
        return None
    low, median, high = np.quantile(shares, (0.05, 0.5, 0.95)).tolist()
    return SpatialShare(median, low, high)


def _of_run(run: Run) -> np.ndarray:
    shares, bias = [], run.classifier[1]
    for _, block in run.blocks(("prediction", "cam_class", "logits", OFFSET)):
        ranks = stored_ranks(block["cam_class"], block["prediction"])
        rows = np.flatnonzero(ranks >= 0)
        classes, offset = block["prediction"][rows], block[OFFSET][rows, ranks[rows]]
        # the mean of the map, by the identity
        shares.append(spatial_share(block["logits"][rows, classes] - bias[classes] - offset, offset))
    found = np.concatenate([np.empty(0), *shares])
    return np.asarray(found[np.isfinite(found)])
