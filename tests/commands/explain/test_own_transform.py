"""`--transform` from the command line: the same record as the options that say the same, or a view of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import batchcam
from batchcam.config.shared import Classifier
from batchcam.errors import ConfigError
from batchcam.pictures.originals import State, open_originals
from batchcam.store.opening import open_run
from tests.commands.explain.test_channels import COMPUTE, column, saved, succeed
from tests.data.test_own_transform import picture
from tests.helpers.networks import GapNetwork, seeded
from tests.helpers.synthetic import run_command

SAME = ("--image-size", "40x32", "--resize", 48, "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.25")
HERE = "tests.data.test_own_transform:"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with weights, images, boxes, and the run that options make of them."""
    place = tmp_path_factory.mktemp("place")
    saved(seeded(GapNetwork), place / "gap.pth")
    for number in range(6):
        path = place / "data" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(60 + number, 80, number).save(path)
    (place / "boxes.csv").write_text("path,x0,y0,x1,y1\na/0.png,0,0,40,30\n")
    explain(place, place / "options", *SAME)
    return place


def explain(place: Path, run: Path, *options: object) -> str:
    model = ("--model", "tests.helpers.networks:GapNetwork")
    return succeed("explain", place / "gap.pth", place / "data", *model, *options, *COMPUTE, "--out", run)


def test_a_transform_that_can_be_traced_gives_the_record_of_the_options_that_say_the_same(place, tmp_path):
    told = explain(place, tmp_path / "run", "--transform", f"{HERE}cut")
    assert f"transform: {HERE}cut, as it is; the part of an image that it shows is traced" in told
    for name, tolerance in (("logits", 1e-5), ("cams", 1e-5), ("crop_box", 1), ("image_size", 0), ("input_sha256", 0)):
        np.testing.assert_allclose(column(tmp_path / "run", name), column(place / "options", name), atol=tolerance)
    again = ("--checkpoint", place / "gap.pth", "--data", place / "data", "--device", "cpu", "--recompute", 6)
    again += ("--model", "tests.helpers.networks:GapNetwork")
    succeed("verify", tmp_path / "run", *again, "--transform", f"{HERE}cut")
    for other, message in (
        ((), f"this run was made with --transform {HERE}cut: give it again"),
        (("--transform", f"{HERE}stretched"), "give it again"),
        (SAME, "give it again"),
    ):
        code, _, err = run_command("verify", tmp_path / "run", *again, *other)
        assert (code, message in err) == (2, True)
    code, _, err = run_command("verify", place / "options", *again, "--transform", f"{HERE}cut")
    assert (code, "this run was made without --transform: leave it out" in err) == (2, True)
    succeed("localize", tmp_path / "run", "--annotations", place / "boxes.csv")
    succeed("compare", place / "options", tmp_path / "run", "--max-flips", 0)


def test_another_transform_is_another_run(place, tmp_path):
    plans = []
    for name in ("cut", "stretched"):
        explain(place, tmp_path / name, "--transform", HERE + name)
        with open_run(tmp_path / name) as run:
            plans.append(run.plan)
    assert plans[0].run_id != plans[1].run_id
    assert plans[0].preprocessing["transform_sha256"] == plans[1].preprocessing["transform_sha256"]
    assert plans[0].preprocessing["traced"] is True


def test_maps_of_a_transform_that_can_not_be_traced_are_of_its_own_view(place, tmp_path):
    run, transform = tmp_path / "run", ("--transform", f"{HERE}padded")
    assert "can't be traced: maps are of its own view, pictures show them alone" in explain(place, run, *transform)
    assert column(run, "crop_box").tolist() == [[0, 0, 32, 40]] * 6
    assert column(run, "image_size").tolist() == [[40, 32]] * 6
    with open_run(run) as opened:
        assert open_originals(opened, None).read(opened.sample("a/0.png")).state == State.UNREADABLE
    succeed("verify", run)
    succeed("render", run, "--out", tmp_path / "pictures")
    succeed("report", run, "--out", tmp_path / "report.html")
    again = ("--checkpoint", place / "gap.pth", "--data", place / "data", "--device", "cpu", *transform)
    again += ("--model", "tests.helpers.networks:GapNetwork")
    succeed("faithfulness", run, *again, "--samples", 2, "--steps", 3)
    for command in (("localize", run, "--annotations", place / "boxes.csv"), ("export", run, "--to", "wsol")):
        code, _, err = run_command(*command, "--out", tmp_path / "out")
        assert (code, "can't be traced" in err) == (2, True)


def test_loader_processes_apply_it_too(place, tmp_path):
    words = ("explain", place / "gap.pth", place / "data", "--model", "tests.helpers.networks:GapNetwork")
    words += ("--transform", f"{HERE}cut", "--threads", 1, "--device", "cpu", "-b", 2)
    for processes in (0, 2):
        succeed(*words, "-j", processes, "--out", tmp_path / f"run{processes}")
    shards = [next((tmp_path / f"run{processes}" / "shards").glob("*.h5")).read_bytes() for processes in (0, 2)]
    assert shards[0] == shards[1]


@pytest.mark.parametrize(
    "other", [{"mean": "0.5"}, {"preprocess": "imagenet"}, {"fit": "pad"}, {"image_size": "3"}, {"range": "0,1"}]
)
def test_options_that_say_what_the_transform_does_exclude_it(other: dict[str, str]) -> None:
    (name,) = other
    with pytest.raises(ConfigError, match=f"--transform and --{name.replace('_', '-')} exclude each other"):
        Classifier(Path("a.pth"), transform="a:b", **other)  # type: ignore[arg-type]


def test_a_dataset_of_tensors_has_no_use_for_it(place, tmp_path):
    class Tensors:
        targets = (0, 1, 2)
        classes = ("a", "b", "c")

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(3, 40, 32) + index, index

    with pytest.raises(ConfigError, match="gives tensors, which are taken as they are"):
        batchcam.explain(seeded(GapNetwork), Tensors(), out=tmp_path / "run", transform=f"{HERE}cut", device="cpu")
