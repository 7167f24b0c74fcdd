"""The generated image set: reproducible, exactly masked, off-centre, and its clutter silent about the class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from batchcam.commands.demo import shapes
from batchcam.errors import ConfigError


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}


def _draws(class_name: str, count: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    images, masks = zip(*(shapes.draw(class_name, rng, size) for _ in range(count)), strict=True)
    return np.stack(images), np.stack(masks)


def test_generate_writes_an_image_folder_and_its_masks(tmp_path: Path) -> None:
    shapes.generate(tmp_path, "test", per_class=2, size=64)
    assert sorted(_files(tmp_path)) == sorted(
        f"{kind}/test/{class_name}/{number:05d}.png"
        for kind in ("images", "masks")
        for class_name in shapes.CLASSES
        for number in range(2)
    )


def test_generate_gives_the_same_bytes_for_the_same_seed_and_others_for_another(tmp_path: Path) -> None:
    for name, seed in [("first", 5), ("second", 5), ("third", 6)]:
        shapes.generate(tmp_path / name, "train", per_class=1, size=48, seed=seed)
    first, second, third = (_files(tmp_path / name) for name in ("first", "second", "third"))
    assert first == second
    assert all(first[name] != third[name] for name in first)


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    shapes.generate(tmp_path / "small", "train", per_class=1, size=48)
    shapes.generate(tmp_path / "large", "train", per_class=2, size=48)
    small, large = _files(tmp_path / "small"), _files(tmp_path / "large")
    assert small.items() < large.items()


def test_no_image_occurs_twice_in_or_across_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        shapes.generate(tmp_path, split, per_class=3, size=48)
    images = [data for name, data in _files(tmp_path).items() if name.startswith("images/")]
    assert len(set(images)) == len(images) == 2 * 3 * len(shapes.CLASSES)


def test_files_hold_what_draw_returns_in_rgb_and_masks_of_0_and_255(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mask = image[..., 0] > 100
    monkeypatch.setattr(shapes, "draw", lambda *_: (image, mask))
    shapes.generate(tmp_path, "test", per_class=1, size=32)
    with Image.open(tmp_path / "images/test/disc/00000.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)
    with Image.open(tmp_path / "masks/test/disc/00000.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), np.where(mask, 255, 0))


@pytest.mark.parametrize("class_name", shapes.CLASSES)
def test_draw_returns_one_object_of_a_twelfth_to_a_third_of_the_image(class_name: str) -> None:
    images, masks = _draws(class_name, 30)
    assert images.dtype == np.uint8
    assert images.shape == (30, 128, 128, 3)
    assert masks.dtype == bool
    for mask in masks:
        parts, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        assert parts == 2  # background and one object
        assert 1 / 12 < mask.mean() < 1 / 3


def test_the_mask_is_exactly_the_pixels_that_the_object_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = np.float32(1000)  # beyond any object's colour, so that what is left of the background shows
    monkeypatch.setattr(shapes, "_background", lambda rng, size: np.full((size, size, 3), marker))
    for class_name in shapes.CLASSES:
        image, mask = shapes.draw(class_name, np.random.default_rng(1), 96)
        assert (image[~mask] == 255).all()
        assert (image[mask].min(axis=1) < 250).mean() > 0.9


def test_outlines_are_told_apart_by_how_they_fill_their_hull() -> None:
    fill = {}
    for class_name in shapes.CLASSES:
        mask = next(mask for mask in _draws(class_name, 20)[1] if not _touches_edge(mask))
        outline = max(cv2.findContours(mask.astype(np.uint8), 0, 1)[0], key=cv2.contourArea)
        box = cv2.minAreaRect(outline)[1]
        hull = cv2.contourArea(cv2.convexHull(outline))
        fill[class_name] = (round(cv2.contourArea(outline) / hull, 2), round(hull / (box[0] * box[1]), 2))
    assert fill["disc"] == pytest.approx((0.98, np.pi / 4), abs=0.04)
    assert fill["square"] == pytest.approx((0.98, 0.98), abs=0.04)
    assert fill["triangle"] == pytest.approx((0.98, 0.5), abs=0.04)
    assert fill["cross"][0] < 0.9
    assert fill["star"][0] < 0.85


def _touches_edge(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_the_image_centre_is_a_poor_guess_in_every_class_and_no_side_is_favoured() -> None:
    for class_name in shapes.CLASSES:
        masks = _draws(class_name, 150)[1]
        assert masks[:, 64, 64].mean() < 0.3
        y, x = zip(*(np.argwhere(mask).mean(0) for mask in masks), strict=True)
        assert abs(np.mean(y) - 64) < 7
        assert abs(np.mean(x) - 64) < 7


def test_the_background_is_drawn_before_the_class_is_looked_at() -> None:
    drawn = [shapes.draw(class_name, np.random.default_rng(11), 64) for class_name in shapes.CLASSES]
    outside = ~np.any([mask for _, mask in drawn], axis=0)
    assert outside.mean() > 0.3
    for image, _ in drawn[1:]:
        np.testing.assert_array_equal(image[outside], drawn[0][0][outside])


def test_hues_of_different_classes_do_not_meet_and_clutter_has_all_of_them() -> None:
    hues = {}
    for class_name in shapes.CLASSES:
        images, masks = _draws(class_name, 20)
        hsv = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL) for image in images]).astype(int)
        bright = masks & (hsv[..., 2] > 215) & (hsv[..., 1] > 60)
        hues[class_name] = np.bincount(hsv[..., 0][bright] * 10 // 256, minlength=10)
        clutter = ~masks & (hsv[..., 1] > 200)
        assert np.bincount(hsv[..., 0][clutter] // 26, minlength=10).min() > 100
    assert len({int(np.roll(counts, 1).reshape(5, 2).sum(1).argmax()) for counts in hues.values()}) == 5


def test_classes_stand_in_the_order_of_a_folder_of_class_folders() -> None:
    assert list(shapes.CLASSES) == sorted(shapes.CLASSES)


def test_draw_refuses_an_unknown_class_and_a_tiny_image() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"'cat'.*cross, disc"):
        shapes.draw("cat", rng)
    with pytest.raises(ConfigError, match="at least 32"):
        shapes.draw("disc", rng, 31)


@pytest.mark.parametrize("split", ["", ".", "..", "a/b", "/tmp", "../out", "a\0b"])
def test_generate_refuses_a_split_that_leaves_its_folder(tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match="no plain folder name"):
        shapes.generate(tmp_path, split, per_class=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("per_class", "seed"), [(0, 0), (1, -1)])
def test_generate_refuses_empty_sets_and_negative_seeds(tmp_path: Path, per_class: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="at least 1 image"):
        shapes.generate(tmp_path, "train", per_class, seed=seed)
