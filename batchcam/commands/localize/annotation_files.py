"""What annotation files state: an entry for each object, under the name that the file has for its image."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from batchcam.errors import DatasetError
from batchcam.rules import composed

ID_COLUMNS: Final = ("id", "sample_id", "path", "image", "image index")
"""Columns of a CSV file that can name the sample, the first that it has; the last is ChestX-ray14's."""

CLASS_COLUMNS: Final = ("class", "label", "finding", "finding label")

SIZED_BOX: Final = ("bbox [x", "y", "w", "h]")
"""As ChestX-ray14 heads x, y, width, height."""

BOX_COLUMNS: Final = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), SIZED_BOX)
SIZE_COLUMNS: Final = ("height", "width")
MASK_COLUMN: Final = "mask"
IGNORE_COLUMN: Final = "ignore"

LOCALIZATION_FILE: Final = "localization.txt"
SIZES_FILE: Final = "image_sizes.txt"
LABELS_FILE: Final = "class_labels.txt"
IDS_FILE: Final = "image_ids.txt"

YOLO_OTHERS: Final = ("classes.txt", "train.txt", "val.txt", "test.txt", "obj.txt")
"""Text files beside YOLO's that state no boxes."""

ROUNDING: Final = 1e-3
"""Shares of an image may reach so far beyond it: they are written with few digits."""

WHOLE: Final = re.compile("[0-9]{1,9}")
"""A number of pixels, or a class index: more digits would not fit where they are kept."""

MASK_ENDINGS: Final = frozenset((".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"))


class Entry(NamedTuple):
    """One object as a file states it; `where` tells people which line, `class_name` is "" where it names none."""

    where: str
    name: str
    box: tuple[float, float, float, float] | None = None
    mask: str = ""
    ignored: str = ""
    size: tuple[int, int] | None = None
    class_name: str = ""


def csv_entries(file: Path) -> Iterator[Entry]:
    """Yield what a CSV file with a header states.

    Raises:
        DatasetError: it can't be read, or a line can't be understood.
    """
    lines = _csv_lines(file)
    _, header = next(lines, (0, []))
    columns = {name.strip().lower(): i for i, name in reversed(list(enumerate(header)))}
    key = next((columns[c] for c in ID_COLUMNS if c in columns), None)
    box_names = next((names for names in BOX_COLUMNS if set(names) <= set(columns)), ())
    box = [columns[name] for name in box_names]
    class_ = next((columns[c] for c in CLASS_COLUMNS if c in columns), None)
    mask, ignored = columns.get(MASK_COLUMN), columns.get(IGNORE_COLUMN)
    size = [columns[c] for c in SIZE_COLUMNS] if set(SIZE_COLUMNS) <= set(columns) else None
    if key is None or (not box and mask is None):
        wanted = f"a column {', '.join(ID_COLUMNS)}, and x0, y0, x1, y1 or mask"
        raise DatasetError(f"{file}: its first line has to name {wanted}; it names {', '.join(header)}")
    for number, cells in lines:
        where = f"{file}:{number}"
        if len(cells) != len(header):
            raise DatasetError(f"{where}: {len(cells)} cells under {len(header)} columns")
        numbers = [cells[i].strip() for i in box]
        read = _sized_box if box_names == SIZED_BOX else _box
        entry = Entry(
            where,
            cells[key],
            read(numbers, where) if any(numbers) else None,
            cells[mask].strip() if mask is not None else "",
            cells[ignored].strip() if ignored is not None else "",
            _size([cells[i] for i in size], where) if size and all(cells[i].strip() for i in size) else None,
            cells[class_].strip() if class_ is not None else "",
        )
        if entry.box is None and not entry.mask:
            raise DatasetError(f"{where}: neither a box nor a mask for {entry.name}")
        yield entry


def _csv_lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not empty."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except OSError as error:
        raise DatasetError(f"{file}: cannot read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: not a CSV file in UTF-8: {error}") from error


def wsol_entries(folder: Path) -> Iterator[Entry]:
    """Yield what `localization.txt` states, of the images in `image_ids.txt` if there is one."""
    sizes = {name: _size([height, width], where) for where, (name, width, height) in fields(folder / SIZES_FILE, (3,))}
    listed = {name for _, (name,) in fields(folder / IDS_FILE, (1,))}
    for where, (name, *rest) in fields(folder / LOCALIZATION_FILE, (3, 5)):
        if listed and name not in listed:
            continue
        if len(rest) == 4:
            yield Entry(where, name, _box(rest, where), size=sizes.get(name))
        else:
            yield Entry(where, name, mask=rest[0], ignored=rest[1])


