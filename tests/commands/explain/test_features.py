"""--features: what the classifier takes stands in the record, and an auditor multiplies it out again."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
from PIL import Image

import batchcam
from batchcam.errors import ConfigError, RunError
from batchcam.store.plan import read_plan
from tests.helpers.damage import edited
from tests.helpers.networks import GapNetwork, seeded
from tests.network.test_ledger import vision_transformer

OPTIONS = {"image_size": 32, "mean": 0.5, "std": 0.5, "class_names": ["a", "b", "c"], "workers": 0, "quiet": True}
NETWORKS = {"convolutions": lambda: seeded(GapNetwork, 0), "class token": vision_transformer}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for index in range(6):
            Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / name / f"{index}.png")
    (folder / "a" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_features_bias_and_weight_in_the_record_alone_give_the_logits(network, kind, data, tmp_path):
    batchcam.explain(network, data, tmp_path / "run", features=kind, shard_size=8, **OPTIONS)
    assert not batchcam.verify(tmp_path / "run", data=str(data)).found
    for path in sorted((tmp_path / "run" / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            names = ("features", "classifier/weight", "classifier/bias", "logits", "status")
            features, weight, bias, logits, status = (file[name][...] for name in names)
        assert features.dtype == kind
        for f, row, flags in zip(features.tolist(), logits, status, strict=True):
            if flags & 1:
                assert np.isnan(f).all()
                continue
            for k in range(3):
                terms = [float(w) * x for w, x in zip(weight[k], f, strict=True)]
                rounding = 2.0**-11 * sum(map(abs, terms)) if kind == "float16" else 0
                assert abs(sum(terms) + float(bias[k]) - row[k]) <= 1e-5 * max(1, abs(row).max()) + rounding


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_a_feature_that_was_changed_is_found_by_its_sample(kind, data, tmp_path):
    run = tmp_path / "run"
    batchcam.explain(NETWORKS["convolutions"](), data, run, features=kind, shard_size=8, **OPTIONS)
    with edited(run) as file:
        weight = file["classifier/weight"][...]
        file["features"][3, int(abs(weight).max(0).argmax())] += 0.5
    (found,) = batchcam.verify(run).found
    assert (found.kind, found.array, found.rows, found.first_sample) == ("identity", "features", 1, 11)


def test_a_run_without_features_has_no_word_of_them_and_the_shards_of_before(data, tmp_path):
    for name, kind in (("without", None), ("none", "none"), ("with", "float16")):
        batchcam.explain(NETWORKS["convolutions"](), data, tmp_path / name, features=kind, **OPTIONS)
    without, none, with_ = (tmp_path / name for name in ("without", "none", "with"))
    shard = "shards/shard-00000.h5"
    assert (without / shard).read_bytes() == (none / shard).read_bytes()
    assert "features" not in json.loads((without / "run.json").read_bytes())["plan"]
    assert read_plan(with_).run_id != read_plan(without).run_id
    with h5py.File(with_ / shard) as one, h5py.File(without / shard) as other:
        assert set(one) - set(other) == {"features"}
    with batchcam.open_run(without) as run, pytest.raises(AttributeError, match="--features"):
        run.features  # noqa: B018


def test_readers_hand_features_out_by_array_sample_and_block(data, tmp_path):
    run = tmp_path / "run"
    batchcam.explain(NETWORKS["convolutions"](), data, run, features="float16", shard_size=8, **OPTIONS)
    with h5py.File(run / "run.h5") as file:
        assert file["features"].is_virtual
        stored = file["features"][...]
    with batchcam.open_run(run) as opened:
        np.testing.assert_array_equal(opened.features[:], stored)
        np.testing.assert_array_equal(opened[9].features, stored[9])
        blocks = [block["features"] for _, block in opened.blocks(("features",))]
        np.testing.assert_array_equal(np.concatenate(blocks), stored)


@pytest.mark.parametrize(
    "more", [{"method": "layercam"}, {"identity": False, "target_layer": "body"}], ids=["gradients", "waived"]
)
def test_features_are_refused_where_no_logits_follow_from_them(more, data, tmp_path):
    with pytest.raises(ConfigError, match="--features float16: takes --method cam"):
        batchcam.explain(NETWORKS["convolutions"](), data, tmp_path / "run", features="float16", **more, **OPTIONS)


def test_features_too_large_for_float16_are_refused_instead_of_recorded(data, tmp_path):
    network = NETWORKS["convolutions"]()
    network.body[0].weight.data *= 1e7
    network.head.weight.data /= 1e7
    with pytest.raises(batchcam.ModelError, match="features as float16 do not give the logits"):
        batchcam.explain(network, data, tmp_path / "run", features="float16", **OPTIONS)
    batchcam.explain(network, data, tmp_path / "large", features="float32", **OPTIONS)
    assert not batchcam.verify(tmp_path / "large").found


def test_a_run_goes_on_with_the_features_that_it_was_planned_with(data, tmp_path):
    run = tmp_path / "run"
    batchcam.explain(NETWORKS["convolutions"](), data, run, features="float16", shard_size=8, **OPTIONS)
    (run / "shards" / "shard-00001.h5").unlink()
    with pytest.raises(RunError, match="features"):
        batchcam.explain(NETWORKS["convolutions"](), data, run, features="float32", **OPTIONS)
    batchcam.explain(NETWORKS["convolutions"](), data, run, **OPTIONS)
    assert not batchcam.verify(run).found


def test_a_plan_with_features_claims_the_identity(make_plan):
    plan = make_plan(features="float16")
    with pytest.raises(ValueError, match="features of the plan"):
        type(plan).from_dict({**plan.to_dict(), "identity": False})
    assert "features" not in {array.name for array in dataclasses.replace(plan, features="").arrays}
