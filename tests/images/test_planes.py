"""Images of other channels than three and of other values than bytes, against numpy and against formulas by hand."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from batchcam.images.decoding import UnsupportedImageError, decode_image, image_of
from batchcam.images.planes import Decoding, planes, shown


def noise(*shape: int, dtype: str = "uint8", high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def array_of(data: bytes, decoding: Decoding) -> np.ndarray:
    """Return what was decoded, (H, W, C)."""
    arrays = [np.atleast_3d(np.asarray(plane)) for plane in planes(decode_image(data, decoding))]
    return np.concatenate(arrays, axis=2)


def test_grey_for_one_channel_is_what_is_stored_and_for_three_the_same_thrice() -> None:
    grey = noise(5, 7)
    data = encoded(Image.fromarray(grey))
    np.testing.assert_array_equal(array_of(data, Decoding(channels=1)), grey[..., None])
    np.testing.assert_array_equal(array_of(data, Decoding()), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK", "LA"])
def test_colours_for_one_channel_are_their_luma(mode: str) -> None:
    data = encoded(Image.fromarray(noise(6, 4, 3)).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    colours = array_of(data, Decoding()).astype(float)
    luma = colours @ [0.299, 0.587, 0.114]
    assert np.abs(array_of(data, Decoding(channels=1))[..., 0] - luma).max() <= 0.51


def test_a_range_keeps_all_bits_and_clips_what_lies_outside() -> None:
    deep = noise(5, 7, dtype="uint16", high=65536)
    for data in (encoded(Image.fromarray(deep)), encoded(Image.fromarray(deep), "TIFF"), saved(deep)):
        for channels in (1, 3):
            expected = np.clip((deep.astype(float) - 1000) / (40000 - 1000), 0, 1).astype(np.float32)
            found = array_of(data, Decoding(channels=channels, range=(1000, 40000)))
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, np.repeat(expected[..., None], channels, 2))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_range_says_what_floats_and_integers_mean(dtype: str) -> None:
    values = (noise(5, 7, dtype="int32", high=4000) - 1000).astype(dtype)
    data = encoded(Image.fromarray(values), "TIFF")
    expected = ((values.astype(float) + 1024) / 4096).clip(0, 1).astype(np.float32)
    np.testing.assert_array_equal(array_of(data, Decoding(channels=1, range=(-1024, 3072)))[..., 0], expected)
    with pytest.raises(UnsupportedImageError, match="without a defined range: say --range LOW,HIGH"):
        decode_image(data, Decoding(channels=1))


def test_a_range_of_bytes_is_what_bytes_are_and_colours_have_their_luma() -> None:
    colours = noise(5, 7, 3)
    data = encoded(Image.fromarray(colours))
    as_floats = array_of(data, Decoding(range=(0, 255)))
    np.testing.assert_array_equal(as_floats, (colours / 255).astype(np.float32))
    luma = array_of(data, Decoding(channels=1, range=(0, 255)))[..., 0]
    np.testing.assert_allclose(luma, colours / 255 @ [0.299, 0.587, 0.114], rtol=1e-6)


@pytest.mark.parametrize("first", [True, False], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_the_networks_channels_is_read_with_these_first_or_last(first: bool, order: str) -> None:
    array = noise(5, 7, 4)
    stored = np.asarray(array.transpose(2, 0, 1) if first else array, order=order)
    np.testing.assert_array_equal(array_of(saved(stored), Decoding(channels=4)), array)


@pytest.mark.parametrize(
    ("array", "decoding", "message"),
    [
        (noise(4, 7, 4), Decoding(channels=4), "channels may be first or last"),
        (noise(5, 7, 6), Decoding(channels=4), r"\(5, 7, 6\): expected \(H, W\), \(H, W, 4\) or \(4, H, W\)"),
        (noise(5, 7), Decoding(channels=4), "an image of 1 channel: the network takes 4"),
        (noise(5, 7, dtype="uint16"), Decoding(), "uint16 values without a defined range: say --range LOW,HIGH"),
        (np.array([[np.nan, 1.0]]), Decoding(range=(0, 1)), "NaN or infinity among its values"),
        (np.array([["a"]]), Decoding(), "store numbers"),
        (np.array([[{}]], object), Decoding(), "store numbers"),
    ],
)
def test_an_array_that_may_be_meant_otherwise_is_refused(array: np.ndarray, decoding: Decoding, message: str) -> None:
    with pytest.raises(UnsupportedImageError, match=message):
        decode_image(saved(array), decoding)


def test_an_array_whose_header_promises_more_than_there_is_is_unreadable_and_takes_no_memory() -> None:
    data = saved(noise(4, 4)).replace(b"(4, 4)", b"(9, 9)")
    with pytest.raises(Exception, match="cannot decode"):
        decode_image(data)
    with pytest.raises(UnsupportedImageError, match="decompression bomb"):
        decode_image(saved(np.zeros((1, 1), np.uint8)).replace(b"(1, 1), }        ", b"(9999999, 9999), }"))


@pytest.mark.parametrize("channels", [4, 2])
def test_alpha_is_a_channel_for_a_network_that_takes_as_many(channels: int) -> None:
    array = noise(5, 7, channels)
    np.testing.assert_array_equal(array_of(encoded(Image.fromarray(array)), Decoding(channels=channels)), array)


def test_three_channels_are_none_for_a_network_that_takes_five() -> None:
    with pytest.raises(UnsupportedImageError, match="an image of 3 channels: the network takes 5"):
        decode_image(encoded(Image.fromarray(noise(5, 7, 3))), Decoding(channels=5))


def test_deep_colours_have_no_range_where_only_their_high_bits_are_read() -> None:
    data = cv2.imencode(".png", noise(5, 7, 3, dtype="uint16", high=65536))[1].tobytes()
    with pytest.raises(UnsupportedImageError, match="16-bit colours or transparency"):
        decode_image(data, Decoding(range=(0, 65535)))


def test_values_that_pillow_scales_have_no_range() -> None:
    values = noise(5, 7, dtype="uint16", high=4096)
    data = b"P5 7 5 4095\n" + values.astype(">u2").tobytes()
    with pytest.raises(UnsupportedImageError, match="a PPM of fewer than 16 bits, which Pillow scales"):
        decode_image(data, Decoding(range=(0, 4095)))


@pytest.mark.parametrize(("channels", "seen"), [(5, [0, 1, 2]), (4, [0, 1, 2]), (2, [0, 0, 0]), (1, [0, 0, 0])])
def test_pictures_show_the_first_three_channels_or_the_first(channels: int, seen: list[int]) -> None:
    array = noise(5, 7, channels)
    for decoding in (Decoding(channels=channels), Decoding(channels=channels, range=(0, 255))):
        np.testing.assert_array_equal(shown(image_of(array, decoding)), array[..., seen])


@pytest.mark.parametrize(
    ("array", "limits"), [(noise(20, 20) // 2 + 9, (0.0, 1.0)), (noise(20, 20, high=99), (-9.0, -1.0))]
)
def test_an_image_of_which_nothing_lies_in_the_range_is_refused(array: np.ndarray, limits: tuple[float, float]) -> None:
    with pytest.raises(UnsupportedImageError, match=r"of its values, \d+ to \d+, lie outside of .*, which --range"):
        image_of(array, Decoding(range=limits))
    some = array.astype(np.float32)
    some[0] = limits[1]  # 5 per cent
    image_of(some, Decoding(range=limits))
