"""A shard: the same rows give the same bytes, and readers without this code see what went in."""

from __future__ import annotations

import gc
import hashlib
import shutil
import subprocess
import threading
import time
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.errors import StorageFullError
from batchcam.store import compression, landing
from batchcam.store.schema import encode_text, sample_arrays
from batchcam.store.shard import PENDING_BYTES, ShardBuilder, ShardWriter, landed_shards
from batchcam.store.stamps import stamp

DIMS = {
    "sample_id": ("sample_index",),
    "input_sha256": ("sample_index", "sha256_byte"),
    "logits": ("sample_index", "class_name"),
    "cams": ("sample_index", "map_rank", "cam_y", "cam_x"),
    "cam_class": ("sample_index", "map_rank"),
    "maps": ("sample_index", "y", "x"),
    "map_range": ("sample_index", "range_end"),
    "crop_box": ("sample_index", "box_edge"),
    "image_size": ("sample_index", "size_axis"),
    "status": ("sample_index",),
    "classifier/weight": ("class_name", "channel"),
    "classifier/bias": ("class_name",),
}


@pytest.fixture
def plan(make_plan):
    """One shard of 40 samples: three chunks of 17 maps, the last one padded."""
    return make_plan(sample_count=40, shard_size=40)


@pytest.fixture
def builder(plan, make_rows):
    rows = make_rows(plan)
    with ThreadPoolExecutor(1) as compressors:
        yield ShardBuilder(plan, plan.shards[0], rows.weight, rows.bias, compressors)


def arrays_of(image: bytes, tmp_path: Path) -> dict[str, np.ndarray]:
    path = tmp_path / "shard.h5"
    path.write_bytes(image)
    with h5py.File(path) as file:
        found: dict[str, np.ndarray] = {}
        file.visititems(lambda name, each: found.update({name: each[()]} if isinstance(each, h5py.Dataset) else {}))
    return found


@pytest.mark.parametrize("maps", ["uint8", "float32", "none"])
def test_same_rows_give_the_same_bytes_whatever_batches_threads_and_time(
    make_plan, make_rows, make_image, maps: str
) -> None:
    plan = make_plan(sample_count=40, shard_size=40, maps=maps)
    rows = make_rows(plan)
    first = make_image(plan, plan.shards[0], rows, batch=4, threads=1)
    time.sleep(1.1)  # a clock in the file would show
    for batch, threads in ((1, 1), (7, 4), (17, 2), (40, 4)):
        assert make_image(plan, plan.shards[0], rows, batch, threads) == first, (batch, threads)


def test_bytes_do_not_depend_on_where_in_memory_a_chunk_is_compressed() -> None:
    """ISA-L's own function gives 40 of these 40 chunks in more than one form."""
    rng = np.random.default_rng(0)
    chunks = []
    for _ in range(40):
        start, *rest = (rng.integers(0, 256, length, dtype=np.uint8) for length in (8, 20, 30))
        chunks.append(np.concatenate([start, rest[0], start, rest[1]])[None])
    forms: list[set[bytes]] = [set() for _ in chunks]
    kept: list[bytearray] = []

    def compress() -> None:
        for seen, chunk in zip(forms, chunks, strict=True):
            seen.add(compression.deflate_chunk(chunk, 1))
        kept.append(bytearray(70_000))  # so that the next one finds its memory elsewhere

    with ThreadPoolExecutor(400) as pool:  # each thread has a stack of its own
        barrier = threading.Barrier(400)
        for done in [pool.submit(lambda: (barrier.wait(60), compress())) for _ in range(400)]:
            done.result()
    assert [len(seen) for seen in forms] == [1] * len(chunks)
    assert [zlib.decompress(seen.pop()) for seen in forms] == [chunk.tobytes() for chunk in chunks]


def test_other_rows_give_other_bytes(plan, make_rows, make_image) -> None:
    assert make_image(plan, plan.shards[0], make_rows(plan, 0)) != make_image(plan, plan.shards[0], make_rows(plan, 1))


@pytest.mark.parametrize("maps", ["uint8", "float32"])
def test_zlib_gives_the_same_arrays_as_isal(
    make_plan, make_rows, make_image, tmp_path: Path, monkeypatch, maps: str
) -> None:
    plan = make_plan(sample_count=40, shard_size=40, maps=maps)
    rows = make_rows(plan)
    here = arrays_of(make_image(plan, plan.shards[0], rows), tmp_path)
    monkeypatch.setattr(compression, "_compress", zlib.compress)
    with_zlib = arrays_of(make_image(plan, plan.shards[0], rows), tmp_path)
    assert here.keys() == with_zlib.keys()
    for name, values in here.items():
        np.testing.assert_array_equal(values, with_zlib[name], err_msg=name)


