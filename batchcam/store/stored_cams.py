"""One class's CAM among those that a run stores for each sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def stored_ranks(cam_class: np.ndarray | None, classes: np.ndarray) -> np.ndarray:
    """Return at which rank each sample has the CAM of its class, int64 (n,); -1 where it has none.

    Args:
        cam_class: class index of each stored CAM, -1: none, (n, M); None: those of all classes, in their order.
        classes: class index for each sample, -1: none, (n,).
    """
    if cam_class is None:
        return np.asarray(np.maximum(classes, -1))
    match = (cam_class == classes[:, None]) & (classes >= 0)[:, None]
    return np.where(match.any(1), match.argmax(1), -1)


def picked_cams(cams: np.ndarray, cam_class: np.ndarray | None, classes: np.ndarray) -> np.ndarray:
    """Return the raw CAM of one class for each sample, float32 (n, h, w); NaN where none is stored.

    Args:
        cams: raw CAMs, float32 (n, M, h, w).
        cam_class: as `stored_ranks` takes it.
        classes: class index for each sample, -1: none, (n,).
    """
    ranks = stored_ranks(cam_class, classes)
    picked: np.ndarray = cams[np.arange(len(ranks)), ranks]
    picked[ranks < 0] = np.nan
    return picked


def predicted_cams(block: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return `picked_cams` of the predicted classes, from arrays of the schema by name."""
    return picked_cams(block["cams"], block["cam_class"], block["prediction"])


def stored_cam(cams: np.ndarray, cam_class: np.ndarray, class_: int) -> np.ndarray | None:
    """Return the raw CAM (h, w) of one class among one sample's (M, h, w), None where it is not stored."""
    rank = int(stored_ranks(cam_class[None], np.array([class_]))[0])
    return None if rank < 0 else np.asarray(cams[rank])
