"""DICOM files, made by pydicom, against the formulas of DICOM's part 3, C.11."""

from __future__ import annotations

import io
import multiprocessing
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batchcam.images.decoding import UnsupportedImageError, decode_image
from batchcam.images.planes import TOLD, Decoding
from tests.images.test_planes import array_of, noise

pydicom: Any = pytest.importorskip("pydicom")

DEEP = noise(6, 9, dtype="uint16", high=4096)


def dicom(array: np.ndarray, *, syntax: str = "1.2.840.10008.1.2.1", **elements: Any) -> bytes:
    """Return a file of these values; elements by their keywords, None leaves one out."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = pydicom.Dataset()
    file.file_meta = meta
    bits = 8 * array.dtype.itemsize
    said = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": "1.2.3",
        "Rows": array.shape[0],
        "Columns": array.shape[1],
        "SamplesPerPixel": array.shape[2] if array.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if array.ndim == 3 else "MONOCHROME2",
        "PlanarConfiguration": 0 if array.ndim == 3 else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(array.dtype.kind == "i"),
        "PixelData": array.tobytes(),
    }
    for keyword, value in {**said, **elements}.items():
        if value is not None:
            setattr(file, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


WINDOW = {"WindowCenter": 1000, "WindowWidth": 1501}


def windowed(values: np.ndarray, centre: float = 1000, width: float = 1501) -> np.ndarray:
    """Return 8 bits by C.11.2.1.2.1, written as it stands there."""
    grey = ((values.astype(float) - (centre - 0.5)) / (width - 1) + 0.5) * 255
    grey[values <= centre - 0.5 - (width - 1) / 2] = 0
    grey[values > centre - 0.5 + (width - 1) / 2] = 255
    return np.rint(grey).astype(np.uint8)


@pytest.mark.parametrize(
    ("array", "elements", "expected"),
    [
        (DEEP, WINDOW, windowed(DEEP)),
        (DEEP, {**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}, 255 - windowed(DEEP)),
        (DEEP, {**WINDOW, "RescaleSlope": 2, "RescaleIntercept": -1024}, windowed(2.0 * DEEP - 1024)),
        ((DEEP.astype(int) - 2000).astype(np.int16), WINDOW, windowed(DEEP.astype(int) - 2000)),
        (DEEP, {"WindowCenter": [1000, 7], "WindowWidth": [1501, 3]}, windowed(DEEP)),
        (noise(6, 9), {}, noise(6, 9)),
        (noise(6, 9), {"RescaleSlope": 1, "RescaleIntercept": 0}, noise(6, 9)),
        (noise(6, 9), {"PhotometricInterpretation": "MONOCHROME1"}, 255 - noise(6, 9)),
    ],
    ids=["window", "monochrome1", "rescaled", "signed", "first-window", "8-bits", "identity", "8-bits-monochrome1"],
)
def test_grey_is_what_the_standard_says(array: np.ndarray, elements: dict[str, Any], expected: np.ndarray) -> None:
    found = array_of(dicom(array, **elements), Decoding(channels=1))[..., 0]
    assert np.abs(found.astype(int) - expected).max() <= ("Window" in str(elements))  # halves are rounded either way
    assert (found == expected).mean() > 0.95
    np.testing.assert_array_equal(array_of(dicom(array, **elements), Decoding()), np.repeat(found[..., None], 3, 2))


def test_an_exact_window_is_its_own_formula() -> None:
    data = dicom(DEEP, **WINDOW, VOILUTFunction="LINEAR_EXACT")
    expected = ((DEEP - 1000.0) / 1501 + 0.5).clip(0, 1) * 255
    assert np.abs(array_of(data, Decoding(channels=1))[..., 0] - expected).max() <= 0.51


def test_a_range_takes_the_place_of_the_window_in_rescaled_values() -> None:
    data = dicom(DEEP, **WINDOW, RescaleSlope=2, RescaleIntercept=-1024, PhotometricInterpretation="MONOCHROME1")
    expected = 1 - ((2.0 * DEEP - 1024 + 1000) / 3000).clip(0, 1).astype(np.float32)
    np.testing.assert_array_equal(array_of(data, Decoding(channels=1, range=(-1000, 2000)))[..., 0], expected)


def test_the_window_is_told_unless_a_range_is_said() -> None:
    image = decode_image(dicom(DEEP, **WINDOW), Decoding(channels=1))
    assert isinstance(image, Image.Image)
    assert "the first window" in image.info[TOLD]
    assert TOLD not in decode_image(dicom(noise(6, 9))).info  # type: ignore[union-attr]


def test_colours_are_read_as_they_are() -> None:
    array = noise(6, 9, 3)
    np.testing.assert_array_equal(array_of(dicom(array), Decoding()), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dicom(DEEP, NumberOfFrames=3, PixelData=DEEP.tobytes() * 3), "a DICOM file of 3 frames: store each as a file"),
        (dicom(DEEP), "uint16 values without a defined range: say --range LOW,HIGH"),
        (dicom(DEEP, PixelData=None), "without pixels"),
        (dicom(DEEP, **WINDOW, VOILUTFunction="SIGMOID"), "window of kind SIGMOID: say --range"),
        (dicom(DEEP, WindowCenter=3, WindowWidth=1), "window of no width"),
        (dicom(DEEP, Rows=65535, Columns=65535), "decompression bomb"),
    ],
    ids=["frames", "no-window", "no-pixels", "sigmoid", "no-width", "bomb"],
)
def test_what_has_no_grey_values_by_itself_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnsupportedImageError, match=message):
        decode_image(data)


def test_a_compression_that_nothing_here_reads_names_the_plugins() -> None:
    frames = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    data = dicom(DEEP, syntax="1.2.840.10008.1.2.4.70", PixelData=frames)
    with pytest.raises(UnsupportedImageError, match=r"compressed by JPEG Lossless.*install a plugin.*pylibjpeg"):
        decode_image(data)
    film = dicom(DEEP, syntax="1.2.840.10008.1.2.4.102", PixelData=frames)
    with pytest.raises(UnsupportedImageError, match=r"compressed by MPEG-4.*which pydicom does not read"):
        decode_image(film)


def test_without_pydicom_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(DEEP, **WINDOW)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnsupportedImageError, match=r"read by pydicom: pip install 'batchcam\[dicom\]'"):
        decode_image(data)


def test_a_fork_reads_what_its_parent_reads() -> None:
    data = dicom(DEEP, **WINDOW)
    here = array_of(data, Decoding())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for there in pool.starmap_async(array_of, [(data, Decoding())] * 4).get(60):
            np.testing.assert_array_equal(there, here)
