"""What `evaluate` is asked."""

from __future__ import annotations

from batchcam.config import Classifier, Compute, LabelledConfig, argument, clustering, confidence, grouping


class EvaluateConfig(LabelledConfig):
    """Everything that `evaluate` is asked."""

    classifier: Classifier = argument("CKPT")
    data: str = argument()
    compute: Compute = Compute()
    group_by: tuple[str, ...] = grouping()
    confidence: float = confidence()
    cluster: str | None = clustering()