def fields(file: Path, counts: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line of one of WSOL's text files stands and its fields; nothing where there is no file."""
    try:
        with open(file, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                fields = line.rstrip("\r\n").split(",")
                if fields == [""]:
                    continue
                if len(fields) not in counts or not fields[0]:
                    raise DatasetError(
                        f"{file}:{number}: {len(fields)} fields instead of {' or '.join(map(str, counts))}"
                    )
                yield f"{file}:{number}", fields
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetError(f"{file}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: not UTF-8: {error}") from error


def coco_entries(file: Path) -> Iterator[Entry]:
    """Yield what COCO's JSON states: boxes x, y, width, height in pixels of images of a stated size.

    Raises:
        DatasetError: it can't be read, is none, or states something else than boxes.
    """
    try:
        content = json.loads(file.read_bytes())
        images = {
            image["id"]: (image["file_name"], image.get("width"), image.get("height")) for image in content["images"]
        }
        names = {each["id"]: str(each["name"]) for each in content.get("categories", ())}
        objects = [
            (each["image_id"], each["bbox"], bool(each.get("iscrowd")), names.get(each.get("category_id"), ""))
            for each in content["annotations"]
        ]
    except OSError as error:
        raise DatasetError(f"{file}: cannot read: {error.strerror}") from error
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise DatasetError(f"{file}: not COCO's JSON, whose images and annotations have boxes: {told}") from error
    for number, (image, corner_and_size, is_crowd, class_name) in enumerate(objects):
        where = f"{file}: annotations[{number}]"
        if image not in images or not _is_four_numbers(corner_and_size):
            raise DatasetError(f"{where}: no image of the file, or no bbox of x, y, width, height")
        name, width, height = images[image]
        box = _sized_box(corner_and_size, where)
        size = _size([str(height), str(width)], where) if width and height else None
        if not is_crowd:  # a region of many objects
            yield Entry(where, str(name), box, size=size, class_name=class_name)


def _is_four_numbers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(each, (int, float)) for each in value)


def yolo_entries(folder: Path, sample_ids: Sequence[str]) -> Iterator[Entry]:
    """Yield the boxes of YOLO's text files: class, centre and size as shares of the image; or class and a polygon.

    A class is named by its line in classes.txt, where there is one, else by its number.

    Raises:
        DatasetError: a file can't be read, or a line can't be understood.
    """
    stems = _stems(sample_ids)
    listed = folder / YOLO_OTHERS[0]
    names = listed.read_text("utf-8", "replace").splitlines() if listed.is_file() else []
    for path in _files(folder, (".txt",)):
        name = _named(path.relative_to(folder).as_posix(), stems)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: cannot read: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip() and path.name not in YOLO_OTHERS:
                where, (class_, *shares) = f"{path}:{number}", line.split()
                named = names[int(class_)] if WHOLE.fullmatch(class_) and int(class_) < len(names) else class_
                yield Entry(where, name, _box_of_shares(shares, where), size=(1, 1), class_name=named)


def _box_of_shares(cells: Sequence[str], where: str) -> tuple[float, float, float, float]:
    try:
        shares = [float(cell) for cell in cells]
    except ValueError:
        shares = []
    if len(shares) >= 6 and len(shares) % 2 == 0:
        xs, ys = shares[::2], shares[1::2]
    elif len(shares) in (4, 5):  # five: with a confidence
        x, y, width, height = shares[:4]
        xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    else:
        raise DatasetError(f"{where}: no line of YOLO's: want class, x, y, width, height, or class and a polygon")
    if not all(-ROUNDING <= edge <= 1 + ROUNDING for edge in (*xs, *ys)):
        raise DatasetError(f"{where}: {' '.join(cells)} are no shares of the image, from 0 to 1")
    return _box([min(1.0, max(0.0, edge)) for edge in (min(xs), min(ys), max(xs), max(ys))], where)


def is_yolo(folder: Path) -> bool:
    """Return whether a folder holds text files, and no picture that could be a mask."""
    return next(_files(folder, (".txt",)), None) is not None and next(_files(folder, MASK_ENDINGS), None) is None


def mask_entries(folder: Path, sample_ids: Sequence[str], by_class: bool) -> Iterator[Entry]:
    """Yield each mask of a folder under the id of the sample whose name it has, up to the ending.

    Args:
        by_class: the folder has one for each class.
    """
    stems = _stems(sample_ids)
    ids = frozenset(sample_ids)
    for path in _files(folder):
        name = place = path.relative_to(folder).as_posix()
        class_name = ""
        if by_class and "/" in place:
            class_name, _, name = place.partition("/")
        yield Entry(str(path), name if name in ids else _named(name, stems), mask=place, class_name=class_name)


def _stems(sample_ids: Sequence[str]) -> dict[str, str]:
    """Return the samples by what their ids are without ending."""
    stems: dict[str, str] = {}
    for each in sample_ids:
        stem = composed(os.path.splitext(each)[0])
        stems[stem] = "" if stem in stems else each  # "": two samples differ in their endings alone
    return stems


def _files(folder: Path, endings: Collection[str] = MASK_ENDINGS) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(parent, f) for f in sorted(files) if os.path.splitext(f)[1].lower() in endings)


def _named(name: str, stems: dict[str, str]) -> str:
    """Return the name of a mask's image: the mask's own up to the ending, which is that of the sample."""
    written = os.path.splitext(name)[0]
    stem = composed(written)
    starts = (0, *(i + 1 for i, c in enumerate(stem) if c == "/"))
    return next((written + os.path.splitext(stems[stem[i:]])[1] for i in starts if stems.get(stem[i:])), name)


def _box(cells: Sequence[str | float], where: str) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = map(float, cells)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{where}: {', '.join(map(str, cells))} is no box: want x0, y0, x1, y1") from error
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or not (0 <= x0 <= x1 and 0 <= y0 <= y1):
        raise DatasetError(f"{where}: {', '.join(map(str, cells))} is no box: want 0 <= x0 <= x1 and 0 <= y0 <= y1")
    return x0, y0, x1, y1


def _sized_box(cells: Sequence[str | float], where: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = map(float, cells)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{where}: {', '.join(map(str, cells))} is no box: want x, y, width, height") from error
    return _box((x, y, x + width, y + height), where)


def _size(cells: Sequence[str], where: str) -> tuple[int, int]:
    height, width = (each.strip() for each in cells)
    if not all(WHOLE.fullmatch(each) and int(each) for each in (height, width)):
        raise DatasetError(f"{where}: {width}, {height} is no width and height in pixels")
    return int(height), int(width)
