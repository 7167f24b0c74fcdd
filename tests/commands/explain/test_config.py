"""What `explain` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchcam.commands.explain.config import ExplainConfig
from batchcam.config.shared import Classifier
from batchcam.errors import ConfigError
from batchcam.rules import CamSelection


def config(**changes: Any) -> ExplainConfig:
    return ExplainConfig(Classifier(Path("a.pth")), "data", Path("out"), **changes)


def test_texts_are_parsed_when_the_config_is_built():
    asked = ExplainConfig(Classifier("a.pth"), "data", "out", cams="topk:3", time_limit_s="2h")  # type: ignore[arg-type]
    assert (asked.classifier.checkpoint, asked.out) == (Path("a.pth"), Path("out"))
    assert (asked.cams, asked.time_limit_s) == (CamSelection("topk:3", 3), 7200)
    assert asked == config(cams=CamSelection.parse("topk:3"), time_limit_s=7200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard_size": 0}, "--shard-size 0: must be from 1 to"),
        ({"shard_size": 10**12}, "--shard-size 1000000000000: must be from 1 to"),
        ({"method": "lime"}, "--method lime: choose one of cam, gradcam"),
        ({"control": "all"}, "--control all: choose one of none, head, weights"),
        ({"maps": "png"}, "--maps png: choose one of uint8, float32, none"),
        (
            {"cams": "topk:0"},
            "--cams 'topk:0': choose one of all, predicted, predicted\\+label, positive, topk:N with N from 1",
        ),
        ({"time_limit_s": "soon"}, "--time-limit 'soon': expected seconds"),
        ({"time_limit_s": -1}, "--time-limit -1: must be from 0"),
    ],
)
def test_what_can_not_be_meant_is_refused_at_once(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        config(**change)
