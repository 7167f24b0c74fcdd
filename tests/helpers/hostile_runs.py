"""Runs as someone sends them who knows this code and means harm: every digest is right, the content is not.

`ATTACKS` lists functions that each change a finished run of 21 samples in three shards. `outside` is a folder beside it
with files that nobody may open.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from batchcam.store.document import seal
from batchcam.store.layout import array_shape, create, new_file, write_classes, write_header, write_scales
from batchcam.store.plan import Plan, shard_table
from batchcam.store.schema import sample_arrays
from tests.helpers.damage import edit_document, shard_sum, write_digest
from tests.helpers.synthetic import ORIGIN, synthetic_plan

MIDDLE, MIDDLE_FIRST, MIDDLE_COUNT = "shards/shard-00001.h5", 8, 8

Attack = Callable[[Path, Path], None]
ATTACKS: dict[str, Attack] = {}
"""By name; each is given the run and the folder of canaries."""


HARMLESS = {"error_of_half_a_megabyte", "thousands_of_attributes"}
"""Survived without a finding: nothing that the schema says of a run is wrong with it."""

HEAVY = {"maps_that_unfold_a_thousandfold"}
"""Survived, and takes its time."""


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def named(name: str, function: Attack) -> None:
    ATTACKS[name] = function


def reseal(run: Path) -> None:
    """Make every digest, size and table right without looking into what was changed."""
    shards = sorted((run / "shards").glob("*.h5"))
    for path in shards:
        write_digest(path)
    with contextlib.suppress(OSError, KeyError, RuntimeError), h5py.File(run / "run.h5", "r+") as master:
        digests = [hashlib.sha256(p.read_bytes()).hexdigest().encode() for p in shards]
        if master.get("shards", getlink=True) and isinstance(master.get("shards", getlink=True), h5py.HardLink):
            master["shards/sha256"][...] = digests
            master["shards/bytes"][...] = [p.stat().st_size for p in shards]
    write_digest(run / "run.h5")
    content = json.loads((run / "manifest.json").read_bytes())
    master = run / "run.h5"
    content["master"].update(bytes=master.stat().st_size, sha256=hashlib.sha256(master.read_bytes()).hexdigest())
    edit_document(run / "manifest.json", shards=shard_sum(shards), master=content["master"])


@contextlib.contextmanager
def opened(run: Path, name: str = MIDDLE) -> Iterator[h5py.File]:
    with h5py.File(run / name, "r+") as file:
        yield file
    reseal(run)


def make_outside(folder: Path) -> Path:
    """Make files worth stealing: HDF5 with arrays like a shard's, raw bytes, a folder of plugins."""
    folder.mkdir()
    with h5py.File(folder / "canary.h5", "w") as file:
        for name, kind, shape in (("label", "i8", ()), ("crop_box", "f4", (4,)), ("status", "u1", ())):
            for count in (MIDDLE_COUNT, 21):
                file[f"{name}{count}"] = np.ones((count, *shape), kind)
        file["config"], file["classifier/bias"] = b"secret", np.ones(5, "f4")
        file["classifier/weight"] = np.ones((5, 7), "f4")
    (folder / "canary.raw").write_bytes(b"secret: " * 4096)
    (folder / "libh5canary.so").write_bytes(b"\x7fELF no plugin")
    return folder


class Watch:
    """The names of files of a folder that any process opened or read while it was watched (inotify)."""

    OPEN, ACCESS = 0x20, 0x1

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0 or self._libc.inotify_add_watch(
            self._descriptor, os.fsencode(folder), self.OPEN | self.ACCESS
        ) < 0:  # fmt: skip
            raise OSError(ctypes.get_errno(), "inotify")

    def touched(self) -> set[str]:
        """Return the names since the last call; "" is the folder itself."""
        names = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 65536):
                place = 0
                while place < len(data):
                    _, _, _, length = struct.unpack_from("iIII", data, place)
                    names.add(data[place + 16 : place + 16 + length].rstrip(b"\0").decode())
                    place += 16 + length
        return names

    def close(self) -> None:
        os.close(self._descriptor)


