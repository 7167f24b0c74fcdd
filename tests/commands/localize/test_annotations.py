"""Annotations of every kind reach the samples they mean, and none that they do not."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.demo import shapes
from batchcam.commands.localize.annotations import Annotations, read_annotations, read_mask
from batchcam.errors import ConfigError, DatasetError

IDS = ["ant/0.png", "ant/1.png", "bee/0.png", "bee/ä,b.png"]


def read_text(folder: Path, text: str, name: str = "boxes.csv", **options: object) -> Annotations:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_annotations(path, IDS, **options)  # type: ignore[arg-type]


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(cv2.imencode(path.suffix, mask)[1]))


def test_boxes_and_masks_of_a_csv_file_reach_the_samples_that_it_names(tmp_path: Path) -> None:
    found = read_text(
        tmp_path,
        "id,x0,y0,x1,y1,mask,ignore,width,height\n"
        "bee/0.png,1,2,3.5,4,,,,\n"
        'ant/0.png,,,,,m/a.png,i.png,,\n"bee/ä,b.png",0,0,9,9,,,300,200\n\n'
        "bee/0.png,5,6,7,8,m/b.png,,,\nant/0.png,,,,,m/c.png,i.png,,\n",
    )
    assert found.annotated.tolist() == [True, False, True, True]
    assert found.of(2).boxes.tolist() == [[1, 2, 3.5, 4], [5, 6, 7, 8]]
    assert found.of(2).masks == (tmp_path / "m/b.png",)
    assert found.of(0).masks == (tmp_path / "m/a.png", tmp_path / "m/c.png")
    assert (found.of(0).ignored, found.of(2).ignored) == (tmp_path / "i.png", None)
    assert (found.of(3).size, found.of(0).size) == ((200, 300), None)
    assert found.of(1).boxes.shape == (0, 4)


def test_other_names_of_columns_and_other_columns_are_taken(tmp_path: Path) -> None:
    found = read_text(tmp_path, "class, Image ,xmin,ymin,xmax,ymax,area\nbee,bee/0.png,1,2,3,4,99\n")
    assert found.of(2).boxes.tolist() == [[1, 2, 3, 4]]


def test_masks_lie_where_the_root_says(tmp_path: Path) -> None:
    found = read_text(tmp_path, "id,mask\nant/0.png,a.png\n", mask_root=tmp_path / "else")
    assert found.of(0).masks == (tmp_path / "else" / "a.png",)


def test_the_one_prefix_before_the_ids_is_found(tmp_path: Path) -> None:
    found = read_text(tmp_path, "image,x0,y0,x1,y1\n./images/test/bee/0.png,1,2,3,4\nimages/test/cow/7.png,1,2,3,4\n")
    assert (found.prefix, found.strangers) == ("images/test/", 1)
    assert found.strangers_listed == ("images/test/cow/7.png",)
    assert np.flatnonzero(found.annotated).tolist() == [2]


TWO_SPLITS = "image,x0,y0,x1,y1\nimages/train/bee/0.png,9,9,9,9\nimages/test/bee/0.png,1,2,3,4\n"


def test_the_dataset_settles_which_of_two_prefixes_is_meant(tmp_path: Path) -> None:
    found = read_text(tmp_path, TWO_SPLITS, data="/data/stamps/images/test")
    assert (found.prefix, found.of(2).boxes.tolist(), found.strangers) == ("images/test/", [[1, 2, 3, 4]], 1)


@pytest.mark.parametrize("prefix", ["images/train", "images/train/"])
def test_a_given_prefix_settles_it_too(tmp_path: Path, prefix: str) -> None:
    found = read_text(tmp_path, TWO_SPLITS, prefix=prefix, data="/data/stamps/images/test")
    assert (found.of(2).boxes.tolist(), found.strangers) == ([[9, 9, 9, 9]], 1)


@pytest.mark.parametrize("data", [None, "/data/photos", "stl10:data/stl10:test"])
def test_two_prefixes_that_nothing_settles_are_refused(tmp_path: Path, data: str | None) -> None:
    with pytest.raises(ConfigError, match=r"images/train/ \(1\), images/test/ \(1\): choose one with --prefix"):
        read_text(tmp_path, TWO_SPLITS, data=data)


def test_ids_themselves_win_over_names_that_end_in_one(tmp_path: Path) -> None:
    found = read_text(tmp_path, "id,x0,y0,x1,y1\nother/bee/0.png,9,9,9,9\nbee/0.png,1,2,3,4\n")
    assert (found.prefix, found.of(2).boxes.tolist(), found.strangers) == ("", [[1, 2, 3, 4]], 1)


def test_an_image_with_several_objects_that_is_not_in_the_run_counts_once(tmp_path: Path) -> None:
    lines = "".join(f"{name},1,2,3,4\n" for name in ("bee/0.png", "x.png", "x.png", "y.png"))
    assert read_text(tmp_path, f"id,x0,y0,x1,y1\n{lines}").strangers == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has to name a column"),
        ("file,x0,y0,x1,y1\n", "has to name a column"),
        ("id,x0,y0,x1\n", "has to name a column"),
        ("id,x0,y0,x1,y1\nbee/0.png,1,2,3\n", r":2: 4 cells under 5 columns"),
        ("id,x0,y0,x1,y1\n\nbee/0.png,1,2,3,four\n", r":3: 1, 2, 3, four is no box"),
        ("id,x0,y0,x1,y1\nbee/0.png,3,2,1,4\n", r":2: 3, 2, 1, 4 is no box: want 0 <= x0 <= x1"),
        ("id,x0,y0,x1,y1\nbee/0.png,-1,2,3,4\n", "is no box: want 0 <= x0"),
        ("id,x0,y0,x1,y1\nbee/0.png,1,2,nan,4\n", "is no box"),
        ("id,x0,y0,x1,y1\nbee/0.png,1,2,inf,4\n", "is no box"),
        ("id,x0,y0,x1,y1\nbee/0.png,,,,\n", r":2: neither a box nor a mask for bee/0.png"),
        ("id,mask,ignore\nant/0.png,a,i\nant/0.png,b,j\n", r":3: a second mask of ignored pixels for ant/0.png"),
        ("id,x0,y0,x1,y1,width,height\nbee/0.png,1,2,3,4,0,9\n", "0, 9 is no width and height"),
        (f"id,x0,y0,x1,y1,width,height\nbee/0.png,1,2,3,4,5,{10**30}\n", f"5, {10**30} is no width and height"),
        (f"id,x0,y0,x1,y1,width,height\nbee/0.png,1,2,3,4,{'9' * 5000},5\n", "9, 5 is no width and height"),
        ("id,x0,y0,x1,y1\ncow/0.png,1,2,3,4\n", "its first name is cow/0.png, the run's first is ant/0.png"),
        ("id,x0,y0,x1,y1\n", "it names no image"),
        ('id,x0,y0,x1,y1\n"bee/0.png,1,2,3,4\n', "not a CSV file"),
    ],
)
def test_a_csv_file_that_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        read_text(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a CSV file in UTF-8"):
        read_annotations(tmp_path / "x.csv", IDS)


def test_annotations_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: no such file or folder"):
        read_annotations(tmp_path / "none.csv", IDS)


def write_wsol(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", ["", "localization.txt"])
def test_wsols_boxes_are_scaled_by_its_own_image_sizes(tmp_path: Path, place: str) -> None:
    folder = write_wsol(
        tmp_path / "wsol",
        localization="ant/1.png,1,2,3,4\nant/1.png,5,6,7,8\nbee/0.png,0,0,9,9\n",
        image_sizes="ant/1.png,500,375\nbee/0.png,10,20\n",
        class_labels="ant/1.png,7\nbee/0.png,0\n",
        image_ids="ant/1.png\nbee/0.png\n",
    )
    found = read_annotations(folder / place, IDS)
    assert found.of(1).boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (found.of(1).size, found.of(2).size) == ((375, 500), (20, 10))
    assert found.labels.tolist() == [-1, 7, 0, -1]


def test_wsols_masks_and_the_ignored_pixels_of_the_first_line_are_read(tmp_path: Path) -> None:
    lines = "val/ant/0.png,a0.png,i0.png\nval/ant/0.png,a1.png,\nval/bee/0.png,b.png,i1.png\n"
    found = read_annotations(write_wsol(tmp_path / "wsol", localization=lines), IDS, tmp_path / "masks")
    assert found.of(0).masks == (tmp_path / "masks" / "a0.png", tmp_path / "masks" / "a1.png")
    assert (found.of(0).ignored, found.of(0).size) == (tmp_path / "masks" / "i0.png", None)
    assert found.prefix == "val/"


def test_only_the_images_that_wsol_lists_are_taken(tmp_path: Path) -> None:
    folder = write_wsol(
        tmp_path / "wsol", localization="ant/1.png,1,2,3,4\nbee/0.png,0,0,9,9\n", image_ids="bee/0.png\n"
    )
    assert np.flatnonzero(read_annotations(folder, IDS).annotated).tolist() == [2]


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ({"localization": "ant/0.png,1,2,3\n"}, r"localization\.txt:1: 4 fields instead of 3 or 5"),
        ({"localization": "ant/0.png,1,2,3,x\n"}, r"localization\.txt:1: 1, 2, 3, x is no box"),
        ({"localization": "ant/0.png,1,2,3,4\n", "image_sizes": "ant/0.png,1\n"}, r"image_sizes\.txt:1: 2 fields"),
        ({"localization": "ant/0.png,1,2,3,4\n", "class_labels": "ant/0.png,-1\n"}, "-1 is no class index"),
        (
            {"localization": "ant/0.png,1,2,3,4\n", "class_labels": f"ant/0.png,{10**30}\n"},
            f"{10**30} is no class index",
        ),
    ],
)
def test_text_files_that_cannot_be_meant_are_refused(tmp_path: Path, texts: dict[str, str], match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        read_annotations(write_wsol(tmp_path / "wsol", **texts), IDS)


def test_the_demos_masks_are_found_by_their_names(tmp_path: Path) -> None:
    shapes.generate(tmp_path, "test", 2, 32)
    ids = sorted(p.relative_to(tmp_path / "images/test").as_posix() for p in tmp_path.rglob("images/test/*/*.png"))
    assert len(ids) == 10
    found = read_annotations(tmp_path / "masks" / "test", ids)
    assert found.annotated.all()
    assert [found.of(i).masks for i in range(10)] == [(tmp_path / "masks/test" / each,) for each in ids]
    above = read_annotations(tmp_path / "masks", ids)
    assert above.prefix == "test/"
    assert [above.of(i).masks for i in range(10)] == [found.of(i).masks for i in range(10)]


def test_a_mask_belongs_to_the_image_of_its_name_whatever_the_endings(tmp_path: Path) -> None:
    for name in ("ant/0.png", "ant/1.bmp", "bee/2.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = read_annotations(tmp_path, ["ant/0.jpg", "ant/1.jpeg", "bee/0.jpg"])
    assert [found.of(i).masks for i in range(3)] == [(tmp_path / "ant/0.png",), (tmp_path / "ant/1.bmp",), ()]
    assert found.strangers_listed == ("bee/2.png",)


def test_a_mask_is_not_given_to_either_of_two_images_that_differ_in_their_endings_alone(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    found = read_annotations(tmp_path, ["a.jpg", "a.bmp", "b.jpg"])
    assert found.annotated.tolist() == [False, False, True]


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_pixel_above_zero_is_one_of_the_object(tmp_path: Path, value: int, dtype: type) -> None:
    expected = np.random.default_rng(0).random((7, 9)) > 0.5
    write_mask(tmp_path / "m.png", expected.astype(dtype) * dtype(value))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), expected)
    write_mask(tmp_path / "c.png", np.stack([expected.astype(dtype) * dtype(value), *[expected * dtype(9)] * 2], -1))
    np.testing.assert_array_equal(read_mask(tmp_path / "c.png"), expected)


@pytest.mark.parametrize(
    ("content", "match"), [(b"", "not an image"), (b"GIF?", "not an image"), (None, "No such file")]
)
def test_a_mask_that_cannot_be_read_is_an_error_with_its_name(
    tmp_path: Path, content: bytes | None, match: str
) -> None:
    if content is not None:
        (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"m\.png: cannot read this mask: {match}"):
        read_mask(tmp_path / "m.png")


def test_a_mask_of_a_name_that_no_file_has_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\\x00b\.png: cannot read this mask: no file has such a name"):
        read_mask(tmp_path / "a\0b.png")


def test_a_pipe_is_no_mask_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.png")
    with pytest.raises(DatasetError, match="not a file"):
        read_mask(tmp_path / "m.png")


COCO = {
    "images": [{"id": 7, "file_name": "ant/0.png", "width": 300, "height": 200}, {"id": "b", "file_name": "bee/0.png"}],
    "annotations": [
        {"image_id": 7, "bbox": [10, 20, 30, 40.5], "category_id": 1},
        {"image_id": "b", "bbox": [0, 0, 5, 5]},
        {"image_id": 7, "bbox": [1, 1, 99, 99], "iscrowd": 1},
        {"image_id": 7, "bbox": [1, 2, 3, 4]},
    ],
}


def test_cocos_boxes_are_a_corner_and_a_size(tmp_path: Path) -> None:
    found = read_text(tmp_path, json.dumps(COCO), "instances.json")
    assert found.of(0).boxes.tolist() == [[10, 20, 40, 60.5], [1, 2, 4, 6]]
    assert found.of(2).boxes.tolist() == [[0, 0, 5, 5]]
    assert (found.of(0).size, found.of(2).size) == ((200, 300), None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("{", "not COCO's JSON"),
        ("[1]", "not COCO's JSON"),
        ({"annotations": [{"image_id": 7, "segmentation": []}]}, "not COCO's JSON.*KeyError: 'bbox'"),
        ({"annotations": [{"image_id": 8, "bbox": [1, 2, 3, 4]}]}, r"annotations\[0\]: no image of the file"),
        ({"annotations": [{"image_id": 7, "bbox": [1, 2, 3]}]}, "no image of the file, or no bbox of x, y"),
        ({"annotations": [{"image_id": 7, "bbox": [1, 2, -3, 4]}]}, "is no box"),
        ({"annotations": [{"image_id": 7, "bbox": ["a", 2, 3, 4]}]}, "no bbox of x, y, width, height"),
    ],
)
def test_a_json_file_that_is_not_cocos_is_refused(tmp_path: Path, change: str | dict[str, object], match: str) -> None:
    text = change if isinstance(change, str) else json.dumps(COCO | change)
    with pytest.raises(DatasetError, match=match):
        read_text(tmp_path, text, "instances.json")


@pytest.mark.parametrize("place", ["", "labels"])
def test_yolos_shares_are_scaled_by_the_image(tmp_path: Path, place: str) -> None:
    if place:
        (tmp_path / "yolo/images").mkdir(parents=True)
    folder = tmp_path / "yolo" / place
    (folder / "bee").mkdir(parents=True)
    (folder / "bee/0.txt").write_text("0 0.5 0.5 0.5 0.25\n\n2 0.25 0.5 0.5 1 0.9\n")
    (folder / "bee/ä,b.txt").write_text("1 0.1 0.2 0.5 0.3 0.3 0.8\n")
    (folder / "classes.txt").write_text("ant\nbee\n")
    found = read_annotations(tmp_path / "yolo", IDS)
    assert found.of(2).boxes.tolist() == [[0.25, 0.375, 0.75, 0.625], [0, 0, 0.5, 1]]
    assert found.of(3).boxes.tolist() == [[0.1, 0.2, 0.5, 0.8]]
    assert (found.of(2).size, found.annotated.tolist()) == ((1, 1), [False, False, True, True])


@pytest.mark.parametrize(
    "line", ["0 50 50 20 20", "0 0.5 0.5 0.5", "0 a b c d", "0 0.9 0.5 0.5 0.5", "0 nan 0.5 0.5 0.5"]
)
def test_text_files_that_are_not_yolos_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant/0.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(DatasetError, match=r"0\.txt:2: "):
        read_annotations(tmp_path, IDS)


def test_shares_where_pixels_are_meant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="shares of the image, not pixels"):
        read_text(tmp_path, "id,x0,y0,x1,y1\nant/0.png,0,0.2,0.5,1\nbee/0.png,0.1,0.2,0.3,0.4\n")
    assert read_text(tmp_path, "id,x0,y0,x1,y1\nant/0.png,0,0,1,1\nbee/0.png,0,0,9,9\n").annotated.sum() == 2


@pytest.mark.parametrize(("ids", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_mean_samples_in_every_unicode_form(tmp_path: Path, ids: str, written: str) -> None:
    samples = [unicodedata.normalize(ids, name) for name in ("Bär/ä.png", "Bär/o.png")]
    name = unicodedata.normalize(written, "Bär/ä.png")
    (tmp_path / "boxes.csv").write_text(f"id,x0,y0,x1,y1\nimages/{name},1,2,3,4\n")
    write_mask(tmp_path / "masks" / name, np.ones((2, 2), np.uint8))
    (tmp_path / "yolo/labels").mkdir(parents=True)
    (tmp_path / "yolo/images").mkdir()
    (tmp_path / "yolo/labels" / name).parent.mkdir()
    (tmp_path / "yolo/labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    for source in ("boxes.csv", "masks", "yolo"):
        found = read_annotations(tmp_path / source, samples)
        assert (found.annotated.tolist(), found.other_form) == ([True, False], 1), source


def test_names_in_the_form_of_the_ids_are_not_counted_as_others(tmp_path: Path) -> None:
    found = read_text(tmp_path, 'id,x0,y0,x1,y1\n"./images/bee/ä,b.png",1,2,3,4\n')
    assert (found.annotated.tolist(), found.other_form) == ([False, False, False, True], 0)


# of several labels a sample

CLASSES = ("Edema", "Mass", "Nodule")


def cases(found: Annotations) -> list[tuple[int, int, list[list[float]]]]:
    places = zip(found.samples.tolist(), found.labels.tolist(), strict=True)
    return [(row, class_, found.of(i).boxes.tolist()) for i, (row, class_) in enumerate(places)]


def test_each_class_of_a_sample_has_its_own_objects_in_the_order_of_the_run(tmp_path: Path) -> None:
    found = read_text(
        tmp_path,
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "bee/0.png,Nodule,5.5,6,10,20,,,\nant/0.png,Mass,1,2,3,4,,,\nbee/0.png,Edema,0,0,1,1,,,\n"
        "bee/0.png,Nodule,7,8,1,2,,,\nant/1.png,Scar,0,0,9,9,,,\ncow/9.png,Mass,0,0,1,1,,,\n",
        classes=CLASSES,
    )
    assert cases(found) == [
        (0, 1, [[1, 2, 4, 6]]),
        (2, 0, [[0, 0, 1, 1]]),
        (2, 2, [[5.5, 6, 15.5, 26], [7, 8, 8, 10]]),
    ]
    assert (dict(found.other_classes), found.strangers) == ({"Scar": 1}, 1)
    assert found.annotated.all()


def test_cocos_categories_are_classes(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(IDS)]
    objects = [{"image_id": 2, "bbox": [1, 2, 3, 4], "category_id": 7}, {"image_id": 0, "bbox": [0, 0, 2, 2]}]
    content = {"images": images, "annotations": objects[:1], "categories": [{"id": 7, "name": "Mass"}]}
    found = read_text(tmp_path, json.dumps(content), "coco.json", classes=CLASSES)
    assert cases(found) == [(2, 1, [[1, 2, 4, 6]])]
    assert found.of(0).size == (30, 40)
    with pytest.raises(DatasetError, match=r"annotations\[1\]: no class: the run is multi-label"):
        read_text(tmp_path, json.dumps({**content, "annotations": objects}), "coco.json", classes=CLASSES)


@pytest.mark.parametrize(("names", "expected"), [("Nodule\nEdema\n", 0), (None, 1), ("a\nNodule\n", 2)])
def test_yolos_numbers_are_lines_of_its_classes_or_the_runs_indices(
    tmp_path: Path, names: str | None, expected: int
) -> None:
    if names is not None:
        read = tmp_path / "yolo/classes.txt"
        read.parent.mkdir()
        read.write_text(names)
    (tmp_path / "yolo/bee").mkdir(parents=True)
    (tmp_path / "yolo/bee/0.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    found = read_annotations(tmp_path / "yolo", IDS, classes=CLASSES)
    assert cases(found) == [(2, expected, [[0.25, 0.25, 0.75, 0.75]])]


def test_annotations_of_other_classes_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="annotates no class of the run, only Scar"):
        read_text(tmp_path, "id,class,x0,y0,x1,y1\nbee/0.png,Scar,1,2,3,4\n", classes=CLASSES)
