"""An insider who knows this code changes a run and makes every digest anew: verify ends with 3 and says what."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import DatasetError
from batchcam.store.document import DIGEST_KEY, seal
from batchcam.store.plan import Plan, dataset_fingerprint, read_plan, shard_table
from batchcam.store.samples import list_image
from tests.helpers.damage import make_digests_right

torch = pytest.importorskip("torch")

from batchcam.commands.explain.config import ExplainConfig  # noqa: E402
from batchcam.commands.explain.explain import explain  # noqa: E402
from batchcam.config.shared import Classifier, Compute  # noqa: E402
from tests.helpers.networks import GapNetwork  # noqa: E402

CLASSES = ("ant", "bee", "cat")
COUNT = 21  # what tests.helpers.damage copies into run.h5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of unlike sizes, a network's checkpoint, and the run over them, made once."""
    folder, rng = tmp_path_factory.mktemp("insider"), np.random.default_rng(3)
    for i in range(COUNT):
        path = folder / "images" / CLASSES[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    torch.manual_seed(3)
    torch.save(GapNetwork().state_dict(), folder / "network.pth")
    config = ExplainConfig(
        classifier(folder), folder / "images", folder / "run", Compute(workers=0, threads=1, device="cpu"),
        shard_size=8, quiet=True,
    )  # fmt: skip
    explain(config)
    return folder


def classifier(folder: Path) -> Classifier:
    model = "tests.helpers.networks:GapNetwork"
    return Classifier(folder / "network.pth", model=model, image_size="16", resize="18", mean="0.5", std="0.5")


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world / "run", tmp_path / "run"))


def change(run: Path, edit: Callable[[dict[str, np.ndarray]], None], *names: str) -> None:
    """Change columns of all shards; make digests, run.h5 and manifest anew."""
    shards = sorted((run / "shards").glob("*.h5"))
    columns: dict[str, Any] = {}
    for name in names:
        parts = []
        for path in shards:
            with h5py.File(path) as file:
                parts.append(file[name][...])
        columns[name] = np.concatenate(parts)
    edit(columns)
    first = 0
    for path in shards:
        with h5py.File(path, "r+") as file:
            stop = first + len(file["label"])
            for name in names:
                file[name][...] = columns[name][first:stop]
            first = stop
    make_digests_right(run)


def labels_of_mistakes_become_the_predictions(columns: dict[str, np.ndarray]) -> None:
    assert (columns["label"] != columns["prediction"]).any()
    columns["label"][:] = columns["prediction"]


def ids_change_places(columns: dict[str, np.ndarray]) -> None:
    columns["sample_id"][[2, 11]] = columns["sample_id"][[11, 2]]


def rows_change_names_and_labels(columns: dict[str, np.ndarray]) -> None:
    for name in ("sample_id", "label", "input_bytes"):
        columns[name][[0, 1]] = columns[name][[1, 0]]


def files_change_sizes(columns: dict[str, np.ndarray]) -> None:
    columns["input_bytes"][5] += 1


def a_label_is_withheld(columns: dict[str, np.ndarray]) -> None:
    columns["label"][columns["label"] != columns["prediction"]] = -1


def boxes_move(columns: dict[str, np.ndarray]) -> None:
    columns["crop_box"][4] += 1


def images_change_sizes(columns: dict[str, np.ndarray]) -> None:
    columns["image_size"][4] *= 2


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (labels_of_mistakes_become_the_predictions, ("label", "prediction")),
        (ids_change_places, ("sample_id",)),
        (rows_change_names_and_labels, ("sample_id", "label", "input_bytes")),
        (files_change_sizes, ("input_bytes",)),
        (a_label_is_withheld, ("label", "prediction")),
    ],
)
def test_what_the_dataset_is_said_to_be_follows_from_the_run_id(run: Path, run_cli, edit, names) -> None:
    change(run, edit, *names)
    code, stdout, _ = run_cli("verify", run, "--quiet")
    assert code == 3
    *of_list, of_rows = [line for line in stdout.splitlines() if line.startswith("dataset: ")]
    assert of_rows.startswith("dataset: shards: sample ids, labels, sizes")
    assert of_list
    assert {line.split(":")[2] for line in of_list} <= set(names)
    assert f"{len(of_list) + 1} findings;" in stdout


def recomputed(world: Path, run: Path, data: Path | None = None, count: int = COUNT) -> list[tuple[str, str, Any, Any]]:
    again = VerifyConfig(run, count, classifier(world), data or world / "images", device="cpu", quiet=True)
    return [(f.kind.value, f.file, f.array, f.rows) for f in verify(again, confine=False).found]


def test_an_untouched_run_agrees_with_its_dataset(world: Path, run: Path) -> None:
    assert recomputed(world, run) == []