@pytest.mark.parametrize("cams", ["all", "predicted", "predicted+label", "topk:2"])
@pytest.mark.parametrize("maps", ["uint8", "float32", "none"])
def test_plain_h5py_reads_what_went_in(make_plan, make_rows, make_image, tmp_path: Path, cams: str, maps: str) -> None:
    plan = make_plan(sample_count=40, shard_size=40, cams=cams, maps=maps)
    rows = make_rows(plan)
    found = arrays_of(make_image(plan, plan.shards[0], rows), tmp_path)
    for name, values in rows.columns.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
        assert found[name].dtype == values.dtype, name
    for name, texts in rows.texts.items():
        assert [v.decode() for v in found[name]] == texts
    assert [v.decode() for v in found["class_name"]] == list(plan.class_names)
    np.testing.assert_array_equal(found["classifier/weight"], rows.weight)
    np.testing.assert_array_equal(found["classifier/bias"], rows.bias)
    assert found["config"].decode() == plan.config_text()


def test_a_shard_in_the_middle_holds_its_own_samples(make_plan, make_rows, make_image, tmp_path: Path) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    found = arrays_of(make_image(plan, plan.shards[2], rows), tmp_path)
    assert found["sample_index"].tolist() == [16, 17, 18, 19, 20]
    np.testing.assert_array_equal(found["maps"], rows.columns["maps"][16:])


def test_every_dimension_has_its_named_scale(plan, make_rows, make_image, tmp_path: Path) -> None:
    (tmp_path / "shard.h5").write_bytes(make_image(plan, plan.shards[0], make_rows(plan)))
    with h5py.File(tmp_path / "shard.h5") as file:
        for name, dims in DIMS.items():
            assert tuple(scale.keys()[0] for scale in file[name].dims) == dims, name
        np.testing.assert_allclose(file["cam_y"][...], (np.arange(3) + 0.5) / 3, rtol=1e-6)
        np.testing.assert_allclose(file["x"][...], (np.arange(80) + 0.5) / 80, rtol=1e-6)
        assert file["box_edge"].asstr()[...].tolist() == ["x0", "y0", "x1", "y1"]


def test_storage_is_what_every_reader_has_built_in(plan, make_rows, make_image, tmp_path: Path) -> None:
    (tmp_path / "shard.h5").write_bytes(make_image(plan, plan.shards[0], make_rows(plan)))
    with h5py.File(tmp_path / "shard.h5") as file:
        assert file.id.get_create_plist().get_version()[0] == 3  # superblock of HDF5 1.10: metadata with checksums
        for array in sample_arrays("uint8"):
            dataset = file[array.name]
            assert (dataset.compression, dataset.fletcher32) == {
                "checked": (None, True),
                "text": ("gzip", False),
                "deflate": ("gzip", False),
            }[array.storage], array.name
        assert file["maps"].chunks == (17, 48, 80)
        assert file["status"].fillvalue == 255
        assert np.isnan(file["cams"].fillvalue)
        assert file["label"].fillvalue == -1


def test_last_chunk_is_padded_with_zeros(plan, make_rows, make_image, tmp_path: Path) -> None:
    (tmp_path / "shard.h5").write_bytes(make_image(plan, plan.shards[0], make_rows(plan)))
    with h5py.File(tmp_path / "shard.h5") as file:
        _, chunk = file["maps"].id.read_direct_chunk((34, 0, 0))
    raw = zlib.decompress(chunk)
    assert len(raw) == 17 * 48 * 80
    assert set(raw[6 * 48 * 80 :]) == {0}


