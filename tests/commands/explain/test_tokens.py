"""A run of a network of tokens: its record says what of each logit lies in no cell, and an auditor checks it."""

from __future__ import annotations

import hashlib
import html

import numpy as np
import pytest
from PIL import Image

import batchcam
from batchcam.commands.info.info import info
from batchcam.commands.render.config import RenderConfig, Selection
from batchcam.commands.render.render import render
from batchcam.commands.verify.audit import audit
from batchcam.errors import ConfigError, RunError, StoppedEarlyError
from batchcam.job.stop import Stop
from batchcam.pictures import sheet
from batchcam.record import spatial
from batchcam.record.spatial import spatial_share
from tests.helpers.report_pages import write
from tests.network.test_ledger import vision_transformer

OPTIONS = {"image_size": 32, "mean": 0.5, "std": 0.5, "class_names": ["a", "b", "c"], "workers": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for index in range(3):
            Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / name / f"{index}.png")
    (folder / "a" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module", params=["all", "topk:2", "predicted+label", "predicted"])
def run(request, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    batchcam.explain(vision_transformer(), data, out, cams=request.param, **OPTIONS)
    return out


def test_maps_bias_and_offset_add_up_to_the_logits_in_the_record_alone(run):
    assert not batchcam.verify(run).found
    with batchcam.open_run(run) as opened:
        assert opened.plan.has_offset
        readable = opened.prediction[:] >= 0
        classes, bias = opened.cam_class[readable], opened.classifier[1]
        sums = opened.cams[readable].mean((2, 3)) + bias[classes] + opened.offset[readable]
        np.testing.assert_allclose(sums, np.take_along_axis(opened.logits[readable], classes, 1), atol=1e-5)
        assert np.isnan(opened.offset[~readable]).all()


def test_offset_that_is_not_the_networks_is_found(run):
    with batchcam.open_run(run) as opened:
        ((_, block),) = opened.blocks([array.name for array in opened.arrays])
        block = {name: np.char.encode(v.astype(str)) if v.dtype == object else v for name, v in block.items()}
        plan, bias = opened.plan, opened.classifier[1]
    assert not list(audit(block, plan, bias))
    wrong = list(audit({**block, "offset": block["offset"] + np.float32(0.1)}, plan, bias))
    assert {each.rule for each in wrong} == {"identity"}
    blank = np.isnan(block["offset"])
    filled = list(audit({**block, "offset": np.where(blank, np.float32(0), block["offset"])}, plan, bias))
    assert {each.rule for each in filled} == {"status"}


def test_share_of_the_prediction_in_the_cells_is_told(run):
    told = info(run).spatial
    with batchcam.open_run(run) as opened:
        shares = []
        for row in np.flatnonzero(opened.prediction[:] >= 0):
            rank = opened.cam_class[row].tolist().index(opened.prediction[row])
            shares.append(spatial_share(opened.cams[row, rank].mean(), opened.offset[row, rank]))
    assert told.median == pytest.approx(np.median(shares), abs=1e-4)
    assert told.low <= told.median <= told.high


def test_tokens_that_are_not_the_layers_are_refused(data, tmp_path):
    with pytest.raises(batchcam.ModelError, match="no module's output"):
        batchcam.explain(vision_transformer(), data, tmp_path / "run", tokens="3x3+1", **OPTIONS)
    batchcam.explain(vision_transformer(), data, tmp_path / "run", tokens="4x4+1", **OPTIONS)
    with pytest.raises((ConfigError, RunError), match="--tokens 2x8"):
        batchcam.explain(vision_transformer(), data, tmp_path / "run", tokens="2x8+1", **OPTIONS)


@pytest.mark.parametrize("run", ["all"], indirect=True)
def test_share_in_the_cells_stands_in_render_and_report_and_is_a_finding_where_it_is_small(
    run, data, tmp_path, monkeypatch
):
    with batchcam.open_run(run) as opened:
        row = int(np.flatnonzero(opened.prediction[:] >= 0)[0])
        rank = opened.cam_class[row].tolist().index(opened.prediction[row])
        share = float(spatial_share(opened.cams[row, rank].mean(), opened.offset[row, rank]))
        sample = opened.sample_id[row]
    lines: list[str] = []
    monkeypatch.setattr(sheet, "printable", lambda line: lines.append(line) or line)
    render(RenderConfig(run, tmp_path / "rendered", Selection((sample,)), data=str(data), quiet=True))
    assert f"{share:.0%} of this logit is in these cells" in lines
    told = info(run)
    assert str(told.spatial) in html.unescape(write(run, tmp_path / "report.html")[1])
    for limit in (told.spatial.median, np.nextafter(told.spatial.median, 2)):
        monkeypatch.setattr(spatial, "SMALL_SHARE", limit)
        is_small = limit > told.spatial.median
        assert any("maps explain little" in note for note in info(run).notes) == is_small
        assert ("Maps explain little" in write(run, tmp_path / f"{limit}.html")[1]) == is_small


class AfterTwoBatches(Stop):
    """Gives a reason at the third batch."""

    left = 2

    def reason(self) -> str | None:
        self.left -= 1
        return None if self.left >= 0 else "a test"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_run_that_was_stopped_and_resumed_has_the_bytes_of_one_that_was_not(data, tmp_path, precision):
    options = {**OPTIONS, "precision": precision, "batch_size": 2, "shard_size": 3}
    batchcam.explain(vision_transformer(), data, tmp_path / "whole", **options)
    with AfterTwoBatches(), pytest.raises(StoppedEarlyError, match="a test"):
        batchcam.explain(vision_transformer(), data, tmp_path / "resumed", **options)
    assert not (tmp_path / "resumed" / "manifest.json").exists()
    batchcam.explain(vision_transformer(), data, tmp_path / "resumed", **options)
    whole, resumed = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name / "shards").iterdir()}
        for name in ("whole", "resumed")
    )
    assert whole == resumed
    assert not batchcam.verify(tmp_path / "resumed", data=str(data)).found
    summary = batchcam.compare(tmp_path / "whole", tmp_path / "resumed")
    assert summary.totals.flips == 0
    assert summary.totals.spearman == pytest.approx(1)


def test_gradients_of_tokens_are_recorded_at_their_grid_without_an_offset(data, tmp_path):
    batchcam.explain(vision_transformer(), data, tmp_path / "run", method="layercam", tokens="4x4+1", **OPTIONS)
    assert not batchcam.verify(tmp_path / "run").found
    with batchcam.open_run(tmp_path / "run") as opened:
        assert opened.plan.target_layer == "tokens(encoder.layers.encoder_layer_2.ln_1, 4x4+1)"
        assert opened.cams.shape[2:] == (4, 4)
        assert not opened.plan.has_offset
