"""One set of images gives the same record however it lies; every command that takes DATA takes every kind."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.evaluate.evaluate import evaluate
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import DatasetError
from batchcam.pictures.originals import State, open_originals
from batchcam.store.opening import open_run
from tests.helpers import places
from tests.helpers.networks import GapNetwork, seeded
from tests.helpers.places import CLASSES, IMAGES, WRITERS
from tests.helpers.servers import SHELVES, in_memory, web_server
from tests.helpers.synthetic import run_command

pytest.importorskip("pyarrow")

WRITTEN = pytest.mark.parametrize("write", WRITERS, ids=[writer.__name__ for writer in WRITERS])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Classifier:
    place = tmp_path_factory.mktemp("weights")
    torch.save(seeded(GapNetwork).state_dict(), place / "model.pth")
    model = "tests.helpers.networks:GapNetwork"
    return Classifier(place / "model.pth", model=model, class_names=CLASSES, preprocess="stl10", image_size="16")


def config(classifier: Classifier, data: str, out: Path, **changes: Any) -> ExplainConfig:
    compute = Compute(batch_size=2, workers=changes.pop("workers", 0), threads=1, device="cpu")
    return ExplainConfig(classifier, data, out, compute=compute, shard_size=2, **{"quiet": True, **changes})


def columns(run: Path, *names: str) -> list[np.ndarray]:
    with h5py.File(run / "run.h5") as file:
        return [file[name][...] for name in names]


@pytest.fixture(scope="module")
def reference(classifier, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("reference")
    explain(config(classifier, places.folder(place), place / "run"))
    return place / "run"


@WRITTEN
def test_the_same_images_give_the_same_record_and_are_drawn(write, classifier, reference, tmp_path):
    data = write(tmp_path)
    summary = explain(config(classifier, data, tmp_path / "run"))
    assert (summary.complete, summary.unreadable) == (True, 0)
    names = ("input_sha256", "label", "logits", "cams", "maps", "status")
    for name, ours, theirs in zip(names, columns(tmp_path / "run", *names), columns(reference, *names), strict=True):
        np.testing.assert_array_equal(ours, theirs, name)
    assert verify(VerifyConfig(tmp_path / "run", quiet=True), confine=False).found == []
    run = open_run(tmp_path / "run")
    for given in (None, data):
        originals = open_originals(run, given)
        assert [originals.read(sample).state for sample in run] == [State.FOUND] * len(IMAGES)


@pytest.mark.parametrize("shelf", SHELVES, ids=[shelf.__name__ for shelf in SHELVES])
@pytest.mark.parametrize("write", [w for w in WRITERS if w is not places.saved], ids=lambda writer: writer.__name__)
def test_behind_a_url_the_same_images_give_the_same_record(write, shelf, classifier, reference, tmp_path):
    (tmp_path / "shelf").mkdir()
    with shelf(tmp_path / "shelf") as put:
        written = write(tmp_path / "shelf")
        data = written.replace(str(tmp_path / "shelf"), put())
        assert explain(config(classifier, data, tmp_path / "run")).unreadable == 0
        names = ("input_sha256", "label", "logits", "cams")
        for ours, theirs in zip(columns(tmp_path / "run", *names), columns(reference, *names), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        if (write, shelf) == (places.folder, in_memory):  # which tells sizes
            assert open_run(tmp_path / "run").plan.run_id == open_run(reference).plan.run_id
        run = open_run(tmp_path / "run")
        assert re.search(r"say --data \S+$", open_originals(run, None).read(run[0]).reason)
        originals = open_originals(run, data)
        assert [originals.read(sample).state for sample in run] == [State.FOUND] * len(IMAGES)


@pytest.mark.parametrize("shelf", [s for s in SHELVES if s is not in_memory], ids=lambda shelf: shelf.__name__)
@pytest.mark.parametrize("write", [places.folder, places.zip_of, places.hub], ids=lambda writer: writer.__name__)
def test_loader_processes_finish_what_was_begun_behind_a_url(write, shelf, classifier, tmp_path):
    (tmp_path / "shelf").mkdir()
    with shelf(tmp_path / "shelf") as put:
        data = write(tmp_path / "shelf").replace(str(tmp_path / "shelf"), put())
        explain(config(classifier, data, tmp_path / "whole"))
        explain(config(classifier, data, tmp_path / "run", task="0/3", share_only=True))
        assert explain(config(classifier, data, tmp_path / "run", workers=2)).complete
    for shard in sorted((tmp_path / "whole" / "shards").iterdir()):
        assert (tmp_path / "run" / "shards" / shard.name).read_bytes() == shard.read_bytes()


def test_passwords_and_signatures_of_urls_never_reach_the_record(classifier, tmp_path, capsys):
    places.folder(tmp_path)
    with web_server(tmp_path) as server:
        urls = [f"{server.url}/photos/{name}?X-Amz-Signature=s3cr3t" for name in IMAGES]
        rows = [f"{url},{places.label_of(name)}\n" for url, name in zip(urls, IMAGES, strict=True)]
        (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
        data = f"{server.url.replace('://', '://me:s3cr3t@')}/list.csv?sig=s3cr3t"
        explain(config(classifier, data, tmp_path / "run", task="0/3", share_only=True, quiet=False))
        assert "6 URLs are recorded without their passwords or signatures" in capsys.readouterr().err
        assert explain(config(classifier, data, tmp_path / "run")).unreadable == 0
        assert next(iter(open_run(tmp_path / "run"))).id == f"{server.url}/photos/ant/00.png"
    for file in (tmp_path / "run").rglob("*.*"):
        assert b"s3cr3t" not in file.read_bytes(), file


class Numbered:
    """A dataset of the user's own code, without ids."""

    targets = tuple(CLASSES.index(places.label_of(name)) for name in IMAGES)

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return Image.open(io.BytesIO([*IMAGES.values()][index])), self.targets[index]


