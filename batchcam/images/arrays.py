"""Images whose channels Pillow does not know: arrays of NumPy (.npy), and TIFFs of any channels and numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batchcam.images.planes import OF_PILLOW, Values, ValuesError

NPY_START: Final = b"\x93NUMPY"
ARRAY_ENDINGS: Final = (".npy",)

_ORIENTATION: Final = 274
_WHITE_IS_ZERO: Final = 0
_PIXEL_AXES: Final = "YX"


def npy_values(data: bytes, channels: int, before: Callable[[int], None]) -> Values:
    """Return the array of an .npy file as an image of so many channels, which stand first or last.

    Args:
        channels: that the network takes.
        before: called with the number of values before they take memory.

    Raises:
        ValuesError: it is no such array.
        ValueError: the file is damaged.
    """
    stream = io.BytesIO(data)
    first_version = np.lib.format.read_magic(stream) == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if first_version else np.lib.format.read_array_header_2_0
    shape, by_columns, kind = read_header(stream)
    if kind.hasobject or kind.kind not in "uif":
        raise ValuesError(f"an array of {kind}: store numbers")
    before(int(np.prod(shape, dtype=np.float64)))
    array: NDArray[np.generic] = np.frombuffer(data, kind, int(np.prod(shape)), stream.tell())
    array = array.reshape(shape, order="F" if by_columns else "C")
    if array.ndim == 2:
        return Values(array)
    known = _known(channels)
    places = [axis for axis in (0, 2) if array.ndim == 3 and shape[axis] in known]
    if len(places) != 1:
        doubt = (
            "channels may be first or last" if places else f"expected (H, W), (H, W, {channels}) or ({channels}, H, W)"
        )
        raise ValuesError(f"an array of shape {shape}: {doubt}")
    return Values(np.moveaxis(array, places[0], 2))


def tiff_values(data: bytes, channels: int, before: Callable[[int], None]) -> tuple[Values, int]:
    """Return the image of a TIFF, whose channels are samples or pages, and its orientation as EXIF has it.

    Raises:
        ValuesError: it has other channels, or can't be read with what is installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ValuesError("a TIFF of such channels is read by tifffile: pip install 'batchcam[tiff]'") from error
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series: Any = file.series[0]
        page: Any = series.keyframe
        before(int(series.size))
        try:
            array = series.asarray()
        except (ValueError, ImportError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise ValuesError(f"a TIFF compressed by {page.compression.name}: pip install imagecodecs") from error
        axes = [name for name, size in zip(series.axes, array.shape, strict=True) if size > 1 or name in _PIXEL_AXES]
        array = array.reshape([size for name, size in zip(series.axes, array.shape, strict=True) if name in axes])
        others = [axes.index(name) for name in axes if name not in _PIXEL_AXES]
        if len(others) > 1 or any(array.shape[axis] not in _known(channels) for axis in others):
            raise ValuesError(f"a TIFF of {series.shape} ({series.axes}): the network takes {channels} channels")
        array = np.moveaxis(array, others[0], 2) if others else array
        orientation = page.tags.get(_ORIENTATION)
        return Values(array, int(page.photometric) == _WHITE_IS_ZERO), int(orientation.value) if orientation else 1


def _known(channels: int) -> Collection[int]:
    return OF_PILLOW if channels in OF_PILLOW else (channels,)