# links


def _linked(array: str, link: Callable[[Path], Any], name: str = MIDDLE) -> Attack:
    def change(run: Path, outside: Path) -> None:
        with opened(run, name) as file:
            del file[array]
            file[array] = link(outside)

    return change


for _array in ("label", "crop_box", "config", "classifier", "classifier/bias", "class_name", "cam_y"):
    _target = {"label": "label8", "crop_box": "crop_box8"}.get(_array, _array)
    named(
        f"external_link_at_{_array}",
        _linked(_array, lambda outside, t=_target: h5py.ExternalLink(str(outside / "canary.h5"), t)),
    )
for _array in ("label", "config", "classifier"):
    named(
        f"relative_external_link_at_{_array}",
        _linked(_array, lambda outside, t=_array: h5py.ExternalLink("../../outside/canary.h5", t)),
    )
    named(f"soft_link_at_{_array}", _linked(_array, lambda outside, t=_array: h5py.SoftLink(f"/bait/{t}")))
for _array in ("label", "shards", "shards/sha256", "classifier", "sample_id", "error"):
    named(
        f"external_link_of_run_h5_at_{_array}",
        _linked(_array, lambda outside, t=_array: h5py.ExternalLink(str(outside / "canary.h5"), t), "run.h5"),
    )


@attack
def soft_link_into_an_external_link(run: Path, outside: Path) -> None:
    with opened(run) as file:
        file["bait"] = h5py.ExternalLink(str(outside / "canary.h5"), "/")
        del file["label"]
        file["label"] = h5py.SoftLink("/bait/label8")