def test_xarray_opens_a_shard_with_named_dimensions(plan, make_rows, make_image, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    rows = make_rows(plan)
    (tmp_path / "shard.h5").write_bytes(make_image(plan, plan.shards[0], rows))
    with xarray.open_dataset(tmp_path / "shard.h5", engine="h5netcdf") as dataset:
        for name, dims in DIMS.items():
            if "/" not in name:
                assert dataset[name].dims == dims
        np.testing.assert_array_equal(dataset["maps"].values, rows.columns["maps"])
        np.testing.assert_array_equal(dataset["cams"].values, rows.columns["cams"])
        np.testing.assert_array_equal(dataset["label"].sel(sample_index=7), rows.columns["label"][7])


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="no h5dump here (hdf5-tools)")
def test_h5dump_reads_a_shard(plan, make_rows, make_image, tmp_path: Path) -> None:
    rows = make_rows(plan)
    (tmp_path / "shard.h5").write_bytes(make_image(plan, plan.shards[0], rows))
    dumped = subprocess.run(
        ["h5dump", "-y", "-w", "0", "-d", "/maps", "-s", "2,10,0", "-c", "1,1,80", tmp_path / "shard.h5"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(each for each in dumped.splitlines() if each.strip().endswith(tuple("0123456789")) and "," in each)
    assert [int(v) for v in line.split(",")] == rows.columns["maps"][2, 10].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c.pop("sample_index"), "missing or too many: sample_index"),
        (lambda c, t: c.pop("cams"), "missing or too many: cams"),
        (lambda c, t: t.pop("error"), "missing or too many: error"),
        (lambda c, t: c.update(scores=c["logits"]), "missing or too many: scores"),
        (lambda c, t: c.update(error=np.array([b""] * 4)), "missing or too many: error"),
        (lambda c, t: c.update(logits=c["logits"].astype(np.float64)), "logits: float64"),
        (lambda c, t: c.update(logits=c["logits"][:, :-1]), r"logits: float32 \(4, 4\), schema wants float32 \(4, 5\)"),
        (lambda c, t: c.update(label=c["label"][:-1]), "label: int64"),
        (lambda c, t: c.update(label=c["label"].astype(np.int32)), "label: int32"),
        (lambda c, t: c.update(maps=c["maps"][:, :, :-1]), "maps: uint8"),
        (lambda c, t: c.update(sample_index=c["sample_index"][:2]), "4 texts for 2 rows"),
        (lambda c, t: t.update(error=[""]), "error: 1 texts for 4 rows"),
        (lambda c, t: t.update(sample_id=["a"] * 5), "sample_id: 5 texts for 4 rows"),
    ],
)
def test_append_refuses_what_is_not_the_schema_and_takes_nothing_of_it(
    builder, plan, make_rows, change, message: str
) -> None:
    columns, texts = make_rows(plan).part(0, 4)
    change(columns, texts)
    with pytest.raises(ValueError, match=message):
        builder.append(columns, texts)
    assert builder.rows == 0
    rows = make_rows(plan)
    builder.append(*rows.part(0, 40))
    assert len(builder.image()) > 0


def test_append_refuses_more_rows_than_the_shard_has(builder, plan, make_rows) -> None:
    rows = make_rows(plan)
    builder.append(*rows.part(0, 38))
    with pytest.raises(ValueError, match="42 rows for a shard of 40"):
        builder.append(*rows.part(0, 4))


def test_image_refuses_a_shard_with_rows_missing(builder, plan, make_rows) -> None:
    builder.append(*make_rows(plan).part(0, 39))
    with pytest.raises(ValueError, match=r"shard-00000\.h5: 39 of 40 rows"):
        builder.image()


@pytest.mark.parametrize("sample_id", ["x" * 41, "é" * 21, "nul\0inside"])
def test_a_sample_id_that_does_not_fit_is_refused_and_never_cut(builder, plan, make_rows, sample_id: str) -> None:
    columns, texts = make_rows(plan).part(0, 40)
    texts["sample_id"][5] = sample_id
    builder.append(columns, texts)
    with pytest.raises(ValueError, match=r"does not fit|NUL"):
        builder.image()


def test_long_error_lines_and_ids_are_stored_whole(plan, make_rows, make_image, tmp_path: Path) -> None:
    rows = make_rows(plan)
    rows.texts["error"][1] = "é" * 10_000
    rows.texts["sample_id"][1] = "蝶" * 13
    found = arrays_of(make_image(plan, plan.shards[0], rows), tmp_path)
    assert found["error"][1].decode() == "é" * 10_000
    assert found["sample_id"][1].decode() == "蝶" * 13
    assert found["sample_id"].dtype.itemsize == plan.sample_id_bytes


def test_encode_text_measures_bytes_and_not_characters() -> None:
    assert encode_text(["é", "ab", ""]).dtype == "S2"
    assert encode_text([""]).dtype == "S1"
    assert encode_text(["a"], 9).dtype == "S9"
    with pytest.raises(ValueError, match="4 bytes does not fit into 3"):
        encode_text(["éé"], 3)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode_text(["\udcff"])


