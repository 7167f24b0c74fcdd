"""Every kind of data that people have, and whether it is read: a table of the docs, and a test of each."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batchcam.images.tables import NOTHING_SAID, Reading
from tests.helpers import places
from tests.helpers.places import CLASSES, IMAGES, label_of

HERE = __name__
NAMES = [*IMAGES]
LABELS = [*map(label_of, NAMES)]
PATHS = [f"photos/{name}" for name in NAMES]
STEMS = [Path(name).stem for name in NAMES]
ONE_HOT = [[name, *(int(label == name) for label in LABELS)] for name in CLASSES]

FILES, PIXELS, ONE = "files", "pixels", "one"
"""What proves that a kind is read: the digests of the six files, or of their pixels, or that its one image is."""

CLASS, SEVERAL, NONE = "class", "several", "none"
"""Labels: the class of each image, several of them, or none."""


@dataclasses.dataclass(frozen=True)
class DataKind:
    """A kind of data.

    Attributes:
        given: what it is, in the docs' words.
        words: what names it on the command line.
        make: writes one into a folder; returns what it is called there.
        says: how what explain says of it ends where it is refused; "" where it is read.
        reading: what options say.
        proof, labels: what is to be read of it.
        helped: follows what explain says; returns what it is called then. Only where that can be followed.
        package: that it needs.
    """

    given: str
    words: str
    make: Callable[[Path], str]
    says: str = ""
    reading: Reading = NOTHING_SAID
    proof: str = FILES
    labels: str = CLASS
    helped: Callable[[Path], tuple[str, Reading]] | None = None
    package: str = ""


def table(*columns: Sequence[Any], separator: str = ",", name: str = "x.csv", **encoding: str) -> Callable[[Path], str]:
    """Return what writes a table of these columns, each its name first, beside the folder of images."""

    def make(place: Path) -> str:
        places.folder(place)
        for file, stem in zip(NAMES, STEMS, strict=True):
            shutil.copy(place / "photos" / file, place / f"{stem}.png")
        with (place / name).open("w", newline="", **({"encoding": "utf-8"} | encoding)) as file:
            csv.writer(file, delimiter=separator).writerows(zip(*columns, strict=True))
        return str(place / name)

    return make


def lines(*rows: Any) -> Callable[[Path], str]:
    def make(place: Path) -> str:
        places.folder(place)
        (place / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(place / "x.jsonl")

    return make


def deep(place: Path) -> str:
    for name in NAMES:
        (place / "deep" / label_of(name) / "2024" / Path(name).stem).mkdir(parents=True)
        (place / "deep" / label_of(name) / "2024" / Path(name).stem / "x.png").write_bytes(IMAGES[name])
    return str(place / "deep")


def linked(place: Path) -> str:
    places.folder(place)
    (place / "linked").mkdir()
    for name in CLASSES:
        (place / "linked" / name).symlink_to(place / "photos" / name)
    return str(place / "linked")


def flat(place: Path) -> str:
    (place / "flat").mkdir()
    for name, stem in zip(NAMES, STEMS, strict=True):
        (place / "flat" / f"ILSVRC2012_val_{stem}.PNG").write_bytes(IMAGES[name])
    return str(place / "flat")


def splits(place: Path) -> str:
    for split in ("train", "val"):
        shutil.copytree(places.folder(place), place / "data" / split)
    return str(place / "data")


def text_list(place: Path) -> str:
    places.folder(place)
    text = "".join(f"{path} {CLASSES.index(label)}\n" for path, label in zip(PATHS, LABELS, strict=True))
    (place / "x.txt").write_text(text)
    return str(place / "x.txt")


def coco(place: Path) -> str:
    places.folder(place)
    images = [{"id": row, "file_name": path} for row, path in enumerate(PATHS)]
    (place / "x.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return str(place / "x.json")


def gzipped(place: Path) -> str:
    tar = Path(places.tar(place))
    Path(f"{tar}.gz").write_bytes(gzip.compress(tar.read_bytes()))
    return f"{tar}.gz"


def linked_tar(place: Path) -> str:
    places.folder(place)
    with tarfile.open(place / "x.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, content in IMAGES.items():
            info = tarfile.TarInfo("./" + "long/" * 30 + name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return str(place / "x.tar")


def arrays(place: Path) -> str:
    np.savez(place / "x.npz", images=np.stack([_pixels(content) for content in IMAGES.values()]))
    return str(place / "x.npz")


def one_image(name: str, content: Callable[[Path], object] | bytes) -> Callable[[Path], str]:
    def make(place: Path) -> str:
        (place / "ant").mkdir()
        (place / "ant" / name).write_bytes(content) if isinstance(content, bytes) else content(place / "ant" / name)
        return str(place)

    return make


def noise(dtype: Any, top: int, *shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, top, shape or (16, 16)).astype(dtype))


def all_formats(place: Path) -> str:
    (place / "ant").mkdir()
    for ending in ("avif", "bmp", "gif", "jpg", "jp2", "png", "ppm", "tif", "webp"):
        noise(np.uint8, 256, 16, 16, 3).save(place / "ant" / f"x.{ending}")
    return str(place)


def in_memory_url(write: Callable[[Path], str]) -> Callable[[Path], str]:
    """Return what puts what is written so behind a URL; `memory://` stands for all schemes that fsspec knows."""

    def make(place: Path) -> str:
        import fsspec

        (place / "shelf").mkdir()
        data = write(place / "shelf")
        fsspec.filesystem("memory").put(f"{place}/shelf/", f"memory://{place.name}/", recursive=True)
        return data.replace(str(place / "shelf"), f"memory://{place.name}")

    return make


def urls_in_csv(place: Path) -> str:
    address = in_memory_url(places.folder)(place)
    return table(["path", *(f"{address}/{name}" for name in NAMES)], ["label", *LABELS])(place)


def named(name: str) -> Callable[[Path], str]:
    return lambda place: f"python:{HERE}:{name}"


class Pictures:
    """A dataset of the user's own code."""

    targets = tuple(map(CLASSES.index, LABELS))
    classes = CLASSES

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.open(io.BytesIO(IMAGES[NAMES[index]])), self.targets[index]