@attack
def soft_link_that_leads_back_to_itself(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["label"]
        file["label"] = h5py.SoftLink("/label")


@attack
def hard_links_in_a_circle(run: Path, outside: Path) -> None:
    with opened(run) as file:
        file["classifier/up"] = file["/"]
        file["round"] = file["classifier"]


@attack
def groups_thousands_deep(run: Path, outside: Path) -> None:
    with opened(run) as file:
        here = file
        for _ in range(2000):
            here = here.create_group("g")


@attack
def many_names(run: Path, outside: Path) -> None:
    with opened(run) as file:
        for number in range(3000):
            file[f"x{number:05d}\n\x1b[2J"] = h5py.SoftLink("/")


@attack
def extra_external_link(run: Path, outside: Path) -> None:
    with opened(run) as file:
        file["notes"] = h5py.ExternalLink(str(outside / "canary.h5"), "label8")


# content that lies elsewhere


def _external(array: str, path: Callable[[Path], str], name: str = MIDDLE) -> Attack:
    def change(run: Path, outside: Path) -> None:
        with opened(run, name) as file:
            old = file[array]
            shape, dtype = old.shape, old.dtype
            del file[array]
            size = int(np.prod(shape)) * dtype.itemsize
            space = h5py.h5s.create_simple(shape)
            storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            storage.set_external(os.fsencode(path(outside)), 0, size)
            h5py.h5d.create(file.id, array.encode(), h5py.h5t.py_create(dtype), space, storage)

    return change


for _array in ("label", "cams", "logits", "maps", "sample_id", "class_name", "status"):
    named(f"external_storage_of_{_array}", _external(_array, lambda outside: str(outside / "canary.raw")))
named("external_storage_by_a_relative_path", _external("label", lambda outside: "../../outside/canary.raw"))
named("external_storage_in_a_device", _external("label", lambda outside: "/dev/zero"))
named("external_storage_of_run_h5", _external("label", lambda outside: str(outside / "canary.raw"), "run.h5"))


@attack
def external_storage_in_a_pipe(run: Path, outside: Path) -> None:
    os.mkfifo(outside / "pipe")
    _external("label", lambda outside: str(outside / "pipe"))(run, outside)


def _virtual(array: str, source: Callable[[Path], str], name: str = MIDDLE) -> Attack:
    def change(run: Path, outside: Path) -> None:
        with opened(run, name) as file:
            old = file[array]
            shape, dtype = old.shape, old.dtype
            del file[array]
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(source(outside), f"{array}{shape[0]}", shape, dtype)
            file.create_virtual_dataset(array, layout)

    return change


for _array in ("label", "crop_box", "status"):
    named(f"virtual_{_array}", _virtual(_array, lambda outside: str(outside / "canary.h5")))
    named(f"virtual_{_array}_of_run_h5", _virtual(_array, lambda outside: str(outside / "canary.h5"), "run.h5"))
named("virtual_by_a_relative_path", _virtual("label", lambda outside: "../../outside/canary.h5"))
named("virtual_of_run_h5_by_a_relative_path", _virtual("status", lambda outside: "../outside/canary.h5", "run.h5"))
named(
    "virtual_of_run_h5_through_the_shard_folder",
    _virtual("status", lambda outside: "shards/../../outside/canary.h5", "run.h5"),
)
named("virtual_in_itself", _virtual("label", lambda outside: "."))


def _unlimited(array: str, name: str) -> Attack:
    """A virtual dataset without an end: HDF5 opens its sources to find its shape."""

    def change(run: Path, outside: Path) -> None:
        with opened(run, name) as file:
            dtype = file[array].dtype
            del file[array]
            endless = h5py.h5s.UNLIMITED
            storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            target = h5py.h5s.create_simple((0,), (endless,))
            target.select_hyperslab((0,), (endless,), (8,), (8,))
            source = h5py.h5s.create_simple((8,))
            for number in range(2):
                (outside / f"part{number}.h5").write_bytes((outside / "canary.h5").read_bytes())
            storage.set_virtual(target, os.fsencode(outside / "part%b.h5"), b"label8", source)
            h5py.h5d.create(file.id, array.encode(), h5py.h5t.py_create(dtype), target, storage)

    return change


named("virtual_without_an_end", _unlimited("label", MIDDLE))
named("virtual_of_run_h5_without_an_end", _unlimited("status", "run.h5"))


# types

TYPES: dict[str, Any] = {
    "compound": np.dtype([("a", "i4"), ("b", "f8")]),
    "opaque": h5py.opaque_dtype(np.dtype("V8")),
    "variable_length": h5py.vlen_dtype(np.int32),
    "variable_text": h5py.string_dtype(),
    "reference": h5py.ref_dtype,
    "region": h5py.regionref_dtype,
    "enum": h5py.enum_dtype({"A": 1, "B": 2}, "i4"),
    "array": np.dtype(("i4", (3,))),
    "float16": np.dtype("f2"),
    "big_endian": np.dtype(">i8"),
    "wide_text": h5py.string_dtype("utf-8", 2**20),
    "boolean": np.dtype(bool),
    "complex": np.dtype("c8"),
}
ARRAYS = (
    *(a.name for a in sample_arrays("uint8")),
    *("classifier/weight", "classifier/bias", "class_name", "config", "cam_y", "channel", "box_edge"),
)


def typed(array: str, kind: str, name: str = MIDDLE) -> Attack:
    """An array of another type, its shape as it should be."""

    def change(run: Path, outside: Path) -> None:
        with opened(run, name) as file:
            shape = file[array].shape
            del file[array]
            file.create_dataset(array, shape, TYPES[kind])

    return change


for _kind in TYPES:
    named(f"label_of_type_{_kind}", typed("label", _kind))
for _array in ("sample_id", "config", "class_name", "cam_y", "classifier/bias", "maps"):
    named(f"{_array}_of_type_compound", typed(_array, "compound"))
    named(f"{_array}_of_type_variable_text", typed(_array, "variable_text"))
named("label_of_run_h5_of_type_reference", typed("label", "reference", "run.h5"))
named("offsets_of_run_h5_of_type_float16", typed("shards/first", "float16", "run.h5"))


@attack
def committed_type_in_place_of_an_array(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["label"]
        file["label"] = np.dtype("i8")


@attack
def group_in_place_of_an_array(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["label"]
        file.create_group("label")


@attack
def array_in_place_of_a_group(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["classifier"]
        file["classifier"] = np.arange(3)


@attack
def label_of_no_extent(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["label"]
        file["label"] = h5py.Empty("i8")


@attack
def label_of_many_dimensions(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["label"]
        file.create_dataset("label", (8,) + (1,) * 30, "i8")


# filters


def _filtered(array: str, filters: list[tuple[int, tuple[int, ...]]]) -> Attack:
    def change(run: Path, outside: Path) -> None:
        with opened(run) as file:
            old = file[array]
            shape, dtype, chunks = old.shape, old.dtype, old.chunks
            del file[array]
            storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            storage.set_chunk(chunks)
            for number, values in filters:
                storage.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
            dataset = h5py.Dataset(
                h5py.h5d.create(
                    file.id, array.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), storage
                )
            )
            # marked as filtered by all of them, whether the library has them or not
            dataset.id.write_direct_chunk((0,) * len(shape), b"\0" * 64)

    return change


named("filter_that_needs_a_plugin", _filtered("label", [(32015, (3,))]))
named("filter_of_a_reserved_number", _filtered("label", [(65535, ())]))
named("filter_lzf_that_h5py_brings", _filtered("label", [(32000, (4, 261, 64))]))
named("deflate_twice", _filtered("maps", [(1, (1,)), (1, (1,))]))
named("deflate_where_none_belongs", _filtered("logits", [(1, (9,))]))
named("many_filters", _filtered("label", [(32100 + n, ()) for n in range(30)]))


# sizes


def claims(**changes: Any) -> Attack:
    """A run that is consistent in itself and claims arrays that no byte on disk stands for."""

    def change(run: Path, outside: Path) -> None:
        plan = synthetic_plan(**{"sample_count": 8, "shard_size": 8, **changes})
        for path in (run / "shards").iterdir():
            path.unlink()
        content = {"batchcam_version": "1", "run_id": plan.run_id, "plan": plan.to_dict(), "origin": ORIGIN}
        (run / "run.json").write_bytes(seal({**content, "shards": shard_table(plan)}))
        for shard in plan.shards:
            _claim(run / "shards" / shard.file, plan, shard.first, shard.count)
        _claim(run / "run.h5", plan, 0, plan.sample_count)
        master = {"file": "run.h5", "first": 0, "count": plan.sample_count, "bytes": 0, "sha256": ""}
        edit_document(run / "manifest.json", run_id=plan.run_id, master=master)
        reseal(run)

    return change


def _claim(path: Path, plan: Plan, first: int, count: int) -> None:
    buffer = io.BytesIO()
    with new_file(buffer) as file, contextlib.suppress(MemoryError, ValueError):
        write_header(file, plan, first, count)
        sizes = {name: tuple(min(n, 2**16) for n in getattr(plan, name)) for name in ("grid_size", "input_size")}
        write_scales(file, dataclasses.replace(plan, channels=min(plan.channels, 2**16), **sizes))
        classes = len(plan.class_names)
        write_classes(file, plan, np.zeros((classes, 1), "f4"), np.zeros(classes, "f4"))
        del file["classifier/weight"]
        file.create_dataset(
            "classifier/weight", (classes, plan.channels), "f4", chunks=(1, min(plan.channels, 2**20)), fletcher32=True
        )
        for array in sample_arrays(plan.maps):
            shape = array_shape(array, plan, count)
            with contextlib.suppress(ValueError, KeyError, RuntimeError, OSError):
                create(file, array, shape, 4)
    path.write_bytes(buffer.getvalue())


named("claims_two_billion_samples", claims(sample_count=2**31, shard_size=2**31))
named("claims_half_a_million_million_samples", claims(sample_count=2**39, shard_size=2**39))
named("claims_a_grid_of_a_million_cells_a_side", claims(grid_size=(2**20, 2**20)))
named("claims_a_huge_input", claims(input_size=(2**14, 2**14)))
named("claims_a_huge_input_without_maps", claims(input_size=(2**14, 2**14), maps="none"))
named("claims_a_terapixel_input", claims(input_size=(2**20, 2**20), maps="none"))
named("claims_a_million_million_channels", claims(channels=2**39))
named("claims_long_sample_ids", claims(sample_id_bytes=2**39))


def sized(array: str, shape: tuple[int, ...], **how: Any) -> Attack:
    """One array with a shape of its own, never written."""

    def change(run: Path, outside: Path) -> None:
        with opened(run) as file:
            dtype = file[array].dtype
            del file[array]
            file.create_dataset(array, shape, how.get("dtype", dtype), chunks=how.get("chunks", True))

    return change


named("label_of_huge_shape", sized("label", (2**40,)))
named("cams_of_huge_shape", sized("cams", (8, 5, 2**20, 2**20)))
named("config_of_huge_shape", sized("config", (2**40,), dtype="S1"))
named("class_name_of_huge_shape", sized("class_name", (2**40,)))
named("error_of_huge_width", sized("error", (8,), dtype="S1000000000", chunks=(1,)))
named("error_of_half_a_megabyte", sized("error", (8,), dtype="S65536", chunks=(8,)))
named("cam_y_of_huge_shape", sized("cam_y", (2**40,)))
named("label_in_huge_chunks", sized("label", (8,), chunks=(8,)))


@attack
def label_in_a_chunk_larger_than_itself(run: Path, outside: Path) -> None:
    with opened(run) as file:
        del file["label"]
        file.create_dataset("label", (8,), "i8", chunks=(2**28,), maxshape=(None,))


@attack
def maps_that_unfold_a_thousandfold(run: Path, outside: Path) -> None:
    """16 KiB of deflated zeros for every map of 16 MiB: the file is as large as its content needs."""
    side = 2**12
    claims(input_size=(side, side))(run, outside)
    chunk = zlib.compress(b"\0" * side * side, 9)
    with opened(run, "shards/shard-00000.h5") as file:
        for row in range(8):
            file["maps"].id.write_direct_chunk((row, 0, 0), chunk)


# attributes


def attributed(name: str, value: Callable[[h5py.File], Any]) -> Attack:
    def change(run: Path, outside: Path) -> None:
        with opened(run) as file:
            del file.attrs[name]
            file.attrs[name] = value(file)

    return change


for _name in ("run_id", "first_sample", "schema_version", "checkpoint_sha256"):
    named(f"{_name}_of_variable_text", attributed(_name, lambda file: "x" * 64))
    named(f"{_name}_as_a_reference", attributed(_name, lambda file: file["label"].ref))
    named(f"{_name}_as_a_table", attributed(_name, lambda file: np.zeros(3, [("a", "i4")])))
    named(f"{_name}_of_a_megabyte", attributed(_name, lambda file: np.zeros(2**20, "u1")))
    named(f"{_name}_of_no_extent", attributed(_name, lambda file: h5py.Empty("i8")))
named("first_sample_as_a_float", attributed("first_sample", lambda file: np.nan))
named("sample_count_beyond_all_numbers", attributed("sample_count", lambda file: np.uint64(2**64 - 1)))


@attack
def thousands_of_attributes(run: Path, outside: Path) -> None:
    with opened(run) as file:
        for number in range(2000):
            file.attrs[f"a{number}"] = number


# files


def _symlinked(name: str) -> Attack:
    def change(run: Path, outside: Path) -> None:
        (run / name).rename(outside / "moved")
        (run / name).symlink_to(outside / "moved")

    return change


for _file in (MIDDLE, "shards", "run.h5", "run.json", "manifest.json", MIDDLE + ".sha256", "run.h5.sha256"):
    named(f"{_file}_is_a_symlink", _symlinked(_file))


def _replaced(name: str, make: Callable[[Path], Any]) -> Attack:
    def change(run: Path, outside: Path) -> None:
        path = run / name
        if name.startswith("task"):
            path = next(run.glob("task-*.json"))
        path.unlink()
        make(path)

    return change


for _file in (MIDDLE, "run.h5", "run.json", "manifest.json", MIDDLE + ".sha256", "run.h5.sha256", "task"):
    named(f"{_file}_is_a_pipe", _replaced(_file, os.mkfifo))
    named(f"{_file}_is_a_folder", _replaced(_file, os.mkdir))
    named(f"{_file}_is_a_device", _replaced(_file, lambda path: path.symlink_to("/dev/zero")))


def _bytes(name: str, content: Callable[[bytes], bytes]) -> Attack:
    return lambda run, outside: (run / name).write_bytes(content((run / name).read_bytes())) and None


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


for _file in ("run.json", "manifest.json"):
    named(f"{_file}_nests_a_million_deep", _bytes(_file, lambda old: b"[" * 10**6))
    named(f"{_file}_nests_tables", _bytes(_file, lambda old: b'{"a":' * 10**5 + b"1" + b"}" * 10**5))
    named(f"{_file}_is_a_terabyte", _replaced(_file, _huge))
    named(f"{_file}_is_binary", _bytes(_file, lambda old: os.urandom(1000)))
    named(f"{_file}_is_empty", _bytes(_file, lambda old: b""))
    named(f"{_file}_holds_a_number_without_end", _bytes(_file, lambda old: b'{"a": ' + b"9" * 10**6 + b"}"))
    named(f"{_file}_holds_infinity", _bytes(_file, lambda old: b'{"a": 1e999}'))
    named(f"{_file}_holds_nan", _bytes(_file, lambda old: b'{"a": NaN}'))
    named(f"{_file}_holds_a_list", _bytes(_file, lambda old: b"[1, 2]"))
    named(f"{_file}_holds_many_lists", _bytes(_file, lambda old: b"[" + b"[]," * 10**5 + b"[]]"))


def planned(**changes: Any) -> Attack:
    """A plan that no writer makes; run id and shard table follow where they can."""

    def change(run: Path, outside: Path) -> None:
        content = json.loads((run / "run.json").read_bytes())
        edit_document(run / "run.json", plan={**content["plan"], **changes})

    return change


named("plan_of_sample_count_2_to_62", planned(sample_count=2**62))
named("plan_of_negative_samples", planned(sample_count=-1))
named("plan_of_no_samples", planned(sample_count=0))
named("plan_of_a_thousand_million_shards", planned(sample_count=10**9, shard_size=1))
named("plan_of_shards_of_nothing", planned(shard_size=0))
named("plan_of_a_float", planned(sample_count=21.0))
named("plan_of_true", planned(sample_count=True))
named("plan_of_grid_3d", planned(grid_size=[3, 5, 7]))
named("plan_of_no_classes", planned(class_names=[]))
named("plan_of_unknown_maps", planned(maps="../../x"))
named("plan_of_topk_without_end", planned(cams="topk:" + "9" * 5000))


@attack
def shard_table_leads_out_of_the_run(run: Path, outside: Path) -> None:
    content = json.loads((run / "run.json").read_bytes())
    edit_document(run / "run.json", shards={**content["shards"], "first_file": "../../outside/canary.h5"})


@attack
def manifest_leads_out_of_the_run(run: Path, outside: Path) -> None:
    content = json.loads((run / "manifest.json").read_bytes())
    edit_document(run / "manifest.json", shards={**content["shards"], "file": "../../outside/canary.h5"})


@attack
def manifest_names_another_run_h5(run: Path, outside: Path) -> None:
    content = json.loads((run / "manifest.json").read_bytes())
    content["master"]["file"] = "../outside/canary.h5"
    edit_document(run / "manifest.json", master=content["master"])


@attack
def shard_that_is_no_hdf5(run: Path, outside: Path) -> None:
    (run / MIDDLE).write_bytes(b"not HDF5" * 1000)
    reseal(run)


@attack
def shard_cut_in_half(run: Path, outside: Path) -> None:
    (run / MIDDLE).write_bytes((run / MIDDLE).read_bytes()[:20000])
    reseal(run)
