"""Planning: an option counts, else the run that is there, else the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.planning import Settings
from batchcam.config.shared import Classifier, Compute
from batchcam.rules import CamSelection

GIVEN = {"method": "layercam", "control": "head", "cams": "predicted+label", "maps": "none", "shard_size": 7}
COMPUTED = {"precision": "bf16", "batch_size": 3, "engine": "torch"}
THERE = {"method": "gradcam", "control": "weights", "cams": "topk:2", "maps": "float32", "shard_size": 10}
THERE_COMPUTED = {"precision": "tf32", "batch_size": 5, "engine": "openvino"}


def config(compute: dict[str, object], **options: object) -> ExplainConfig:
    return ExplainConfig(Classifier(Path("c.pth")), "data", Path("run"), Compute(**compute), **options)


@pytest.mark.parametrize("name", [*GIVEN, *COMPUTED])
def test_an_option_counts_and_what_is_left_open_is_the_runs(make_plan, name: str) -> None:
    existing = make_plan(identity=False, schema_version=1, **THERE, **THERE_COMPUTED)
    compute, options = ({k: v for k, v in known.items() if k == name} for known in (COMPUTED, GIVEN))
    settings = vars(Settings.of(config(compute, **options), existing))
    kept = {**THERE, **THERE_COMPUTED, "schema_version": 1, "features": "", "meta": ()}
    assert {**settings, "cams": str(settings["cams"])} == {**kept, **compute, **options}


@pytest.mark.parametrize(("method", "cams"), [(None, "all"), ("cam", "all"), ("hirescam", "predicted")])
def test_a_first_run_takes_defaults_and_a_backward_pass_for_one_class_only(method: str | None, cams: str) -> None:
    settings = Settings.of(config({}, method=method), None)
    assert settings == Settings(
        "auto", "fp32", method or "cam", "none", settings.batch_size, None, CamSelection(cams), "uint8", "", 2, None
    )
