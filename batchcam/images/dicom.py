"""Single frames of DICOM files, by pydicom."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, MutableSequence
from typing import Any, Final

from batchcam.images.planes import Values, ValuesError

DICOM_ENDINGS: Final = (".dcm", ".dicom")

WINDOW_TOLD: Final = "DICOM: grey values by the first window of each file; --range LOW,HIGH takes another"

_PREAMBLE: Final = 128


def is_dicom(data: bytes) -> bool:
    """Return whether a file is DICOM by its content."""
    return data[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def dicom_values(data: bytes, before: Callable[[int], None]) -> Values:
    """Return a DICOM file's values, rescaled by its slope and intercept; its first window is black to white.

    Args:
        before: called with the number of values before they take memory.

    Raises:
        ValuesError: pydicom or a plugin is not installed, or it has no pixels, or more than one frame.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ValuesError("a DICOM file is read by pydicom: pip install 'batchcam[dicom]'") from error
    logging.getLogger("pydicom").addHandler(logging.NullHandler())  # it tells of odd files on stderr
    file: Any = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in file:
        raise ValuesError("a DICOM file without pixels (PixelData)")
    if (frames := int(file.get("NumberOfFrames") or 1)) > 1:
        raise ValuesError(f"a DICOM file of {frames} frames: store each as a file")
    before(int(file.Rows) * int(file.Columns) * int(file.SamplesPerPixel))
    _require_plugin(file.file_meta.TransferSyntaxUID)
    array = pydicom.pixels.pixel_array(file)
    kind = str(file.PhotometricInterpretation)
    if not kind.startswith("MONOCHROME"):
        return Values(pydicom.pixels.apply_color_lut(array, file) if kind == "PALETTE COLOR" else array)
    if "ModalityLUTSequence" in file or (file.get("RescaleSlope", 1), file.get("RescaleIntercept", 0)) != (1, 0):
        array = pydicom.pixels.apply_modality_lut(array, file)
    window = _first_window(file)
    return Values(array, kind == "MONOCHROME1", window, WINDOW_TOLD if window else "")


def _require_plugin(syntax: Any) -> None:
    """Refuse a compression that pydicom can't decode with what is installed."""
    import pydicom

    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except NotImplementedError as error:
        raise ValuesError(f"a DICOM file compressed by {syntax.name}, which pydicom does not read") from error
    if not decoder.is_available:
        needed = "; or ".join(decoder.missing_dependencies)
        raise ValuesError(f"a DICOM file compressed by {syntax.name}: install a plugin of pydicom's: {needed}")


def _first_window(file: Any) -> tuple[float, float] | None:
    """Return which values are black and white by the first window, DICOM PS3.3 C.11.2.1.2; None where there is none."""
    centre, width = (_first(file.get(name)) for name in ("WindowCenter", "WindowWidth"))
    kind = str(file.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None:
        if "VOILUTSequence" in file:
            raise ValuesError("a DICOM file with a table of grey values (VOI LUT) and no window: say --range LOW,HIGH")
        return None
    if kind == "LINEAR":
        centre, width = centre - 0.5, width - 1
    elif kind != "LINEAR_EXACT":
        raise ValuesError(f"a DICOM window of kind {kind}: say --range LOW,HIGH")
    if width <= 0:
        raise ValuesError("a DICOM window of no width: say --range LOW,HIGH")
    return centre - width / 2, centre + width / 2


def _first(value: Any) -> float | None:
    first = next(iter(value), None) if isinstance(value, MutableSequence) else value
    return None if first in (None, "") else float(first)
