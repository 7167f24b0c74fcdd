"""One picture of a sample: what is drawn, what is not and why, and the same pixels whichever command draws it."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.demo import demo
from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.commands.render.config import RenderConfig
from batchcam.commands.render.render import render
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.report import report
from batchcam.pictures import overlay, sheet
from batchcam.pictures.overlay import GREY, View
from batchcam.store.opening import open_run
from batchcam.store.run import Run, Sample
from tests.helpers.export_runs import IMAGE_SIZE, smooth_image, write_run
from tests.helpers.report_pages import decoded
from tests.helpers.synthetic import CONSTANT, bilinear

VIEW = View((20, 30), (10, 5, 20, 15), (16, 16))
CAM = np.array([[0, 1], [2, 4]], np.float32)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_the_picture_is_half_image_and_half_the_cam_as_the_record_upsamples_and_scales_it(image: np.ndarray) -> None:
    drawn = overlay.overlay(image, CAM, VIEW, (20, 30))
    maps = np.rint(bilinear(CAM[None].astype(np.float64), (16, 16))[0] / 4 * 255).astype(np.float32)
    sampled = np.rint(cv2.resize(maps, (10, 10), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    expected = (image[5:15, 10:20].astype(float) + cv2.applyColorMap(sampled, cv2.COLORMAP_VIRIDIS)[..., ::-1]) / 2
    assert drawn.reason == ""
    assert np.abs(drawn.picture[5:15, 10:20] - expected).max() <= 3
    outside = np.ones((20, 30), bool)
    outside[5:15, 10:20] = False
    np.testing.assert_allclose(drawn.picture[outside][:, 0], image[outside] @ [0.299, 0.587, 0.114] * 0.45, atol=1)


@pytest.mark.parametrize(
    ("cam", "view", "reason"),
    [
        (None, VIEW, "no map"),
        (np.full((2, 2), 7, np.float32), VIEW, "constant map"),
        (np.zeros((2, 2), np.float32), VIEW, "constant map"),
        (np.array([[1, np.nan]], np.float32), VIEW, "not finite: no map"),
        (np.array([[1, -np.inf]], np.float32), VIEW, "not finite: no map"),
        (CAM, View((20, 30), (np.nan,) * 4, (16, 16)), "the run does not say what the network saw"),
        (CAM, View((-1, -1), (10, 5, 20, 15), (16, 16)), "the run does not say what the network saw"),
        (CAM, View((20, 30), (40, 5, 50, 15), (16, 16)), "what the network saw lies outside of the image"),
        (CAM, View((20, 30), (10.1, 5, 10.2, 15), (16, 16)), "what the network saw lies outside of the image"),
    ],
)
def test_a_map_that_says_nothing_about_where_leaves_the_original_as_it_is_and_says_why(
    image: np.ndarray, cam: np.ndarray | None, view: View, reason: str
) -> None:
    drawn = overlay.overlay(image, cam, view, (20, 30))
    assert drawn.reason == reason
    np.testing.assert_array_equal(drawn.picture, image)
    alone = overlay.overlay(None, cam, view, (20, 30))
    assert alone.reason == reason
    assert (alone.picture == GREY).all()


def test_where_zero_has_a_colour_a_constant_map_is_drawn(image: np.ndarray) -> None:
    drawn = overlay.overlay(image, np.full((2, 2), -7, np.float32), VIEW, (20, 30), signed=True)
    assert (drawn.reason, drawn.limit) == ("", 7)
    inside = drawn.picture[5:15, 10:20].astype(int)
    assert (inside[..., 2] > inside[..., 0] + 30).all()


def test_grey_stands_for_an_original_that_is_not_there() -> None:
    grey = np.full((20, 30, 3), GREY, np.uint8)
    alone, over_grey = (overlay.overlay(each, CAM, VIEW, (20, 30)).picture for each in (None, grey))
    np.testing.assert_array_equal(alone, over_grey)


def test_a_smaller_picture_has_its_map_in_the_same_place(image: np.ndarray) -> None:
    view = View((200, 300), (100, 50, 200, 150), (16, 16))
    small = overlay.overlay(cv2.resize(image, (300, 200)), CAM, view, (20, 30)).picture
    coloured = np.ptp(small.astype(int), axis=2) > 0
    assert coloured[5:15, 10:20].mean() > 0.9
    coloured[5:15, 10:20] = False
    assert not coloured.any()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (40, 30), (-1, -1), (-1, 500), (1, 2**31 - 1)])
def test_pictures_of_any_shape_fit(size: tuple[int, int]) -> None:
    view = View(size, (0, 0, 1, 1), (16, 16))
    for smallest in ((1, 1), (150, 200), (100, 160)):
        height, width = view.fitted((150, 200), smallest)
        assert 1 <= height <= 150
        assert 1 <= width <= 200


@pytest.mark.parametrize(
    ("size", "fitted"), [((40, 80), (40, 80)), ((10, 40), (20, 80)), ((400, 800), (100, 200)), ((1, 90), (1, 90))]
)
def test_a_picture_has_the_images_size_between_two_boxes(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert View(size, (0, 0, 1, 1), (16, 16)).fitted((100, 200), (80, 80)) == fitted


def expected(run: Run, sample: Sample, size: tuple[int, int], found: bool) -> np.ndarray:
    original = smooth_image(sample.row) if found else None
    return overlay.overlay(original, run.cam(sample.row), View.of(run, sample), size).picture


def pixels(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def test_render_report_export_and_demo_draw_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data, _ = write_run(tmp_path, box=(20, 0, 80, 60))
    gone, shown = 5, [0, 5, CONSTANT, 12, 20]
    images = {p: p.read_bytes() for p in data.rglob("*.png")}
    (data / f"ant/{gone:05d}.png").unlink()
    export(ExportConfig(path, "png", tmp_path / "png", data=str(data), quiet=True))
    render(RenderConfig(path, tmp_path / "rendered", data=str(data), quiet=True))
    report(ReportConfig(path, tmp_path / "report.html", data=str(data), top=21, quiet=True))
    figures = re.findall(r"<figure>.*?</figure>", (tmp_path / "report.html").read_text(), re.S)
    with open_run(path) as run:
        for sample in (run[row] for row in shown):
            found = sample.row != gone
            file = f"{'overlays' if found else 'grey'}/{sample.id}.png"
            np.testing.assert_array_equal(pixels(tmp_path / "png" / file), expected(run, sample, IMAGE_SIZE, found))

            (file,) = (tmp_path / "rendered").glob(f"{sample.index:07d}-*.png")
            size, banner = (192, 320), 18  # the banner of a missing original or map
            there = pixels(file)[8 : 8 + size[0], 8 : 8 + size[1]]
            np.testing.assert_array_equal(there[banner:], expected(run, sample, size, found)[banner:])

            figure = next(f for f in figures if f"{sample.index:05d}.png" in f)
            picture = decoded(re.findall(r"base64,([^\"]*)", figure)[0])
            off = np.abs(picture[:, -200:] - expected(run, sample, (120, 200), found))
            assert np.median(off) <= 4  # JPEG

        for image, content in images.items():
            image.write_bytes(content)
        monkeypatch.setattr(demo, "PICTURES", 3)
        page = demo._sheet(data, run)
        for place, row in enumerate((0, 10, 20)):
            tile = sheet.resized(expected(run, run[row], IMAGE_SIZE, True), (96, 160))
            x = 6 + place * 166
            np.testing.assert_array_equal(page[6 + 32 : 6 + 32 + 96, x : x + 160], tile)
