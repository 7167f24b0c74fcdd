"""Functions that each break a finished run in exactly one way.

Those that change content make every digest right again afterwards, as someone would who knows this code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from batchcam.record.totals import Totals, needs_a_look
from batchcam.store.document import DIGEST_KEY, seal

MIDDLE = "shards/shard-00001.h5"
MIDDLE_FIRST = 8
"""First sample of the shard that is damaged; it holds 8."""


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def write_digest(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")


def edit_document(path: Path, **changes: Any) -> None:
    """Change a JSON document and seal it again."""
    content = json.loads(path.read_bytes())
    del content[DIGEST_KEY]
    path.write_bytes(seal({**content, **changes}))


def shard_sum(shards: list[Path]) -> dict[str, int | str]:
    """What a manifest states of the shards, from their files and those of their digests."""
    lines = b"".join(path.with_name(path.name + ".sha256").read_bytes() for path in shards)
    sizes = (path.stat().st_size for path in shards)
    return {"count": len(shards), "bytes": sum(sizes), "sha256": hashlib.sha256(lines).hexdigest()}


def forget_list(run: Path) -> None:
    """Make it a run of a version that wrote no samples.h5."""
    edit_document(run / "run.json", samples=None)
    (run / "samples.h5").unlink()


@contextlib.contextmanager
def edited(run: Path, name: str = MIDDLE) -> Iterator[h5py.File]:
    """Open a shard or run.h5 for writing, then make digests, run.h5 and manifest agree with the shards."""
    with h5py.File(run / name, "r+") as file:
        yield file
    make_digests_right(run, copy_columns=name != "run.h5")


def make_digests_right(run: Path, copy_columns: bool = True) -> None:
    shards = sorted((run / "shards").glob("*.h5"))
    for path in shards:
        write_digest(path)
    with h5py.File(run / "run.h5", "r+") as master:
        if copy_columns:
            _copy_columns(master, shards)
        if isinstance(master.get("shards/sha256"), h5py.Dataset) and copy_columns:
            master["shards/sha256"][...] = [hashlib.sha256(p.read_bytes()).hexdigest().encode() for p in shards]
            master["shards/bytes"][...] = [p.stat().st_size for p in shards]
    write_digest(run / "run.h5")
    _make_manifest_right(run, shards)


def _copy_columns(master: h5py.File, shards: list[Path]) -> None:
    first = 0
    for path in shards:
        with h5py.File(path) as file:
            count = int(file.attrs["sample_count"])
            for name, dataset in master.items():
                mine = isinstance(dataset, h5py.Dataset) and dataset.shape[:1] == (21,) and not dataset.is_virtual
                if mine and isinstance(file.get(name, getlink=True), h5py.HardLink):
                    values = file[name]
                    if values.shape == (count, *dataset.shape[1:]) and not values.external:
                        dataset[first : first + count] = values[...]
            first += count


def _make_manifest_right(run: Path, shards: list[Path]) -> None:
    content = json.loads((run / "manifest.json").read_bytes())
    master = run / "run.h5"
    content["master"].update(bytes=master.stat().st_size, sha256=hashlib.sha256(master.read_bytes()).hexdigest())
    names = ("label", "prediction", "status", "identity_residual")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in shards:
        with h5py.File(path) as file:
            for name in names:
                columns[name].append(file[name][...])
    counted = Totals()
    counted.add({name: np.concatenate(parts) for name, parts in columns.items()})
    totals = counted.stated()
    edit_document(
        run / "manifest.json",
        shards=shard_sum(shards),
        master=content["master"],
        totals=totals,
        findings=needs_a_look(totals),
    )


# files


def shard_missing(run: Path) -> None:
    (run / MIDDLE).unlink()


def shard_and_its_digest_missing(run: Path) -> None:
    (run / MIDDLE).unlink()
    (run / (MIDDLE + ".sha256")).unlink()


def shard_is_a_link(run: Path) -> None:
    (run / MIDDLE).rename(run.with_name("elsewhere.h5"))
    (run / MIDDLE).symlink_to(run.with_name("elsewhere.h5"))


def shard_truncated(run: Path) -> None:
    content = (run / MIDDLE).read_bytes()
    (run / MIDDLE).write_bytes(content[: len(content) // 2])


def shard_empty(run: Path) -> None:
    (run / MIDDLE).write_bytes(b"")


def shard_byte_flipped(run: Path) -> None:
    flip(run / MIDDLE, (run / MIDDLE).stat().st_size // 2)


def digest_file_flipped(run: Path) -> None:
    flip(run / (MIDDLE + ".sha256"), 5)


def digest_file_missing(run: Path) -> None:
    (run / (MIDDLE + ".sha256")).unlink()


def digest_of_run_h5_missing(run: Path) -> None:
    (run / "run.h5.sha256").unlink()


def extra_file(run: Path) -> None:
    (run / "shards/notes.txt").write_text("mine")


def extra_file_at_the_top(run: Path) -> None:
    (run / "shard-00000.h5").write_text("misplaced")


def leftover_partial(run: Path) -> None:
    (run / "shards/.shard-00001.h5.0123456789abcdef.partial").write_bytes(b"half")


def manifest_missing(run: Path) -> None:
    (run / "manifest.json").unlink()


def manifest_edited(run: Path) -> None:
    path = run / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"samples": 21', '"samples": 22'), encoding="utf-8")


def manifest_of_another_run(run: Path) -> None:
    edit_document(run / "manifest.json", run_id="0" * 64)


def manifest_of_other_shards(run: Path) -> None:
    content = json.loads((run / "manifest.json").read_bytes())
    edit_document(run / "manifest.json", shards={**content["shards"], "count": 2})


def totals_edited(run: Path) -> None:
    content = json.loads((run / "manifest.json").read_bytes())
    edit_document(run / "manifest.json", totals={**content["totals"], "correct": content["totals"]["correct"] + 1})


def findings_of_the_manifest_edited(run: Path) -> None:
    edit_document(run / "manifest.json", findings=[])


def plan_edited(run: Path) -> None:
    path = run / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"layer4"', '"layer3"'), encoding="utf-8")


def plan_edited_and_sealed(run: Path) -> None:
    content = json.loads((run / "run.json").read_bytes())
    edit_document(run / "run.json", plan={**content["plan"], "target_layer": "layer3"})


def task_damaged(run: Path) -> None:
    flip(next(run.glob("task-*.json")), 20)


def run_h5_flipped(run: Path) -> None:
    flip(run / "run.h5", (run / "run.h5").stat().st_size // 2)


def run_h5_missing(run: Path) -> None:
    (run / "run.h5").unlink()


# whole files in the wrong place, digests made right


def shards_swapped(run: Path) -> None:
    first = run / "shards/shard-00000.h5"
    first.rename(run / "other")
    (run / MIDDLE).rename(first)
    (run / "other").rename(run / MIDDLE)
    make_digests_right(run, copy_columns=False)
    with edited(run, "run.h5") as master:
        for name in ("sha256", "bytes"):
            values = master[f"shards/{name}"][...]
            master[f"shards/{name}"][...] = values[[1, 0, 2]]


def shard_of_another_run(run: Path, other: Path) -> None:
    shutil.copyfile(other / MIDDLE, run / MIDDLE)
    make_digests_right(run)


# content, digests made right


def _set(run: Path, array: str, row: object, value: object) -> None:
    with edited(run) as file:
        file[array][row] = value


def wrong_prediction(run: Path) -> None:
    with edited(run) as file:
        file["prediction"][2] = (file["prediction"][2] + 1) % 5


def wrong_confidence(run: Path) -> None:
    with edited(run) as file:
        file["confidence"][2] *= 0.9


def wrong_cam_value(run: Path) -> None:
    """One cell of a class that was not predicted."""
    with edited(run) as file:
        file["cams"][2, (file["prediction"][2] + 1) % 5, 1, 1] += 1


def wrong_cam_of_the_predicted_class(run: Path) -> None:
    """Two cells, so that their mean stays what it was."""
    with edited(run) as file:
        cam = file["cams"][2, file["prediction"][2]]
        lowest = np.unravel_index(cam.argmin(), cam.shape)
        cam[cam == cam.max()] += 1
        cam[lowest] -= 1
        file["cams"][2, file["prediction"][2]] = cam


def wrong_map_pixel(run: Path) -> None:
    with edited(run) as file:
        file["maps"][2, 10, 10] = int(file["maps"][2, 10, 10]) ^ 4


def wrong_map_range(run: Path) -> None:
    with edited(run) as file:
        file["map_range"][2, 1] *= 1.001


def wrong_residual(run: Path) -> None:
    _set(run, "identity_residual", 2, 0.01)


def wrong_logit(run: Path) -> None:
    """The smallest one, so that prediction and confidence stay nearly what they were."""
    with edited(run) as file:
        file["logits"][2, file["logits"][2].argmin()] -= 30


def wrong_flag(run: Path) -> None:
    _set(run, "status", 2, 8)


def flag_taken_away(run: Path) -> None:
    """Of the sample whose map has no positive cell."""
    _set(run, "status", 12 - MIDDLE_FIRST, 0)


def unknown_flag(run: Path) -> None:
    _set(run, "status", 2, 64)


def flags_that_exclude_each_other(run: Path) -> None:
    with edited(run, "shards/shard-00000.h5") as file:
        file["status"][3] = 1 | 8


def numbers_of_an_unreadable_sample(run: Path) -> None:
    with edited(run, "shards/shard-00000.h5") as file:
        file["logits"][3] = 1


def map_of_an_unreadable_sample(run: Path) -> None:
    with edited(run, "shards/shard-00000.h5") as file:
        file["maps"][3, 0, 0] = 255


def sample_twice(run: Path) -> None:
    _set(run, "sample_index", 2, MIDDLE_FIRST + 1)


def sample_id_twice(run: Path) -> None:
    with edited(run) as file:
        file["sample_id"][2] = file["sample_id"][1]


def sample_id_not_text(run: Path) -> None:
    _set(run, "sample_id", 2, b"\xff\xfe.png")


def label_out_of_range(run: Path) -> None:
    _set(run, "label", 2, 5)


def label_below_unknown(run: Path) -> None:
    _set(run, "label", 2, -2)


def label_changed(run: Path) -> None:
    """Into another class that there is."""
    with edited(run) as file:
        file["label"][2] = (file["label"][2] + 1) % 5


def sample_ids_swapped(run: Path) -> None:
    with edited(run) as file:
        file["sample_id"][2:4] = file["sample_id"][2:4][::-1]


def size_of_an_input_changed(run: Path) -> None:
    with edited(run) as file:
        file["input_bytes"][2] += 1


def min_reader_changed(run: Path) -> None:
    with edited(run) as file:
        file.attrs["schema_min_reader"] = np.int64(2)


def error_of_a_readable_sample(run: Path) -> None:
    with edited(run, "shards/shard-00000.h5") as file:
        file["error"][1] = b"broken"


def cam_classes_exchanged(run: Path) -> None:
    with edited(run) as file:
        file["cam_class"][2, :2] = (1, 0)


def extra_array(run: Path) -> None:
    with edited(run) as file:
        file["notes"] = np.arange(3)


def extra_array_of_the_classifier(run: Path) -> None:
    with edited(run) as file:
        file["classifier/scale"] = np.arange(3)


def array_missing(run: Path) -> None:
    with edited(run) as file:
        del file["image_size"]


def scale_missing(run: Path) -> None:
    with edited(run) as file:
        del file["cam_y"]


def scale_changed(run: Path) -> None:
    _set(run, "cam_y", 0, 0.5)


def external_link(run: Path) -> None:
    with edited(run) as file:
        del file["crop_box"]
        file["crop_box"] = h5py.ExternalLink("shard-00000.h5", "crop_box")


def soft_link(run: Path) -> None:
    with edited(run) as file:
        del file["crop_box"]
        file["crop_box"] = h5py.SoftLink("/map_range")


def link_to_the_config(run: Path) -> None:
    with edited(run) as file:
        del file["config"]
        file["config"] = h5py.ExternalLink("shard-00000.h5", "config")


def array_in_another_file(run: Path) -> None:
    with edited(run) as file:
        values = file["image_size"][...]
        del file["image_size"]
        outside = [(str(run / "shards/outside.bin"), 0, values.nbytes)]
        file.create_dataset("image_size", values.shape, values.dtype, external=outside)
    (run / "shards/outside.bin").unlink(missing_ok=True)


def virtual_array(run: Path) -> None:
    with edited(run) as file:
        del file["image_size"]
        layout = h5py.VirtualLayout((8, 2), "i4")
        layout[:] = h5py.VirtualSource("shard-00000.h5", "image_size", (8, 2))
        file.create_virtual_dataset("image_size", layout)


def foreign_filter(run: Path) -> None:
    with edited(run) as file:
        values = file["image_size"][...]
        del file["image_size"]
        file.create_dataset("image_size", data=values, compression="lzf")


def wrong_type(run: Path) -> None:
    with edited(run) as file:
        values = file["image_size"][...]
        del file["image_size"]
        file["image_size"] = values.astype(np.int64)


def wrong_shape(run: Path) -> None:
    with edited(run) as file:
        values = file["image_size"][...]
        del file["image_size"]
        file["image_size"] = values[:-1]


def class_name_changed(run: Path) -> None:
    _set(run, "class_name", 1, b"bee")


def config_changed(run: Path) -> None:
    with edited(run) as file:
        text = file["config"][()]
        file["config"][()] = text.replace(b"layer4", b"layer3")


def attribute_changed(run: Path) -> None:
    with edited(run) as file:
        file.attrs.create("checkpoint_sha256", np.bytes_("e" * 64))


def first_sample_changed(run: Path) -> None:
    with edited(run) as file:
        file.attrs["first_sample"] = np.int64(0)


def bias_changed(run: Path) -> None:
    with edited(run) as file:
        file["classifier/bias"][0] += 1


def weight_changed(run: Path) -> None:
    with edited(run) as file:
        file["classifier/weight"][0, 0] += 1


def column_of_run_h5_changed(run: Path) -> None:
    with edited(run, "run.h5") as master:
        master["logits"][2, 1] += 1


def text_of_run_h5_changed(run: Path) -> None:
    with edited(run, "run.h5") as master:
        master["sample_id"][2] = b"other.png"


def shard_table_of_run_h5_changed(run: Path) -> None:
    with edited(run, "run.h5") as master:
        master["shards/sha256"][1] = b"0" * 64


def class_name_of_run_h5_changed(run: Path) -> None:
    with edited(run, "run.h5") as master:
        master["class_name"][1] = b"bee"


def weight_of_run_h5_changed(run: Path) -> None:
    with edited(run, "run.h5") as master:
        master["classifier/weight"][0, 0] += 1


def reference_of_run_h5_changed(run: Path) -> None:
    """The first two shards change places in run.h5."""
    with edited(run, "run.h5") as master:
        del master["status"]
        layout = h5py.VirtualLayout((21,), "u1")
        for first, shard, count in ((0, 1, 8), (8, 0, 8), (16, 2, 5)):
            source = h5py.VirtualSource(f"shards/shard-{shard:05d}.h5", "status", (count,))
            layout[first : first + count] = source
        master.create_virtual_dataset("status", layout, fillvalue=255)


def cams_of_run_h5_made_up(run: Path) -> None:
    """No reference to the shards any more, and one value is another."""
    with edited(run, "run.h5") as master:
        values = master["cams"][...]
        values[2, 0, 0, 0] += 1
        del master["cams"]
        master["cams"] = values


def array_of_run_h5_missing(run: Path) -> None:
    with edited(run, "run.h5") as master:
        del master["label"]


def extra_array_in_run_h5(run: Path) -> None:
    with edited(run, "run.h5") as master:
        master["notes"] = np.arange(3)
