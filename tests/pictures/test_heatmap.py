"""Pictures of maps: against torch's interpolation, the formula, and pixels worked out by hand."""

from __future__ import annotations

import gc
import io
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from batchcam.job.crew import crew
from batchcam.pictures import heatmap
from batchcam.rules import PALETTES


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        pytest.param((4, 4), (128, 128), id="square"),
        pytest.param((7, 5), (224, 160), id="portrait"),
        pytest.param((3, 6), (97, 201), id="odd factors"),
        pytest.param((1, 1), (8, 9), id="one cell"),
        pytest.param((1, 4), (20, 30), id="one row"),
        pytest.param((14, 14), (14, 14), id="same size"),
        pytest.param((16, 12), (8, 6), id="halved"),
        pytest.param((30, 20), (7, 9), id="shrunk"),
    ],
)
def test_upsample_equals_torch_interpolate(
    rng: np.random.Generator, grid: tuple[int, int], size: tuple[int, int]
) -> None:
    cams = (rng.standard_normal((3, *grid)) * 40).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(cams)[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy()
    upsampled = heatmap.upsample(cams, size)
    assert upsampled.dtype == np.float32
    np.testing.assert_allclose(upsampled, expected, rtol=0, atol=1e-5 * max(1, np.ptp(cams)))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_want_of_memory_in_opencv_is_a_memory_error() -> None:
    side = 2**14

    def upsampled(number: int) -> Iterator[None]:
        gc.collect()  # what earlier tests left would be freed meanwhile
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        result = 4 * side**2
        resource.setrlimit(resource.RLIMIT_AS, (held + result * 3 // 2, resource.RLIM_INFINITY))  # OpenCV wants another
        yield heatmap.upsample(np.zeros((1, 2, 2), np.float32), (side, side))

    with crew(1, upsampled) as (member,), pytest.raises(MemoryError, match="Insufficient memory"):
        next(member)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_upsample_keeps_non_finite_cells_in_their_place(rng: np.random.Generator, bad: float) -> None:
    cams = rng.standard_normal((2, 4, 4)).astype(np.float32)
    finite = heatmap.upsample(cams, (32, 32))
    cams[1, 0, 0] = bad
    upsampled = heatmap.upsample(cams, (32, 32))
    assert not np.isfinite(upsampled[1, :4, :4]).any()
    np.testing.assert_array_equal(upsampled[1, 16:, 16:], finite[1, 16:, 16:])
    np.testing.assert_array_equal(upsampled[0], finite[0])


def test_upsample_of_no_maps_is_no_maps() -> None:
    assert heatmap.upsample(np.empty((0, 4, 4), np.float32), (8, 6)).shape == (0, 8, 6)


def test_upsample_refuses_one_map_without_its_first_axis() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        heatmap.upsample(np.zeros((4, 4), np.float32), (8, 8))


def test_normalise_spans_0_to_255_and_rounds_to_nearest(rng: np.random.Generator) -> None:
    maps = (rng.standard_normal((5, 9, 6)) * [[[0.01]], [[1]], [[30]], [[1e6]], [[3]]]).astype(np.float32)
    normalised, ranges = heatmap.normalise(maps)
    assert normalised.dtype == np.uint8
    assert ranges.dtype == np.float32
    for values, picture, (low, high) in zip(maps.astype(np.float64), normalised, ranges, strict=True):
        assert (low, high) == (values.min(), values.max())
        assert (picture.min(), picture.max()) == (0, 255)
        exact = 255 * (values - values.min()) / (values.max() - values.min())
        assert np.abs(picture - exact).max() <= 0.5 + 1e-4


def test_normalise_is_the_workers_function(rng: np.random.Generator) -> None:
    cam = pytest.importorskip("batchcam.maps.cam")
    maps = rng.standard_normal((20, 32, 24)).astype(np.float32)
    expected, expected_ranges = cam.normalise(torch.from_numpy(maps))
    normalised, ranges = heatmap.normalise(maps)
    np.testing.assert_array_equal(normalised, expected.numpy())
    np.testing.assert_array_equal(ranges, expected_ranges.numpy())


@pytest.mark.parametrize(
    ("values", "expected_range"),
    [
        pytest.param([0, 0, 0], (0, 0), id="zero"),
        pytest.param([5, 5, 5], (5, 5), id="constant"),
        pytest.param([-3, np.nextafter(np.float32(-3), np.float32(0)), -3], None, id="rounding only"),
        pytest.param([1, np.nan, 2], (np.nan, np.nan), id="nan"),
        pytest.param([1, np.inf, 2], (np.nan, np.nan), id="infinite"),
        pytest.param([1, -np.inf, np.inf], (np.nan, np.nan), id="both infinities"),
    ],
)
def test_normalise_gives_zeros_where_a_map_says_nothing(
    values: list[float], expected_range: tuple[float, float] | None
) -> None:
    healthy = np.array([[[0, 1, 2]]], np.float32)
    normalised, ranges = heatmap.normalise(np.concatenate([np.array([[values]], np.float32), healthy]))
    assert not normalised[0].any()
    if expected_range is not None:
        np.testing.assert_array_equal(ranges[0], expected_range)
    assert normalised[1].tolist() == [[0, 128, 255]]
    assert ranges[1].tolist() == [0, 2]


def test_normalise_survives_a_range_beyond_float32() -> None:
    normalised, _ = heatmap.normalise(np.array([[[-3e38, 0, 3e38]]], np.float32))
    assert normalised.tolist() == [[[0, 128, 255]]]


def test_jet_runs_from_blue_to_red_and_viridis_from_purple_to_yellow() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    jet, viridis = heatmap.colour(ramp, "jet")[0].astype(int), heatmap.colour(ramp)[0].astype(int)
    assert jet[0, 2] > 100 > jet[0, 0]
    assert jet[255, 0] > 100 > jet[255, 2]
    np.testing.assert_allclose(viridis[[0, 255]], [(68, 1, 84), (253, 231, 37)], atol=2)  # matplotlib's ends


def test_viridis_grows_brighter_with_the_map_and_jet_does_not() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    rising = {
        name: (np.diff(cv2.cvtColor(heatmap.colour(ramp, name), cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)) >= 0).all()
        for name in PALETTES
    }
    assert rising == {"viridis": True, "jet": False}


def test_an_unknown_palette_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'hot'.*viridis, jet"):
        heatmap.colour(np.zeros((2, 2), np.uint8), "hot")


def test_overlay_with_full_alpha_and_full_view_is_the_resized_map(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    normalised_map = rng.integers(0, 256, (4, 6), dtype=np.uint8)
    resized = F.interpolate(torch.from_numpy(normalised_map)[None, None].double(), (40, 60), mode="bilinear")[0, 0]
    expected = heatmap.colour(resized.round().to(torch.uint8).numpy()).astype(int)
    drawn = heatmap.overlay(image, normalised_map, (0, 0, 60, 40), alpha=1)
    assert np.abs(drawn - expected).max() <= 6  # one step of the palette, where a value lies on a rounding edge
    assert np.abs(drawn - expected).mean() < 0.2


def test_overlay_blends_by_alpha_inside_and_shows_dimmed_grey_outside(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    before = image.copy()
    drawn = heatmap.overlay(image, np.full((8, 8), 255, np.uint8), (10, 5, 20, 15), "jet", alpha=0.25)
    red = heatmap.colour(np.full((1, 1), 255, np.uint8), "jet")[0, 0]
    np.testing.assert_array_equal(drawn[5:15, 10:20], np.rint(image[5:15, 10:20] * 0.75 + red * 0.25))
    outside = np.ones((20, 30), bool)
    outside[5:15, 10:20] = False
    assert (np.ptp(drawn[outside], axis=1) == 0).all()
    luma = image[outside] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(drawn[outside][:, 0], luma * heatmap.OUTSIDE_BRIGHTNESS, atol=1)
    np.testing.assert_array_equal(image, before)


def test_overlay_puts_the_peak_where_the_crop_box_says() -> None:
    normalised_map = np.zeros((32, 32), np.uint8)
    normalised_map[8:12, 20:24] = 255  # centre (y, x) at (10, 22) of 32
    box = (25.5, 10.25, 89.5, 74.25)
    drawn = heatmap.overlay(np.zeros((100, 200, 3), np.uint8), normalised_map, box, "jet", alpha=1)
    y, x = np.nonzero((drawn[..., 0] > 100) & (drawn[..., 2] == 0))
    assert y.mean() + 0.5 == pytest.approx(10.25 + 64 * 10 / 32, abs=0.6)
    assert x.mean() + 0.5 == pytest.approx(25.5 + 64 * 22 / 32, abs=0.6)


def test_overlay_of_a_box_larger_than_the_image_shows_only_the_part_within() -> None:
    normalised_map = np.repeat(np.array([0, 0, 255, 255], np.uint8)[None], 4, axis=0)
    drawn = heatmap.overlay(np.zeros((10, 10, 3), np.uint8), normalised_map, (-10, -10, 10, 10), "jet", alpha=1)
    assert (drawn[:, 5:, 0] > 100).all()  # the right half of the box is all that the image holds
    assert (drawn[:, :, 0] > drawn[:, :, 2])[:, 1:].all()


def test_overlay_refuses_a_box_beside_the_image_and_a_box_of_nan() -> None:
    image, normalised_map = np.zeros((10, 10, 3), np.uint8), np.zeros((4, 4), np.uint8)
    for box in [(20, 0, 30, 10), (5, 5, 5, 5), (np.nan,) * 4]:
        with pytest.raises(ValueError, match="misses the 10×10 image"):
            heatmap.overlay(image, normalised_map, box)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)]
)
def test_overlay_refuses_what_is_not_an_rgb_picture(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="want an RGB picture"):
        heatmap.overlay(image, np.zeros((4, 4), np.uint8), (0, 0, 4, 4))


@pytest.mark.parametrize("cells", [(3, 5), (4, 4), (1, 2)])
def test_overlay_of_cells_shows_each_cell_evenly_in_its_place(rng: np.random.Generator, cells: tuple[int, int]) -> None:
    normalised_map = rng.integers(0, 256, cells, dtype=np.uint8)
    height, width = 20 * cells[0], 30 * cells[1]
    image = np.zeros((height + 9, width + 7, 3), np.uint8)
    drawn = heatmap.overlay(image, normalised_map, (7, 9, width + 7, height + 9), "jet", alpha=1, cells=True)
    expected = cv2.applyColorMap(normalised_map, cv2.COLORMAP_JET)[..., ::-1]
    for y, x in np.ndindex(cells):
        inside = drawn[9 + 20 * y + 2 : 9 + 20 * y + 18, 7 + 30 * x + 2 : 7 + 30 * x + 28]
        assert (inside == expected[y, x]).all()


def test_overlay_of_cells_draws_white_lines_only_between_cells() -> None:
    drawn = heatmap.overlay(
        np.zeros((40, 60, 3), np.uint8), np.zeros((2, 3), np.uint8), (0, 0, 60, 40), alpha=1, cells=True
    )
    white = (drawn == 255).all(2)
    assert np.flatnonzero(white.all(1)).tolist() == [20]
    assert np.flatnonzero(white.all(0)).tolist() == [20, 40]
    assert white.sum() == 60 + 2 * 40 - 2


def test_overlay_of_cells_leaves_lines_out_where_they_would_hide_the_cells() -> None:
    normalised_map = np.tile(np.array([0, 255], np.uint8), (8, 4))
    drawn = heatmap.overlay(np.zeros((16, 16, 3), np.uint8), normalised_map, (0, 0, 16, 16), alpha=1, cells=True)
    assert not (drawn == 255).all(2).any()


def test_the_signed_palette_is_symmetric_about_a_neutral_zero() -> None:
    values = np.array([[-2, -1, -0.01, 0, 0.01, 1, 2, 5]], np.float32)
    red, green, blue = heatmap.colour_signed(values, 2)[0].astype(int).T
    assert len({int(red[3]), int(green[3]), int(blue[3])}) == 1
    assert red[3] > 240
    assert (red[4:] >= blue[4:]).all()
    assert (blue[:3] >= red[:3]).all()
    assert red[6] - blue[6] > 100
    assert blue[0] - red[0] > 100
    assert (red[7], green[7], blue[7]) == (red[6], green[6], blue[6])


def test_the_signed_palette_grows_darker_with_the_evidence_on_either_side() -> None:
    ramp = heatmap.colour_signed(np.linspace(-1, 1, 101)[None], 1)
    lightness = cv2.cvtColor(ramp, cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness[:51]) >= 0).all()
    assert (np.diff(lightness[50:]) <= 0).all()
    np.testing.assert_allclose(lightness, lightness[::-1], atol=25)


@pytest.mark.parametrize(("values", "limit"), [([[np.nan]], 1), ([[np.inf]], 1), ([[0]], -1), ([[0]], np.nan)])
def test_the_signed_palette_refuses_what_has_no_colour(values: list[list[float]], limit: float) -> None:
    with pytest.raises(ValueError, match="finite values"):
        heatmap.colour_signed(np.array(values, np.float32), limit)


def test_a_map_of_zeros_is_neutral_whatever_the_limit() -> None:
    zeros = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(heatmap.colour_signed(zeros, 0), heatmap.colour_signed(zeros, 7))


def test_signed_overlay_shows_positive_cells_red_and_negative_ones_blue_over_grey(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cam = np.array([[4, 0, -4], [0, -1, 1]], np.float32)
    drawn = heatmap.signed_overlay(image, cam, (0, 0, 60, 40), 4, alpha=0.5, cells=True).astype(int)
    warmth = drawn[..., 0] - drawn[..., 2]
    signs = [[np.sign(warmth[20 * y + 10, 20 * x + 10]) for x in range(3)] for y in range(2)]
    assert signs == [[1, 0, -1], [0, -1, 1]]
    grey = np.rint(image[:20, 21:40] @ [0.299, 0.587, 0.114])  # the cell at zero, without the line at its left
    np.testing.assert_allclose(drawn[:19, 21:39, 0], (grey[:19, :18] + 247) / 2, atol=1.5)


def test_signed_overlay_interpolates_raw_values_between_cell_centres() -> None:
    cam = np.array([[-1, 1]], np.float32)
    drawn = heatmap.signed_overlay(np.zeros((10, 80, 3), np.uint8), cam, (0, 0, 80, 10), 1, alpha=1)
    expected = heatmap.colour_signed(np.interp(np.arange(80) + 0.5, [20, 60], [-1, 1])[None], 1)[0].astype(int)
    assert np.abs(drawn[5] - expected).max() <= 2


def test_write_png_is_read_back_pixel_by_pixel_by_another_library(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for picture in (image, image[..., 0], image[:, ::-1]):
        with Image.open(io.BytesIO(heatmap.write_png(picture))) as opened:
            assert opened.format == "PNG"
            np.testing.assert_array_equal(np.asarray(opened), picture)


def test_write_png_refuses_floats() -> None:
    with pytest.raises(ValueError, match="float32"):
        heatmap.write_png(np.zeros((4, 4, 3), np.float32))