class Told(Numbered):
    """One whose items tell their ids."""

    targets = None

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        name = [*IMAGES][index]
        image = torch.from_numpy(np.asarray(Image.open(io.BytesIO(IMAGES[name]))).copy()).permute(2, 0, 1)
        return image, CLASSES.index(places.label_of(name)), name


class Named(Numbered):
    """One that lists its ids."""

    sample_ids = (*IMAGES,)


@pytest.mark.parametrize(
    "data", [f"python:{__name__}:{kind.__name__}" for kind in (Numbered, Told, Named)] + ["torchvision"]
)
def test_every_picture_shows_what_code_gives_where_the_user_names_it(data, classifier, tmp_path):
    data = f"torchvision:ImageFolder:{places.folder(tmp_path)}" if data == "torchvision" else data
    run = tmp_path / "run"
    assert explain(config(classifier, data, run)).complete
    lacking = re.compile("missing|not found|not at hand")
    for words, name in ((["render"], "{}.png"), (["report"], "{}.html"), (["export", "--to", "png"], "{}")):
        code, out, err = run_command(*words, run, "--data", data, "--out", tmp_path / name.format("of-data"))
        assert (code, lacking.search(out + err)) == (0, None), out + err
        code, out, err = run_command(*words, run, "--out", tmp_path / name.format("of-run"))
        assert code == 0, out + err
        assert lacking.search(out + err), words


def test_an_item_that_is_another_now_is_not_shown(classifier, tmp_path, monkeypatch):
    data = f"python:{__name__}:Numbered"
    explain(config(classifier, data, tmp_path / "run"))
    run = open_run(tmp_path / "run")
    monkeypatch.setattr(Numbered, "__getitem__", lambda self, index: (Image.new("RGB", (16, 16)), 0))
    assert open_originals(run, data).read(run[0]).state is State.CHANGED
    monkeypatch.setattr(Numbered, "__getitem__", lambda self, index: [][index])
    original = open_originals(run, data).read(run[0])
    assert original.reason == "the dataset does not give it: IndexError: list index out of range"


@pytest.mark.parametrize("write", [places.tar, places.zip_of])
def test_an_archive_of_a_folder_is_the_same_run_as_the_folder(write, classifier, reference, tmp_path):
    explain(config(classifier, write(tmp_path), tmp_path / "run"))
    plans = [json.loads((run / "run.json").read_text()) for run in (reference, tmp_path / "run")]
    assert plans[0]["run_id"] == plans[1]["run_id"]


@pytest.mark.parametrize("write", [places.tar, places.zip_of, places.hub, places.saved])
def test_a_run_that_was_interrupted_is_finished_by_processes_as_it_was_planned(write, classifier, tmp_path):
    data = write(tmp_path)
    explain(config(classifier, data, tmp_path / "whole"))
    explain(config(classifier, data, tmp_path / "run", task="0/3", share_only=True))
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert explain(config(classifier, data, tmp_path / "run", workers=2)).complete
    for shard in sorted((tmp_path / "whole" / "shards").iterdir()):
        assert (tmp_path / "run" / "shards" / shard.name).read_bytes() == shard.read_bytes()


def test_evaluate_takes_the_same_data(classifier, tmp_path):
    compute = Compute(batch_size=2, workers=0, threads=1, device="cpu")
    found = []
    for write in (places.folder, places.tar, places.saved):
        summary = evaluate(EvaluateConfig(classifier, write(tmp_path), compute=compute, quiet=True))
        found.append((summary.samples, summary.accuracy))
    assert found == [found[0]] * 3


def test_how_a_manifest_is_meant_is_planned_and_need_not_be_said_again(classifier, tmp_path):
    places.folder(tmp_path)
    rows = [f"{name.removesuffix('.png')},{places.label_of(name)}\n" for name in IMAGES]
    (tmp_path / "list.csv").write_text("image_id,dx\n" + "".join(rows))
    said = dataclasses.replace(
        classifier, columns="path=image_id,label=dx", root=tmp_path / "x" / ".." / "photos", suffix=".png"
    )
    data, run = str(tmp_path / "list.csv"), tmp_path / "run"
    explain(config(said, data, run, task="0/3", share_only=True))
    with pytest.raises(DatasetError, match="planned with other --columns, --root or --suffix: leave them out"):
        explain(config(dataclasses.replace(said, suffix=".jpg"), data, run))
    (tmp_path / "list.csv").write_text("image_id,dx\n" + "".join(rows) + "ant/99,ant\n")
    assert explain(config(classifier, data, run)).complete
    assert all(sample.status == 0 for sample in open_run(run))
    assert open_originals(open_run(run), None).read(open_run(run)[0]).state is State.FOUND