class Several(Pictures):
    targets = ((1, 0, 1), (0, 1, 0), (0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 1))


class Lmdb(Pictures):
    """LMDB, as the docs have it."""

    place = ""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import lmdb

        if not hasattr(self, "db"):
            self.db = lmdb.open(Lmdb.place, readonly=True, lock=False)
        return Image.open(io.BytesIO(self.db.begin().get(b"%08d" % index))), self.targets[index]


def lmdb(place: Path) -> str:
    import lmdb

    Lmdb.place = str(place / "x.lmdb")
    with lmdb.open(Lmdb.place, map_size=2**24) as db, db.begin(write=True) as write:
        for index, content in enumerate(IMAGES.values()):
            write.put(b"%08d" % index, content)
    return f"python:{HERE}:Lmdb"


class Npz(Pictures):
    """What of a file of NumPy's is read by a few lines."""

    place = ""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.fromarray(np.load(Npz.place)["images"][index]), self.targets[index]


def npz_by_code(place: Path) -> tuple[str, Reading]:
    Npz.place = str(place / "x.npz")
    return f"python:{HERE}:Npz", NOTHING_SAID


def as_json_lines(place: Path) -> None:
    images = json.loads((place / "x.json").read_text())["images"]
    rows = [{"path": each["file_name"], "label": label} for each, label in zip(images, LABELS, strict=True)]
    (place / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def stl10(place: Path) -> str:
    (place / "stl10_binary").mkdir()
    for split in ("train", "test"):
        (place / "stl10_binary" / f"{split}_X.bin").write_bytes(bytes(3 * 96 * 96))
        (place / "stl10_binary" / f"{split}_y.bin").write_bytes(b"\1")
    (place / "stl10_binary" / "class_names.txt").write_text("\n".join(f"c{k}" for k in range(10)))
    return f"stl10:{place}"


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def followed(change: Callable[[Path], object], name: str, reading: Reading = NOTHING_SAID) -> Any:
    """Return what changes the files as it was told to, and then calls the data by this name."""

    def follow(place: Path) -> tuple[str, Reading]:
        change(place)
        return str(place / name), reading

    return follow


def as_utf8(place: Path) -> None:
    (place / "y.csv").write_text((place / "x.csv").read_text("windows-1252"), "utf-8")


def ungzip(place: Path) -> None:
    (place / "photos.tar").write_bytes(gzip.decompress((place / "photos.tar.gz").read_bytes()))


def with_commas(place: Path) -> None:
    text = (place / "x.txt").read_text().replace(" ", ",")
    (place / "x.csv").write_text("path,label\n" + text)


CSV = table(["path", *PATHS], ["label", *LABELS])
MEANT = Reading({"path": "image_id", "label": "diagnosis"}, "", ".png")

KINDS: tuple[DataKind, ...] = (
    # folders
    DataKind("class folders, as `ImageFolder`", "photos", places.folder),
    DataKind("class folders with folders below", "photos", deep),
    DataKind("class folders that are links", "photos", linked),
    DataKind("a flat folder, also ImageNet's validation images", "photos", flat, labels=NONE),
    DataKind(
        "a folder of splits, `train` and `val`",
        "data",
        splits,
        r"did you mean .*/data/val\?",
        helped=followed(lambda place: None, "data/val"),
    ),
    # CSV and its like
    DataKind("CSV `path,label`", "list.csv", CSV),
    DataKind("CSV `filename,label`", "list.csv", table(["filename", *PATHS], ["label", *LABELS])),
    DataKind("CSV `image,class`", "list.csv", table(["image", *PATHS], ["class", *LABELS])),
    DataKind("CSV `Path,Label`", "list.csv", table(["Path", *PATHS], ["Label", *LABELS])),
    DataKind(
        "CSV with a column of row numbers, as pandas writes",
        "list.csv",
        table(["", *range(6)], ["path", *PATHS], ["label", *LABELS]),
    ),
    DataKind("CSV separated by semicolons", "list.csv", table(["path", *PATHS], ["label", *LABELS], separator=";")),
    DataKind("CSV separated by tabs", "list.csv", table(["path", *PATHS], ["label", *LABELS], separator="\t")),
    DataKind("CSV separated by bars", "list.csv", table(["path", *PATHS], ["label", *LABELS], separator="|")),
    DataKind(
        "CSV of UTF-8 with its mark", "list.csv", table(["path", *PATHS], ["label", *LABELS], encoding="utf-8-sig")
    ),
    DataKind(
        "CSV of UTF-16, as Excel writes", "list.csv", table(["path", *PATHS], ["label", *LABELS], encoding="utf-16")
    ),
    DataKind(
        "CSV of Windows-1252 with umlauts",
        "list.csv",
        table(["path", *PATHS], ["label", *LABELS], ["site", *["Köln"] * 6], encoding="windows-1252"),
        "iconv -f WINDOWS-1252 -t UTF-8",
        helped=followed(as_utf8, "y.csv"),
    ),
    DataKind(
        "CSV of ids without ending (HAM10000, APTOS)",
        "list.csv --columns path=image_id,label=diagnosis --suffix .png",
        table(["image_id", *STEMS], ["diagnosis", *LABELS]),
        reading=MEANT,
    ),
    DataKind(
        "CSV `path` without ending",
        "list.csv",
        table(["path", *STEMS], ["label", *LABELS]),
        r"say --suffix \.png$",
        helped=followed(lambda place: None, "x.csv", Reading({}, "", ".png")),
    ),
    DataKind(
        "CSV of class indices, also `1.0`",
        "list.csv",
        table(["path", *PATHS], ["label", *(float(CLASSES.index(label)) for label in LABELS)]),
    ),
    DataKind(
        "CSV of class indices from 1",
        "list.csv",
        table(["path", *PATHS], ["label", *(CLASSES.index(label) + 1 for label in LABELS)]),
        "labels are 0…2, -1 where not known; and as a class name the model does not know 1$",
    ),
    DataKind(
        "CSV of absolute paths",
        "list.csv",
        lambda place: table(["path", *(f"{place}/{path}" for path in PATHS)], ["label", *LABELS])(place),
    ),
    DataKind(
        "CSV of paths with backslashes",
        "list.csv",
        table(["path", *(path.replace("/", "\\") for path in PATHS)], ["label", *LABELS]),
    ),
    DataKind(
        "CSV of paths with a drive, `C:\\…`",
        "list.csv",
        table(["path", *(f"C:\\{path}" for path in PATHS)]),
        "has a drive of Windows, which is not here: write paths as this machine has them",
    ),
    DataKind("CSV of URLs", "list.csv", urls_in_csv, package="fsspec"),
    DataKind("TSV", "list.tsv", table(["path", *PATHS], ["label", *LABELS], separator="\t", name="x.tsv")),
    DataKind(
        "JSON Lines",
        "list.jsonl",
        lines(*({"file_name": p, "label": label} for p, label in zip(PATHS, LABELS, strict=True))),
    ),
    DataKind("Parquet of paths", "list.parquet", places.manifest_parquet, package="pyarrow"),
    DataKind(
        "text of paths and class indices (Caffe, mmpretrain)",
        "list.txt",
        text_list,
        "commas and a header, path,label, make it a .csv",
        helped=followed(with_commas, "x.csv"),
    ),
    DataKind(
        "COCO's JSON",
        "instances.json",
        coco,
        "an object a line, with path and label, makes it a .jsonl",
        helped=followed(as_json_lines, "x.jsonl"),
    ),
    # several labels a sample
    DataKind(
        "CSV of lists, `ant|bee`",
        "list.csv",
        table(["path", *PATHS], ["label", *["ant|bee", "cat"] * 3]),
        labels=SEVERAL,
    ),
    DataKind(
        "CSV of one-hot columns, `ant,bee,cat`",
        "list.csv --problem-type single-label",
        table(["path", *PATHS], *ONE_HOT),
        labels=SEVERAL,
    ),
    DataKind(
        "NIH ChestX-ray14",
        "Data_Entry.csv --columns 'path=Image Index,label=Finding Labels'",
        table(["Image Index", *PATHS], ["Finding Labels", *["ant|cat", "No Finding"] * 3], ["Patient Age", *[50] * 6]),
        reading=Reading({"path": "Image Index", "label": "Finding Labels"}),
        labels=SEVERAL,
    ),
    DataKind(
        "CheXpert",
        "train.csv",
        table(
            ["Path", *PATHS], ["Sex", *["F"] * 6], *([name, *["1.0", "0.0", "-1.0", "", "1.0", ""]] for name in CLASSES)
        ),
        labels=SEVERAL,
    ),
    DataKind(
        "lists in JSON Lines, or a list column of Parquet",
        "list.jsonl",
        lines(*({"path": path, "labels": ["ant", "cat"]} for path in PATHS)),
        labels=SEVERAL,
    ),
    # archives and what holds its images
    DataKind("zip of a folder", "photos.zip", places.zip_of),
    DataKind("a folder in a zip", "photos.zip/photos", lambda place: f"{places.zip_of(place)}/photos"),
    DataKind("tar of a folder", "photos.tar", places.tar),
    DataKind("tar of long names below `./`", "photos.tar", linked_tar),
    DataKind(
        "tar.gz of a folder",
        "photos.tar.gz",
        gzipped,
        "is compressed as a whole, so that no image can be read alone: unpack it to a .tar",
        helped=followed(ungzip, "photos.tar"),
    ),
    DataKind("WebDataset", "wds:train-{000..001}.tar", places.webdataset),
    DataKind("Hugging Face, `save_to_disk`", "hf:saved", places.saved, package="pyarrow"),
    DataKind("Hugging Face, Parquet as on the hub", "hf:hub", places.hub, package="pyarrow"),
    DataKind("Parquet with a column of images", "images.parquet", places.parquet, package="pyarrow"),
    DataKind("LMDB", "python:mine:Photos", lmdb, proof=PIXELS, package="lmdb"),
    DataKind(
        "NumPy's npz, as MedMNIST",
        "images.npz",
        arrays,
        "a python: dataset of yours may read it",
        helped=npz_by_code,
        proof=PIXELS,
    ),
    # where it lies
    DataKind("a folder in a bucket", "s3://bucket/photos", in_memory_url(places.folder), package="fsspec"),
    DataKind(
        "a manifest of relative paths in a bucket",
        "gs://bucket/list.csv",
        in_memory_url(places.manifest_csv),
        package="fsspec",
    ),
    DataKind("an archive of the web", "https://host/photos.zip", in_memory_url(places.zip_of), package="fsspec"),
    DataKind(
        "WebDataset in a bucket",
        "wds:s3://bucket/train-{000..001}.tar",
        in_memory_url(places.webdataset),
        package="fsspec",
    ),
    DataKind("Hugging Face's Parquet in a bucket", "hf:s3://bucket/hub", in_memory_url(places.hub), package="pyarrow"),
    # datasets of code
    DataKind("STL10's binary files", "stl10:data", stl10, proof=ONE),
    DataKind(
        "a dataset of torchvision",
        "torchvision:ImageFolder:photos",
        lambda place: f"torchvision:ImageFolder:{places.folder(place)}",
        proof=PIXELS,
    ),
    DataKind("a map-style dataset of your own", "python:mine:Photos", named("Pictures"), proof=PIXELS),
    DataKind(
        "one whose labels are vectors, as CelebA", "python:mine:Photos", named("Several"), proof=PIXELS, labels=SEVERAL
    ),
    # formats of images
    DataKind("AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP", "photos", all_formats, proof=ONE, labels=CLASS),
    DataKind(
        "PNG of 16 bits", "photos", one_image("x.png", lambda file: noise(np.uint16, 65536).save(file)), proof=ONE
    ),
    DataKind(
        "PNG of 12 bits in 16",
        "photos",
        one_image("x.png", lambda file: noise(np.uint16, 4096).save(file)),
        "Say --bits 16, or how many are used, such as --bits 12",
    ),
    DataKind(
        "HEIC without its plugin",
        "photos",
        one_image("x.heic", b"\0\0\0\x18ftypheic" + bytes(99)),
        "pip install pillow-heif",
    ),
    DataKind(
        "JPEG XL without its plugin",
        "photos",
        one_image("x.jxl", b"\xff\x0a" + bytes(99)),
        "pip install pillow-jxl-plugin",
    ),
)


def read_kinds() -> int:
    """Return how many kinds are read."""
    return sum(not kind.says for kind in KINDS)
