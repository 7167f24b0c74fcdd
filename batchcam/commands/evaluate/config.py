"""What `evaluate` is asked."""

from __future__ import annotations

from batchcam.config.options import argument
from batchcam.config.shared import Classifier, Compute, LabelledConfig, clustering, confidence, grouping


class EvaluateConfig(LabelledConfig):
    """Everything that `evaluate` is asked."""

    classifier: Classifier = argument("CKPT")
    data: str = argument()
    compute: Compute = Compute()
    group_by: tuple[str, ...] = grouping()
    confidence: float = confidence()
    cluster: str | None = clustering()
