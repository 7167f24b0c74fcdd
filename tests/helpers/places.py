"""One set of images, written in every way in which a dataset may lie: by the libraries that own the formats."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")
SIDE = 16


def image_bytes(seed: int) -> bytes:
    """Return a PNG of noise."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


IMAGES = {f"{CLASSES[seed // 2]}/{seed:02d}.png": image_bytes(seed) for seed in range(6)}
"""By path below the folder, in the order in which a folder of them is listed."""


def label_of(name: str) -> str:
    """Return the class of an image."""
    return name.split("/")[0]


def folder(place: Path) -> str:
    for name, content in IMAGES.items():
        (place / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "photos" / name).write_bytes(content)
    return str(place / "photos")


def tar(place: Path, **settings: Any) -> str:
    folder(place)
    with tarfile.open(place / "photos.tar", "w", **settings) as file:
        file.add(place / "photos", "photos")
    return str(place / "photos.tar")


def zip_of(place: Path, method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(place / "photos.zip", "w", method) as file:
        for name, content in IMAGES.items():
            file.writestr(f"photos/{name}", content)
    return str(place / "photos.zip")


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """Write a tar of these members, as webdataset's TarWriter does: ustar, no folders."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def webdataset(place: Path) -> str:
    for shard in range(2):
        members = []
        for name in list(IMAGES)[3 * shard : 3 * shard + 3]:
            label = str(CLASSES.index(label_of(name))).encode()
            members += [(name, IMAGES[name]), (name.replace(".png", ".cls"), label)]
        write_tar(place / f"train-{shard:03d}.tar", members)
    return f"wds:{place}/train-{{000..001}}.tar"


def manifest_csv(place: Path) -> str:
    folder(place)
    with (place / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((f"photos/{name}", label_of(name)) for name in IMAGES)])
    return str(place / "list.csv")


def manifest_jsonl(place: Path) -> str:
    folder(place)
    rows = [{"file_name": f"photos/{name}", "label": label_of(name)} for name in IMAGES]
    (place / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place / "list.jsonl")


def manifest_parquet(place: Path) -> str:
    import pandas as pd

    folder(place)
    pd.DataFrame({"path": [f"photos/{n}" for n in IMAGES], "label": [*map(label_of, IMAGES)]}).to_parquet(
        place / "list.parquet"
    )
    return str(place / "list.parquet")


def arrow_images(paths: Sequence[str | None] | None = None) -> Any:
    """Return the images as `datasets` keeps them: bytes and paths, labels by number, their names in the metadata."""
    import pyarrow as pa

    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "site": {"dtype": "string", "_type": "Value"},
    }
    images = [{"bytes": b, "path": p} for b, p in zip(IMAGES.values(), paths or IMAGES, strict=True)]
    columns = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array([CLASSES.index(label_of(name)) for name in IMAGES], pa.int64()),
        "site": pa.array([f"s{i % 2}" for i in range(len(IMAGES))]),
    }
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(place: Path) -> str:
    import pyarrow.parquet as pq

    pq.write_table(arrow_images(), place / "images.parquet", row_group_size=4)
    return str(place / "images.parquet")


def hub(place: Path) -> str:
    import pyarrow.parquet as pq

    (place / "hub" / "data").mkdir(parents=True)
    for part in range(2):
        table = arrow_images().slice(3 * part, 3)
        pq.write_table(table, place / "hub" / "data" / f"test-{part:05d}-of-00002.parquet", row_group_size=2)
    return f"hf:{place}/hub"


def saved(place: Path) -> str:
    """Write what `DatasetDict.save_to_disk` of datasets 5.0 writes, but for what is not read here."""
    import pyarrow as pa

    split = place / "saved" / "test"
    split.mkdir(parents=True)
    (place / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["test"]}))
    for part in range(2):
        table = arrow_images().slice(3 * part, 3)
        path = str(split / f"data-{part:05d}-of-00002.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    files = [{"filename": f"data-{part:05d}-of-00002.arrow"} for part in range(2)]
    (split / "state.json").write_text(json.dumps({"_data_files": files, "_split": "test", "_fingerprint": "0"}))
    return f"hf:{place}/saved"


WRITERS: tuple[Callable[[Path], str], ...] = (
    *(folder, tar, zip_of, webdataset, manifest_csv, manifest_jsonl, manifest_parquet, parquet, hub, saved),
)
