"""A run is finished as it was planned, whatever becomes of its dataset meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from batchcam.commands.explain import explain as explain_module
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.explain.listing import read_listing, unwritten, written
from batchcam.commands.merge import merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.data import sources
from batchcam.errors import DatasetError, RunError
from batchcam.store.opening import open_run
from batchcam.store.plan import read_plan
from tests.helpers.damage import edit_document, flip, forget_list
from tests.helpers.networks import GapNetwork, seeded

SIDE = 16
SHARD_SIZE = 4
CLASSES = ("ant", "bee", "cat")
PLANNED = 12


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Classifier:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(seeded(GapNetwork).state_dict(), folder / "model.pth")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    model = "tests.helpers.networks:GapNetwork"
    return Classifier(
        folder / "model.pth", model=model, class_names=folder / "names.txt", preprocess="stl10", image_size=str(SIDE)
    )


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(PLANNED):
        draw(tmp_path / "photos" / CLASSES[number % 3] / f"{number:02d}.png", number)
    return tmp_path / "photos"


def config(classifier: Classifier, data: Path | str, out: Path, **changes: Any) -> ExplainConfig:
    compute = Compute(batch_size=2, workers=0, threads=1, device="cpu")
    settings = {"compute": compute, "shard_size": SHARD_SIZE, "quiet": True, **changes}
    return ExplainConfig(classifier, str(data), out, **settings)


def columns(run: Path) -> dict[str, list[Any]]:
    with h5py.File(run / "run.h5") as file:
        texts = {name: file[name].asstr()[...].tolist() for name in ("sample_id", "error")}
        return texts | {name: file[name][...].tolist() for name in ("label", "input_bytes", "status")}


def shards(run: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((run / "shards").glob("*.h5"))}


def found(run: Path) -> list[tuple[str, str]]:
    return [(f.kind.value, f.file) for f in verify(VerifyConfig(run, quiet=True), confine=False).found]


def test_a_run_is_finished_as_planned_although_files_came_changed_and_went(classifier, photos, tmp_path, capsys):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    explain(config(classifier, photos, undisturbed))
    explain(config(classifier, photos, run, task="0/3"))
    planned = columns(undisturbed)
    draw(photos / "ant" / "00a.png", 50)  # first of all in the order of names
    draw(photos / "dog" / "90.png", 51)  # a class that the network does not have
    (photos / "cat" / "11.png").unlink()
    (photos / "cat" / "08.png").write_bytes(b"half")
    assert explain(config(classifier, photos, run, quiet=False)).complete
    told = capsys.readouterr().err
    assert "2 files came since: the next run explains them" in told
    assert "1 file gone from the dataset since" in told
    assert "1 file changed since" in told
    assert "labels were not compared: " in told  # a dog is no class
    seen = columns(run)
    size = dict(zip(planned["sample_id"], planned["input_bytes"], strict=True))["cat/08.png"]
    reasons = {"cat/11.png": "is gone", "cat/08.png": f"was changed: 4 bytes, planned {size}"}
    assert {i: e for i, e in zip(seen["sample_id"], seen["error"], strict=True) if e} == reasons
    assert [seen[name] for name in ("sample_id", "label", "input_bytes")] == [
        planned[name] for name in ("sample_id", "label", "input_bytes")
    ]
    same = [name for name, digest in shards(undisturbed).items() if shards(run)[name] == digest]
    assert same == ["shard-00000.h5", "shard-00001.h5"]
    assert found(run) == []


def test_what_went_and_came_back_is_explained_as_planned(classifier, photos, tmp_path):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    explain(config(classifier, photos, undisturbed))
    explain(config(classifier, photos, run, task="0/3"))
    away = (photos / "cat" / "11.png").rename(tmp_path / "11.png")
    assert explain(config(classifier, photos, run)).unreadable == 1
    away.rename(photos / "cat" / "11.png")
    draw(photos / "bee" / "99.png", 99)
    assert explain(config(classifier, photos, run, retry_unreadable=True)).complete
    assert shards(run) == shards(undisturbed)
    assert found(run) == []


def test_only_the_first_worker_lists_the_folder_again(classifier, photos, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    explain(config(classifier, photos, run, task="0/3"))
    draw(photos / "bee" / "99.png", 99)

    def never(spec: str, root: str) -> None:
        raise AssertionError(spec)

    monkeypatch.setattr(sources, "open_folder", never)
    explain(config(classifier, photos, run, task="1/3", quiet=False))
    assert explain(config(classifier, photos, run, task="2/3", quiet=False)).complete
    assert "came since" not in capsys.readouterr().err


def test_a_dataset_that_has_none_of_the_samples_as_planned_is_refused(classifier, photos, tmp_path):
    run = tmp_path / "run"
    explain(config(classifier, photos, run, task="0/3"))
    for path in photos.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DatasetError, match="not the dataset of this run: it has none of its 12 samples as planned"):
        explain(config(classifier, photos, run))


def test_a_manifest_may_grow_lose_rows_move_files_and_change_labels(classifier, photos, tmp_path, capsys):
    run, manifest = tmp_path / "run", tmp_path / "list.csv"
    rows = [(f"photos/{CLASSES[i % 3]}/{i:02d}.png", CLASSES[i % 3], f"id{i}") for i in range(PLANNED)]

    def write(rows: list[tuple[str, str, str]]) -> None:
        manifest.write_text("\n".join(["path,label,id", *map(",".join, rows)]))

    write(rows)
    explain(config(classifier, manifest, run, task="0/3"))
    draw(tmp_path / "photos" / "new.png", 77)
    (photos / "bee" / "10.png").rename(photos / "moved.png")
    relabelled = [(path, "cat" if name == "id4" else label, name) for path, label, name in rows if name != "id11"]
    moved = [("photos/moved.png" if name == "id10" else path, label, name) for path, label, name in relabelled]
    write([("photos/new.png", "ant", "new"), *moved[::-1]])
    assert explain(config(classifier, manifest, run, quiet=False)).complete
    told = capsys.readouterr().err
    assert "1 file came since" in told
    assert "1 file gone from the dataset since" in told
    assert "1 file labelled otherwise since: the run keeps the labels that were planned" in told
    seen = columns(run)
    assert seen["sample_id"] == [name for _, _, name in rows]
    assert seen["label"] == [i % 3 for i in range(PLANNED)]
    assert not any(seen["error"])  # the manifest no longer says where id11 lies, the list does
    assert found(run) == []
    again = VerifyConfig(run, PLANNED, classifier, str(manifest), device="cpu", quiet=True)
    assert {(f.kind.value, f.array) for f in verify(again, confine=False).found} == {
        ("dataset", "sample_id"),
        ("dataset", "label"),
    }


class Named:
    """A dataset whose samples have ids; `NAMES` are those that it has now."""

    NAMES = tuple(f"s{i}" for i in range(PLANNED))
    classes = CLASSES

    def __init__(self) -> None:
        self.sample_ids = list(self.NAMES)
        self.targets = [int(name[1:]) % 3 for name in self.NAMES]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(int(self.sample_ids[index][1:]))
        return torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8), self.targets[index]


class Numbered(Named):
    """The same without ids."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.sample_ids = self.sample_ids, None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(int(self.names[index][1:]))
        return torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8), self.targets[index]


