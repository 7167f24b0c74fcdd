"""TIFFs of channels that Pillow does not know, as tifffile and as a program of our own write them."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batchcam.images.decoding import UnsupportedImageError, decode_image
from batchcam.images.planes import Decoding
from tests.images.test_decoding import colour_tiff
from tests.images.test_planes import array_of, noise


def written(array: np.ndarray, **options: Any) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("channels", "options", "first"),
    [
        (5, {"photometric": "rgb"}, False),
        (2, {"photometric": "minisblack", "planarconfig": "contig"}, False),
        (4, {"photometric": "minisblack", "planarconfig": "separate"}, True),
        (5, {"photometric": "minisblack"}, True),
        (4, {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True}, True),
        (4, {"photometric": "rgb", "compression": "zlib"}, False),
    ],
    ids=["samples", "two", "separate", "pages", "ome", "deflated"],
)
def test_channels_are_samples_or_pages(channels: int, options: dict[str, Any], first: bool) -> None:
    array = noise(6, 7, channels)
    data = written(array.transpose(2, 0, 1).copy() if first else array, **options)
    np.testing.assert_array_equal(array_of(data, Decoding(channels=channels)), array)


def test_a_tiff_that_another_program_wrote_is_read_as_it_is() -> None:
    pytest.importorskip("tifffile")
    array = noise(6, 7, 4)
    np.testing.assert_array_equal(array_of(colour_tiff(array, extra=0), Decoding(channels=4)), array)


def test_deep_colours_are_read_by_their_range() -> None:
    deep = noise(6, 7, 3, dtype="uint16", high=65536)
    expected = (deep / 65535).astype(np.float32)
    np.testing.assert_array_equal(array_of(written(deep, photometric="rgb"), Decoding(range=(0, 65535))), expected)


def test_it_is_turned_upright_as_others_are() -> None:
    array = noise(6, 7, 5)
    data = written(array, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    upright = np.asarray([np.rot90(array[..., each], -1) for each in range(5)]).transpose(1, 2, 0)
    np.testing.assert_array_equal(array_of(data, Decoding(channels=5)), upright)


def test_other_channels_than_the_networks_are_refused() -> None:
    with pytest.raises(UnsupportedImageError, match=r"a TIFF of \(6, 7, 5\) \(YXS\): the network takes 4 channels"):
        decode_image(written(noise(6, 7, 5), photometric="rgb"), Decoding(channels=4))


def test_without_tifffile_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnsupportedImageError, match=r"read by tifffile: pip install 'batchcam\[tiff\]'"):
        decode_image(colour_tiff(noise(6, 7, 5), extra=0), Decoding(channels=5))


def test_grey_and_colours_are_pillows_and_need_no_tifffile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for image in (Image.fromarray(noise(6, 7)), Image.fromarray(noise(6, 7, dtype="uint16"))):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF")
        array_of(buffer.getvalue(), Decoding(channels=1, range=(0, 255)))