@pytest.mark.parametrize(("edit", "array"), [(boxes_move, "crop_box"), (images_change_sizes, "image_size")])
def test_views_and_sizes_are_compared_with_the_images(world: Path, run: Path, edit, array: str) -> None:
    change(run, edit, array)
    assert recomputed(world, run) == [("recomputed", "shards/shard-00000.h5", array, 1)]


def forge_the_plan(run: Path, **changes: Any) -> None:
    """Make plan, run id, every attribute and all digests anew, so that nothing in the run contradicts anything."""
    content = json.loads((run / "run.json").read_bytes())
    del content[DIGEST_KEY]
    plan = Plan.from_dict({**content["plan"], **changes})
    with h5py.File(run / "run.h5") as file:
        columns = {name: file[name][...] for name in ("label", "input_bytes")}
        image = list_image(plan, {**columns, "sample_id": [i.decode() for i in file["sample_id"][...]]})
    (run / "samples.h5").write_bytes(image)
    listed = {**content["samples"], "bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()}
    blocks = {"bytes": len(image), "sha256": [listed["sha256"]]}
    changed = {"plan": plan.to_dict(), "run_id": plan.run_id, "shards": shard_table(plan), "samples": listed}
    changed["sample_blocks"] = blocks
    (run / "run.json").write_bytes(seal({**content, **changed}))
    for path in (*(run / "shards").glob("*.h5"), run / "run.h5"):
        with h5py.File(path, "r+") as file:
            for name in ("run_id", "dataset_fingerprint"):
                file.attrs.modify(name, np.bytes_(getattr(plan, name)))
            del file["config"]
            text = plan.config_text().encode()
            file.create_dataset("config", data=np.array(text).astype(h5py.string_dtype("utf-8", len(text))))
            names = [n.encode() for n in plan.class_names]
            file["class_name"][...] = names
    manifest = json.loads((run / "manifest.json").read_bytes())
    del manifest[DIGEST_KEY]
    (run / "manifest.json").write_bytes(seal({**manifest, "run_id": plan.run_id, "samples": listed}))
    make_digests_right(run)


def fingerprint_of(run: Path) -> str:
    with h5py.File(run / "run.h5") as file:
        ids = [i.decode() for i in file["sample_id"][...]]
        return dataset_fingerprint(ids, file["label"][...].tolist(), file["input_bytes"][...].tolist())


def test_a_forged_plan_is_found_by_what_lies_elsewhere(world: Path, run: Path, run_cli) -> None:
    noted = verify(VerifyConfig(run, quiet=True), confine=False).manifest_sha256
    change(run, labels_of_mistakes_become_the_predictions, "label", "prediction")
    forge_the_plan(run, dataset_fingerprint=fingerprint_of(run))
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []
    found = recomputed(world, run, count=1)
    assert {f[:3] for f in found} >= {("dataset", "shards/shard-00000.h5", "label")}
    code, stdout, _ = run_cli("verify", run, "--quiet", "--manifest-sha256", noted)
    assert (code, "other-manifest: manifest.json: SHA-256 is" in stdout) == (3, True)


def test_class_names_that_were_exchanged_are_told(world: Path, run: Path, tmp_path: Path) -> None:
    forge_the_plan(run, class_names=("bee", "ant", "cat"))
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []
    assert ("dataset", "shards/shard-00000.h5", "label", 8) in recomputed(world, run)  # matched by the folders' names
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES))
    said = dataclasses.replace(classifier(world), class_names=names)
    found = verify(VerifyConfig(run, 1, said, world / "images", device="cpu", quiet=True), confine=False).found
    assert ("run.json", "class_name") in [(f.file, f.array) for f in found]


def test_a_dataset_with_fewer_files_is_a_finding_and_another_one_is_refused(
    world: Path, run: Path, tmp_path: Path
) -> None:
    fewer = Path(shutil.copytree(world / "images", tmp_path / "fewer"))
    next((fewer / "ant").iterdir()).unlink()
    again = VerifyConfig(run, 3, classifier(world), fewer, device="cpu", quiet=True)
    summary = verify(again, confine=False)
    gone = summary.found[0]
    assert (gone.kind.value, gone.file, gone.array, gone.rows) == ("dataset", "shards/shard-00000.h5", "sample_id", 1)
    assert {f.kind.value for f in summary.found[1:]} <= {"input-changed"}
    assert summary.recomputed == 3
    other = tmp_path / "other"
    for name in CLASSES:
        (other / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(other / name / "x.png")
    with pytest.raises(DatasetError, match="not the dataset of this run: it has none of its 21 samples"):
        verify(dataclasses.replace(again, data=str(other)))


def test_a_file_of_another_size_is_told_by_its_row(world: Path, run: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(world / "images", tmp_path / "data"))
    Image.new("RGB", (9, 9)).save(data / "bee" / "01.png")
    found = recomputed(world, run, data)
    assert sorted(f[0] for f in found) == ["dataset", "input-changed"]
    assert read_plan(run).sample_count == COUNT