def test_a_dataset_in_code_is_read_by_its_ids(classifier, tmp_path, monkeypatch, capsys):
    undisturbed, run, data = tmp_path / "undisturbed", tmp_path / "run", f"python:{__name__}:Named"
    explain(config(classifier, data, undisturbed))
    explain(config(classifier, data, run, task="0/3"))
    monkeypatch.setattr(Named, "NAMES", ("s91", *Named.NAMES[:0:-1], "s90"))
    assert explain(config(classifier, data, run, quiet=False)).complete
    told = capsys.readouterr().err
    assert "2 samples came since" in told
    assert "1 sample gone from the dataset since" in told
    assert shards(run) == shards(undisturbed)  # s0 had been explained
    assert found(run) == []


def test_samples_without_ids_may_only_be_followed_by_others(classifier, tmp_path, monkeypatch, capsys):
    undisturbed, run, data = tmp_path / "undisturbed", tmp_path / "run", f"python:{__name__}:Numbered"
    explain(config(classifier, data, undisturbed))
    explain(config(classifier, data, run, task="0/3"))
    names = Named.NAMES
    monkeypatch.setattr(Named, "NAMES", ("s91", *names))
    with pytest.raises(DatasetError, match="12 of 12 samples have another label than was planned, and no ids"):
        explain(config(classifier, data, run))
    monkeypatch.setattr(Named, "NAMES", names[:-1])
    with pytest.raises(DatasetError, match="11 samples, planned were 12: which are gone can't be told"):
        explain(config(classifier, data, run))
    monkeypatch.setattr(Named, "NAMES", (*names, *(f"s{i}" for i in range(12, 100_005, 1000))))
    assert explain(config(classifier, data, run, quiet=False)).complete
    assert "100 samples came since" in capsys.readouterr().err
    assert shards(run) == shards(undisturbed)


@pytest.mark.parametrize(
    "name", [b"a.png", b"gr\xc3\xbcn.png", b"back\\slash.png", b"lone\xff.png", b"both\\xff\xff.png"]
)
def test_names_of_files_survive_byte_by_byte(name: bytes) -> None:
    assert unwritten(written(name).encode()) == name


def test_files_with_odd_names_are_found_again_without_a_listing(classifier, photos, tmp_path):
    for number, name in enumerate((b"lone\xff.png", b"back\\x41.png", "grün.png".encode())):
        draw(tmp_path / "odd.png", 60 + number)
        os.rename(tmp_path / "odd.png", os.fsencode(photos / "ant") + b"/" + name)
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    explain(config(classifier, photos, undisturbed))
    for number in range(4):
        explain(config(classifier, photos, run, task=f"{number}/4"))
    assert shards(run) == shards(undisturbed)
    assert not any(columns(run)["error"])


def test_the_list_is_the_same_bytes_for_the_same_dataset_and_stands_in_plan_and_manifest(classifier, photos, tmp_path):
    for name in ("one", "two"):
        explain(config(classifier, photos, tmp_path / name))
    images = [(tmp_path / name / "samples.h5").read_bytes() for name in ("one", "two")]
    assert images[0] == images[1]
    record = {"file": "samples.h5", "first": 0, "count": PLANNED, "bytes": len(images[0])}
    record["sha256"] = hashlib.sha256(images[0]).hexdigest()
    for document in ("run.json", "manifest.json"):
        assert json.loads((tmp_path / "one" / document).read_bytes())["samples"] == record
    with h5py.File(tmp_path / "one/samples.h5") as file:
        assert sorted(file) == ["input_bytes", "label", "sample_id", "sample_index"]


def begun(classifier: Classifier, photos: Path, run: Path) -> None:
    explain(config(classifier, photos, run, task="0/3"))


def test_a_list_whose_writer_was_killed_before_it_had_its_name_is_taken_up(classifier, photos, tmp_path):
    run = tmp_path / "run"
    begun(classifier, photos, run)
    digest = hashlib.sha256((run / "samples.h5").read_bytes()).hexdigest()
    (run / "samples.h5").rename(run / f".samples.h5.{digest[:16]}.partial")
    draw(photos / "bee" / "99.png", 99)
    assert ("file-missing", "samples.h5") in found(run)
    assert explain(config(classifier, photos, run)).complete
    assert found(run) == []


def test_a_list_that_was_lost_is_made_again_from_the_same_dataset_only(classifier, photos, tmp_path, capsys):
    run = tmp_path / "run"
    begun(classifier, photos, run)
    before = (run / "samples.h5").read_bytes()
    (run / "samples.h5").unlink()
    draw(photos / "bee" / "99.png", 99)
    with pytest.raises(RunError, match="belongs to another run: dataset fingerprint"):
        explain(config(classifier, photos, run))
    assert "samples.h5: is gone: the dataset is listed again" in capsys.readouterr().err
    (photos / "bee" / "99.png").unlink()
    assert explain(config(classifier, photos, run)).complete
    assert (run / "samples.h5").read_bytes() == before
    assert found(run) == []


def test_a_list_that_was_changed_is_never_read(classifier, photos, tmp_path):
    run = tmp_path / "run"
    begun(classifier, photos, run)
    flip(run / "samples.h5", 3000)
    with pytest.raises(RunError, match=r"samples\.h5: changed after it was written"):
        explain(config(classifier, photos, run))


def test_a_complete_run_without_its_list_does_not_merge(classifier, photos, tmp_path):
    run = tmp_path / "run"
    explain(config(classifier, photos, run))
    (run / "samples.h5").unlink()
    with pytest.raises(RunError, match=r"samples\.h5: gone, .*; run explain again"):
        merge(run)


def test_a_run_of_a_version_without_a_list_goes_on_as_before(classifier, photos, tmp_path):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    explain(config(classifier, photos, undisturbed))
    begun(classifier, photos, run)
    forget_list(run)
    extra = photos / "bee" / "99.png"
    draw(extra, 99)
    with pytest.raises(RunError, match="belongs to another run: dataset fingerprint"):
        explain(config(classifier, photos, run))
    extra.unlink()
    assert explain(config(classifier, photos, run)).complete
    assert shards(run) == shards(undisturbed)
    assert not (run / "samples.h5").exists()
    assert "samples" not in json.loads((run / "manifest.json").read_bytes())
    assert found(run) == []


def test_who_loses_the_race_to_plan_explains_what_the_winner_listed(classifier, photos, tmp_path, monkeypatch):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    explain(config(classifier, photos, undisturbed))
    write_plan = explain_module.write_plan

    def beaten(*arguments: Any) -> Any:
        monkeypatch.setattr(explain_module, "write_plan", write_plan)
        (photos / "bee" / "99.png").unlink()
        begun(classifier, photos, run)  # another worker, which has not seen what came
        draw(photos / "bee" / "99.png", 99)
        return write_plan(*arguments)

    draw(photos / "bee" / "99.png", 99)
    monkeypatch.setattr(explain_module, "write_plan", beaten)
    # as where there can be no leases: the other one would wait
    monkeypatch.setattr(explain_module, "planning", lambda *arguments: contextlib.nullcontext())
    assert explain(config(classifier, photos, run)).complete
    assert shards(run) == shards(undisturbed)
    assert found(run) == []


def test_a_listing_comes_back_as_it_was_planned(classifier, photos, tmp_path):
    run = tmp_path / "run"
    begun(classifier, photos, run)
    listing = read_listing(run, read_plan(run))
    assert listing is not None
    ids = [f"{name}/{number:02d}.png" for k, name in enumerate(CLASSES) for number in range(k, PLANNED, 3)]
    assert list(listing.sample_ids) == ids
    assert np.asarray(listing.labels).tolist() == [k for k in range(3) for _ in range(4)]
    assert np.asarray(listing.sizes).tolist() == [(photos / each).stat().st_size for each in ids]


def manifest(photos: Path, *columns: str, **changes: Any) -> Path:
    """Write a manifest of the photos, with these columns besides path and label; `changes` says rows otherwise."""
    rows = [",".join(("path", "label", "id", *columns))]
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        values = changes.get(f"row{number}", [f"{column} {number % 4}" for column in columns])
        rows.append(",".join([f"{path.relative_to(photos)}", path.parent.name, f"photo {number}", *values]))
    (photos / "list.csv").write_text("\n".join(rows) + "\n")
    return photos / "list.csv"


def test_what_a_manifest_says_besides_stands_in_every_row_and_can_be_read(classifier, photos, tmp_path, capsys):
    run, data = tmp_path / "run", manifest(photos, "site", "km/h")
    assert explain(config(classifier, data, run, quiet=False)).complete
    assert r"kept of each sample: meta/km\x2fh, meta/site" in capsys.readouterr().err
    assert read_plan(run).meta == {r"km\x2fh": 6, "site": 6}
    sites = [f"site {number % 4}" for number in range(PLANNED)]
    for name in ("samples.h5", "run.h5"):
        with h5py.File(run / name) as file:
            assert sorted(file["meta"]) == [r"km\x2fh", "site"]
            assert file["meta/site"].asstr()[...].tolist() == sites
    with open_run(run) as opened:
        assert opened["meta/site"][:].tolist() == sites
        assert opened["meta/site"].meaning == "column site of the manifest, as written there"
        assert opened[5].meta == {r"km\x2fh": "km/h 1", "site": "site 1"}
        assert [b["meta/site"].tolist() for _, b in opened.blocks(["meta/site"], [1, 6])] == [["site 1", "site 2"]]
        with pytest.raises(KeyError, match="no array 'meta/nobody'; there are sample_index"):
            opened["meta/nobody"]
    with open_run(run / "shards/shard-00001.h5") as shard:
        assert shard["meta/site"][:].tolist() == sites[SHARD_SIZE : 2 * SHARD_SIZE]
    assert found(run) == []


def test_columns_belong_to_the_run_in_any_order_and_what_they_say_does_too(classifier, photos, tmp_path):
    ids = []
    for number, (columns, changes) in enumerate(
        [(("site", "age"), {}), (("age", "site"), {}), (("site",), {}), (("site",), {"row3": ["elsewhere"]}), ((), {})]
    ):
        explain(config(classifier, manifest(photos, *columns, **changes), run := tmp_path / str(number)))
        ids.append(read_plan(run).run_id)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert shards(tmp_path / "0") == shards(tmp_path / "1")


def test_a_run_keeps_the_columns_that_it_was_planned_with_and_tells_of_others(classifier, photos, tmp_path, capsys):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    data = manifest(photos, "site")
    explain(config(classifier, data, undisturbed))
    explain(config(classifier, data, run, task="1/2"))
    manifest(photos, "site", "age", row3=["elsewhere", "7"])
    assert explain(config(classifier, data, run, quiet=False)).complete
    assert "1 file with other meta columns since: the run keeps those that were planned" in capsys.readouterr().err
    assert shards(run) == shards(undisturbed)
    assert found(run) == []


def test_a_run_that_was_planned_without_columns_goes_on_without(classifier, photos, tmp_path):
    undisturbed, run, data = tmp_path / "undisturbed", tmp_path / "run", manifest(photos)
    for out, task in ((undisturbed, ""), (run, "1/2")):
        explain(config(classifier, data, out, task=task or None))
        forget_list(out)
    manifest(photos, "site")
    assert explain(config(classifier, data, run)).complete
    assert read_plan(run).meta == {}
    assert shards(run) == shards(undisturbed)


def test_later_workers_read_a_manifest_only_if_it_was_changed(classifier, photos, tmp_path, monkeypatch):
    undisturbed, run, data = tmp_path / "undisturbed", tmp_path / "run", manifest(photos, "site")
    explain(config(classifier, data, undisturbed))
    explain(config(classifier, data, run, task="0/3"))
    read, open_csv = [], sources.open_csv
    monkeypatch.setattr(sources, "open_csv", lambda *words: read.append(words) or open_csv(*words))
    explain(config(classifier, data, run, task="1/3", share_only=True))
    assert read == []
    (photos / "moved").mkdir()
    os.rename(photos / "bee", photos / "moved" / "bee")
    data.write_text(data.read_text().replace("bee/", "moved/bee/"))
    assert explain(config(classifier, data, run, task="2/3")).complete
    assert len(read) == 1
    assert shards(run) == shards(undisturbed)


def test_a_list_whose_columns_are_not_those_of_the_rows_is_found(classifier, photos, tmp_path):
    run = tmp_path / "run"
    explain(config(classifier, manifest(photos, "site"), run))
    with h5py.File(run / "samples.h5", "r+") as file:
        file["meta/site"][2] = b"forged"
    image = (run / "samples.h5").read_bytes()
    record = {**json.loads((run / "run.json").read_bytes())["samples"], "bytes": len(image)}
    record["sha256"] = hashlib.sha256(image).hexdigest()
    edit_document(run / "run.json", samples=record, sample_blocks={"bytes": len(image), "sha256": [record["sha256"]]})
    edit_document(run / "manifest.json", samples=record)
    assert found(run) == [("dataset", "samples.h5")]


def test_a_series_has_the_columns_that_all_of_its_runs_have_and_tells_of_others(classifier, photos, tmp_path):
    explain(config(classifier, manifest(photos, "site", "age"), tmp_path / "runs/1"))
    explain(config(classifier, manifest(photos, "site", row3=["far away"]), tmp_path / "runs/2"))
    with open_run(tmp_path / "runs") as series:
        assert dict(series.plan.meta) == {"site": 8}
        assert series["meta/site"][3] == "far away"
        assert "columns that not all of the runs have left out: age" in series.remarks
