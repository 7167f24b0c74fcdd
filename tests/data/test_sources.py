"""Every kind of dataset opens by its name, and labels find the model's classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from batchcam.data.csv_manifest import open_csv
from batchcam.data.sources import open_source
from batchcam.data.stl10 import STL10Source
from batchcam.errors import DatasetError
from batchcam.images.tables import Reading
from tests.helpers import places


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "dog/2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path)
    return tmp_path / "photos"


def test_a_folder_opens_as_class_folders(folder: Path) -> None:
    source = open_source(str(folder))
    assert (source.spec, len(source), source.class_names) == (str(folder), 2, ("cat", "dog"))
    assert list(open_source(f"{folder}/").sample_ids) == list(source.sample_ids)


def test_a_csv_file_opens_as_a_manifest(folder: Path) -> None:
    file = folder / "list.CSV"
    file.write_text("path\ncat/1.png\n")
    assert list(open_source(str(file)).sample_ids) == list(open_csv("", str(file)).sample_ids)


def test_stl10_opens_by_its_prefix(tmp_path: Path) -> None:
    (tmp_path / "test_X.bin").write_bytes(bytes(27648))
    (tmp_path / "test_y.bin").write_bytes(b"\x07")
    source = open_source(f"stl10:{tmp_path}:test")
    assert isinstance(source, STL10Source)
    assert source.labels.tolist() == [6]


def test_torchvision_and_python_open_by_their_prefixes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_source(f"torchvision:ImageFolder:{folder}").labels.tolist() == [0, 1]
    (tmp_path / "my_sources_module.py").write_text(
        "from PIL import Image\ndef items(): return [(Image.new('L', (2, 2)), 5)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_source("python:my_sources_module:items").labels.tolist() == [5]


def test_a_folder_with_a_colon_in_its_name_opens(folder: Path, tmp_path: Path) -> None:
    assert len(open_source(str(folder.rename(tmp_path / "a:b")))) == 2


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(open_source("~/photos")) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("/no/such/place", "no such file or folder: expected a folder of class folders or of images, .*FILE.csv"),
        ("", "no such file or folder"),
        ("hdf5:/data", "unknown kind of dataset 'hdf5': expected .*stl10:ROOT"),
        ("/no/such:place", "no such file or folder"),
        ("bad\n\x1b[31m", "no such file"),
        (__file__, "a file of another kind: a python: dataset of yours may read it: expected "),
        ("stl10:/no/such/place", "train_X.bin: No such file"),
    ],
)
def test_what_is_no_dataset_is_refused_on_one_line(spec: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        open_source(spec)
    assert str(caught.value).isprintable()


def test_a_manifest_that_never_ends_is_refused(tmp_path):
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match=r"endless\.csv: a pipe or device, which may never end: expected"):
        open_source(str(tmp_path / "endless.csv"))


@pytest.mark.parametrize("spec", ["folder", "archive", "stl10:x", "python:module:callable"])
def test_how_a_manifest_is_meant_is_refused_of_what_is_none(folder: Path, tmp_path: Path, spec: str) -> None:
    given = {"folder": str(folder), "archive": places.tar(tmp_path)}
    with pytest.raises(DatasetError, match="--columns, --root and --suffix are of manifests; leave them out"):
        open_source(given.get(spec, spec), reading=Reading({"label": "dx"}))


def test_a_flat_folder_has_no_labels_and_says_so(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert (list(source.sample_ids), source.labels.tolist(), source.class_names) == (["a.png", "b.png"], [-1, -1], None)
    assert source.notes == ("a flat folder of 2 images: no class folders, so no labels",)