def test_builder_lets_go_of_maps_as_soon_as_they_are_compressed(make_plan, make_rows) -> None:
    plan = make_plan(sample_count=40, shard_size=40, sample_id_bytes=40)
    rows = make_rows(plan)
    alive = []
    with ThreadPoolExecutor(1) as compressors:
        builder = ShardBuilder(plan, plan.shards[0], rows.weight, rows.bias, compressors)
        for start in range(0, 34, 17):
            columns, texts = rows.part(start, 17)
            columns["maps"] = columns["maps"].copy()
            alive.append(weakref.ref(columns["maps"]))
            builder.append(columns, texts)
        del columns
        compressors.submit(int).result()
        gc.collect()
        assert [each() for each in alive] == [None, None]


@pytest.mark.parametrize("side", [260, 2048, 5000])
def test_builder_waits_when_more_bytes_than_allowed_wait_for_compression(
    side, make_plan, make_rows, monkeypatch
) -> None:
    most = max(2, PENDING_BYTES // side**2)
    count = most + 10
    plan = make_plan(sample_count=count, shard_size=count, input_size=(side, side), sample_id_bytes=40)
    go = threading.Event()

    def slow(rows: np.ndarray, chunk_rows: int) -> bytes:
        go.wait(10)
        return b""

    monkeypatch.setattr("batchcam.store.shard.deflate_chunk", slow)
    row = {a.name: np.zeros((1, side, side), np.uint8) for a in sample_arrays("uint8") if a.name == "maps"}
    small = make_rows(make_plan(sample_count=1, shard_size=1))
    columns, texts = small.part(0, 1)
    with ThreadPoolExecutor(1) as compressors:
        builder = ShardBuilder(plan, plan.shards[0], small.weight, small.bias, compressors)

        def fill() -> None:
            for _ in range(count):
                builder.append({**columns, **row}, texts)

        filler = threading.Thread(target=fill)
        filler.start()
        filler.join(0.5)
        waiting = filler.is_alive()
        held = builder.rows
        go.set()
        filler.join(20)
    assert waiting
    assert held == most
    assert builder.rows == count


def test_writer_lands_shards_one_after_the_other(tmp_path: Path, make_plan, make_rows, make_image) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path, plan, rows.weight, rows.bias) as writer:
        for shard in plan.shards:
            builder = writer.builder(shard)
            builder.append(*rows.part(shard.first, shard.count))
            writer.submit(builder)
    assert [each.shard for each in writer.landed] == list(plan.shards)
    assert landed_shards(tmp_path, plan) == {0, 1, 2}
    for each in writer.landed:
        path = tmp_path / "shards" / each.shard.file
        assert path.read_bytes() == make_image(plan, each.shard, rows)
        assert each.stamp == stamp(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat())


def test_writer_raises_what_went_wrong_in_the_background(tmp_path: Path, make_plan, make_rows, monkeypatch) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    (tmp_path / "shards").mkdir()

    def full(path: Path, *_: object) -> str:
        raise StorageFullError(f"{path.parent}: No space left on device")

    monkeypatch.setattr(landing, "land_own", full)
    with (  # noqa: PT012
        pytest.raises(StorageFullError),
        ShardWriter(tmp_path, plan, rows.weight, rows.bias) as writer,
    ):
        builder = writer.builder(plan.shards[0])
        builder.append(*rows.part(0, 8))
        writer.submit(builder)
        writer.wait()
    assert writer.landed == []


def test_writer_finishes_the_shard_under_way_when_the_work_fails(tmp_path: Path, make_plan, make_rows) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    (tmp_path / "shards").mkdir()
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        ShardWriter(tmp_path, plan, rows.weight, rows.bias) as writer,
    ):
        first = writer.builder(plan.shards[0])
        first.append(*rows.part(0, 8))
        writer.submit(first)
        writer.builder(plan.shards[1]).append(*rows.part(8, 4))
        raise KeyboardInterrupt
    assert [each.shard.index for each in writer.landed] == [0]
    assert landed_shards(tmp_path, plan) == {0}
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["shard-00000.h5", "shard-00000.h5.sha256"]


def test_a_shard_counts_as_landed_only_with_its_digest(tmp_path: Path, make_plan, make_rows, make_shards) -> None:
    plan = make_plan()
    assert landed_shards(tmp_path, plan) == set()
    make_shards(tmp_path, plan, make_rows(plan))
    (tmp_path / "shards/shard-00001.h5.sha256").unlink()
    (tmp_path / "shards/shard-00002.h5").unlink()
    assert landed_shards(tmp_path, plan) == {0}
