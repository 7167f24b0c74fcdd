"""Labels that the network's own confidence speaks against: confident learning, https://arxiv.org/abs/1911.00068."""

from __future__ import annotations

import numpy as np

from batchcam.store.run import Run


def class_confidences(run: Run) -> np.ndarray:
    """Return how sure the network is of each class, on average over the samples labelled so, float64 (K,).

    NaN of a class that no sample is labelled as.
    """
    count = len(run.class_names)
    sums, samples = np.zeros(count), np.zeros(count)
    for _, block in run.blocks(("label", "logits")):
        known = (block["label"] >= 0) & np.isfinite(block["logits"]).all(1)
        labels = block["label"][known]
        own = _softmax(block["logits"][known])[np.arange(len(labels)), labels]
        sums += np.bincount(labels, own, count)
        samples += np.bincount(labels, minlength=count)
    return np.where(samples > 0, sums / np.maximum(samples, 1), np.nan)


def label_suspicion(logits: np.ndarray, labels: np.ndarray, usual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much speaks against each label, float64 (n,), and the class that is meant instead, int64 (n,).

    Confidence counts as above or below the class's usual one: 0.5 is where label and the strongest other class are
    equal, 1 is most suspect; NaN without a label. A class is meant where it is stronger than the label, and at least as
    sure as usual; -1 otherwise.

    Args:
        logits: (n, K), at least two classes.
        labels: (n,), -1 where not known.
        usual: what `class_confidences` returns.
    """
    known = (labels >= 0) & np.isfinite(logits).all(1)
    above = _softmax(np.where(known[:, None], logits, 0)) - usual
    rows, safe = np.arange(len(labels)), np.maximum(labels, 0)
    own = above[rows, safe]
    others = np.where(np.isnan(above), -1.0, above)
    others[rows, safe] = -np.inf
    strongest = others.argmax(1)
    other = others[rows, strongest]
    suspicion = np.where(known, (2 + other - own) / 4, np.nan)
    return suspicion, np.where(known & (other > own) & (other >= 0), strongest, -1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares
