"""Does a run keep to docs/record.md? A second opinion beside `batchcam verify`, by h5py, NumPy and jsonschema alone.

`python validate.py RUN` prints the first rule that is broken and ends with 1, or says that the run is valid. It is made
to be read: a run is taken into memory as a whole, and a file that crashes HDF5 crashes it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np

FORMAT = Path(__file__).resolve().parent.parent / "format"
RECORD = json.loads((FORMAT / "record.json").read_text(encoding="utf-8"))
ROUNDING = 1e-4
MOST_DOCUMENT = 2**26
VIRTUAL = {"cams", "features", "maps", "status"}
NAMED_IN_FILES = ("checkpoint_sha256", "dataset_fingerprint", "architecture", "target_layer", "method", "control")

Rows = Mapping[str, np.ndarray]


class Invalid(Exception):
    """A rule of docs/record.md is broken; the message says which."""


def need(kept: object, rule: str) -> None:
    if not kept:
        raise Invalid(rule)


def canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document(path: Path, schema: str) -> dict[str, Any]:
    """Return a document of the run, whose text follows from its content, and its digest too."""
    raw = path.read_bytes()
    need(len(raw) <= MOST_DOCUMENT, f"{path.name}: too large")
    content: dict[str, Any] = json.loads(raw)
    jsonschema.validate(content, json.loads((FORMAT / f"{schema}.schema.json").read_text(encoding="utf-8")))
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    need(text.encode("utf-8", "backslashreplace") == raw, f"{path.name}: not the text that its content gives")
    stated = content.pop("document_sha256")
    need(stated == sha256(canonical(content)), f"{path.name}: document_sha256")
    return content


def validate(run: Path) -> None:
    """Raise Invalid for a run that breaks a rule."""
    told = document(run / "run.json", "run")
    plan = told["plan"]
    need(told["run_id"] == sha256(canonical({f: plan[f] for f in RECORD["run_id_fields"] if f in plan})), "run id")
    shards = shards_of(plan)
    places = [{"file": name, "first": first, "count": count} for name, first, count in shards]
    summed = {"count": len(shards), "first_file": shards[0][0], "last_file": shards[-1][0]}
    need(told["shards"] in (summed, places), "run.json: shards")
    manifest = document(run / "manifest.json", "manifest")
    need(manifest["run_id"] == told["run_id"], "manifest.json: of another run")
    need(manifest["schema_version"] == plan["schema_version"], "manifest.json: of another schema")
    for path in run.glob("task-*.json"):
        document(path, "task")
    check_files(run, told, manifest, [name for name, _, _ in shards])
    blocks = [read_file(run / "shards" / name, told, first, count) for name, first, count in shards]
    rows = {name: np.concatenate([block[name] for block in blocks]) for name in array_names(plan)}
    for name in ("classifier/weight", "classifier/bias"):
        same = all(np.array_equal(block[name], blocks[0][name], equal_nan=True) for block in blocks)
        need(same, f"{name}: not the same in all shards")
    check_rows(rows, plan, blocks[0]["classifier/weight"], blocks[0]["classifier/bias"])
    check_dataset(rows, plan)
    check_totals(rows, manifest)
    check_master(run, told, rows, blocks[0])


def shards_of(plan: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    count, size = plan["sample_count"], plan["shard_size"]
    need(-(-count // size) <= 1_000_000, "more shards than a run may have")
    return [(f"shard-{i // size:05d}.h5", i, min(size, count - i)) for i in range(0, count, size)]


def check_files(run: Path, told: Mapping[str, Any], manifest: Mapping[str, Any], shards: list[str]) -> None:
    """Compare what lies in the run, and its digests, with what the documents say."""
    listed = [told["samples"]["file"]] if told.get("samples") else []
    hashed = ["run.h5", *(f"shards/{name}" for name in shards)]
    wanted = {"run.json", "manifest.json", *listed, *hashed, *(f"{name}.sha256" for name in hashed)}
    there = {path.relative_to(run).as_posix() for path in run.rglob("*") if not path.is_dir() or path.is_symlink()}
    need(not any((run / name).is_symlink() for name in there), "a link")
    free = {name for name in there if re.fullmatch(r"task-[^/]*\.json|signatures/[^/]+", name)}
    need(there - free == wanted, f"files missing or unexpected: {sorted((there - free) ^ wanted)}")
    lines = [digest_line(run / name) for name in hashed]
    need(manifest["master"] == record_of(run / "run.h5", 0, told["plan"]["sample_count"]), "manifest.json: master")
    sizes = [(run / name).stat().st_size for name in hashed[1:]]
    summed = {"count": len(shards), "bytes": sum(sizes), "sha256": sha256("".join(lines[1:]).encode())}
    records = [record_of(run / "shards" / name, first, count) for name, first, count in shards_of(told["plan"])]
    need(manifest["shards"] in (summed, records), "manifest.json: shards")
    for name in listed:
        record = record_of(run / name, 0, told["plan"]["sample_count"])
        need(told["samples"] == manifest.get("samples") == record, "samples.h5: not the one that was planned")


def record_of(path: Path, first: int, count: int) -> dict[str, Any]:
    data = path.read_bytes()
    return {"file": path.name, "first": first, "count": count, "bytes": len(data), "sha256": sha256(data)}


def digest_line(path: Path) -> str:
    line = f"{sha256(path.read_bytes())}  {path.name}\n"
    need(path.with_name(f"{path.name}.sha256").read_bytes() == line.encode(), f"{path.name}: its SHA-256 is another")
    return line


def arrays_of(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the arrays of a file of this plan."""
    for array in RECORD["arrays"]:
        said = plan.get(array["only_with"]) if "only_with" in array else True
        if said and said != "none" and array["since"] <= plan["schema_version"]:
            yield {**array, "dtype": said} if array["name"] in ("maps", "features") else array
    for name in plan.get("meta", ()):
        yield {"name": f"meta/{name}", "dims": ["sample_index"], "dtype": "text", "storage": "text"}


def array_names(plan: Mapping[str, Any]) -> list[str]:
    return [array["name"] for array in arrays_of(plan) if array["dims"][0] == "sample_index"]


def lengths_of(plan: Mapping[str, Any], count: int) -> dict[str, int]:
    """Return the length of each dimension in a file of so many samples."""
    classes = len(plan["class_names"])
    maps = {"all": classes, "positive": classes, "predicted": 1, "predicted+label": 2}
    named = {name: len(labels) for name, labels in RECORD["dimensions"].items() if isinstance(labels, list)}
    places = zip(("cam_y", "cam_x", "y", "x"), (*plan["grid_size"], *plan["input_size"]), strict=True)
    ranks = maps.get(plan["cams"]) or int(plan["cams"].partition(":")[2])
    rows = {"sample_index": count, "class_name": classes, "channel": plan["channels"], "map_rank": ranks}
    return {**named, **dict(places), **rows, "sha256_byte": RECORD["dimensions"]["sha256_byte"]}


def read_file(path: Path, told: Mapping[str, Any], first: int, count: int) -> dict[str, np.ndarray]:
    """Return the arrays of a shard, or of run.h5, whose structure is the schema's."""
    plan = told["plan"]
    is_master = path.name == "run.h5"
    arrays = list(arrays_of(plan))
    lengths = lengths_of(plan, count)
    with h5py.File(path) as file:
        found: set[str] = set()
        file.visit(found.add)  # by hard links alone
        scales = {dim for array in arrays for dim in array["dims"]} - {"sample_index", "class_name"}
        wanted = {array["name"] for array in arrays} | scales | {"config"}
        wanted |= {f"shards/{name}" for name in ("file", "first", "count", "bytes", "sha256")} if is_master else set()
        wanted |= {name.partition("/")[0] for name in wanted}
        need(found == wanted, f"{path.name}: arrays missing or unexpected: {sorted(found ^ wanted)}")
        said = {name: file.attrs[name] for name in (*NAMED_IN_FILES, "run_id")}
        want = {**{name: plan[name].encode() for name in NAMED_IN_FILES}, "run_id": told["run_id"].encode()}
        need(said == want, f"{path.name}: of another run")
        need((file.attrs["first_sample"], file.attrs["sample_count"]) == (first, count), f"{path.name}: other samples")
        oldest = 2 if plan.get("problem_type") or plan.get("has_offset") else 1
        need(file.attrs.get("schema_min_reader", 1) == oldest, f"{path.name}: schema_min_reader")
        for array in arrays:
            shape = tuple(lengths[dim] for dim in array["dims"])
            wrong = wrong_storage(file[array["name"]], array, shape, plan, is_master)
            need(not wrong, f"{path.name}: {array['name']}: {wrong}")
        for name in scales:
            need(file[name][:].tolist() == scale(name, lengths[name]), f"{path.name}: {name}: not its positions")
        config = {name: value for name, value in plan.items() if name != "class_names"}
        need(file["config"][()] == canonical(config), f"{path.name}: config is not the plan")
        need(texts(file["class_name"][:]) == plan["class_names"], f"{path.name}: class_name is not the plan's")
        if "threshold" in file:
            need(file["threshold"][:].tolist() == plan["thresholds"], f"{path.name}: threshold is not the plan's")
        tables = [name for name in found if name.startswith("shards/")]
        return {name: file[name][...] for name in [*(array["name"] for array in arrays), *tables]}


def scale(name: str, length: int) -> list[Any]:
    """Return the positions along a dimension: names, centres as a share of the whole, or numbers."""
    if isinstance(labels := RECORD["dimensions"][name], list):
        return [label.encode() for label in labels]
    if name in ("cam_y", "cam_x", "y", "x"):
        return list(((np.arange(length) + 0.5) / length).astype(np.float32).tolist())
    return list(range(length))


def wrong_storage(
    dataset: h5py.Dataset, array: Mapping[str, Any], shape: tuple[int, ...], plan: Mapping[str, Any], is_master: bool
) -> str:
    """Return what is wrong with how an array is kept, "" if nothing is."""
    text = h5py.check_string_dtype(dataset.dtype)
    fits = text and text.length if array["dtype"] == "text" else dataset.dtype == array["dtype"]
    storage = "sparse" if plan["cams"] == "positive" and array["name"] in ("cams", "cam_class") else array["storage"]
    made = dataset.id.get_create_plist()
    filters = {made.get_filter(i)[0] for i in range(made.get_nfilters())}
    may_be_virtual = is_master and array["name"] in VIRTUAL
    reasons = {
        "type": not fits,
        f"shape {dataset.shape}": dataset.shape != shape,
        "bytes in another file": dataset.external or (dataset.is_virtual and not may_be_virtual),
        "filters": not filters <= set(RECORD["filters"][storage]),
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def texts(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values.tolist()]


def check_rows(rows: Rows, plan: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray) -> None:
    """Check each rule of "What a row must satisfy"."""
    with np.errstate(all="ignore"):  # NaN is data here
        for rule, kept in rules(rows, plan, weight, bias):
            need(np.all(kept), f"{rule}: row {np.flatnonzero(~np.asarray(kept))[:1]}")


def rules(
    rows: Rows, plan: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    status, logits, label, prediction = (rows[name] for name in ("status", "logits", "label", "prediction"))
    count, classes = logits.shape
    yield "sample_index", rows["sample_index"] == np.arange(count)
    yield "sample_id: each once", np.full(count, len(set(texts(rows["sample_id"]))) == count)
    yield "label", (label == -1) | ("labels" not in rows) & (label >= 0) & (label < classes)
    yield "labels", np.isin(rows.get("labels", np.zeros((count, 1))), (-1, 0, 1)).all(1)
    unreadable = (status & 1) > 0
    yield "status: known flags", (status <= 15) & ((status & 3 == 0) | np.isin(status, (1, 2)))
    yield "error and status", unreadable == (rows["error"] != b"")
    heights = logits
    if "labels" in rows:
        heights = logits - np.array([np.log(t / (1 - t)) for t in plan["thresholds"]], np.float32)
    finite = np.isfinite(logits).all(1)
    top = np.where(finite, np.nan_to_num(heights).argmax(1), -1)
    yield "prediction", prediction == top
    odds = np.exp(logits.astype(float) - logits.max(1, keepdims=True))
    share = odds / odds.sum(1, keepdims=True) if "labels" not in rows else 1 / (1 + np.exp(-logits.astype(float)))
    confident = np.abs(rows["confidence"] - share[np.arange(count), top]) <= ROUNDING
    yield "confidence", confident | ~finite
    yield "cam_class", unreadable | cam_classes_kept(rows, plan, heights)
    blank = [
        rows[n].reshape(count, -1)
        for n in ("logits", "cams", "confidence", "identity_residual", "map_range")
        if n in rows
    ]
    yield "an unreadable sample's numbers", ~unreadable | np.isnan(np.concatenate(blank, 1)).all(1) & (prediction == -1)
    known = rows["cam_class"] >= 0
    sound = finite & (np.isfinite(rows["cams"]).all((2, 3)) | ~known).all(1)
    yield "status: not finite", unreadable | (sound == (status & 2 == 0))
    if "features" in rows:
        yield "W f + b = logit", features_kept(rows, plan, weight, bias, sound)
    if plan["method"] == "cam":
        yield from identity_kept(rows, plan, bias, sound)
    else:
        yield "identity_residual without identity", np.isnan(rows["identity_residual"])
    at = (rows["cam_class"] == prediction[:, None]).argmax(1)
    cam = rows["cams"][np.arange(count), at].astype(float)
    low, high = cam.min((1, 2)), cam.max((1, 2))
    flat = high - low <= 1e-6 * np.maximum(np.abs(high), np.abs(low))
    yield "status: constant map", ~sound | (flat == (status & 4 > 0))
    yield "status: no positive evidence", ~sound | ((high <= 0) == (status & 8 > 0))
    if "maps" in rows:
        yield from maps_kept(rows, bilinear(cam, plan["input_size"]), sound, flat)


def cam_classes_kept(rows: Rows, plan: Mapping[str, Any], heights: np.ndarray) -> np.ndarray:
    stored, prediction, ranks = rows["cam_class"], rows["prediction"][:, None], np.arange(rows["cam_class"].shape[1])
    ranked = np.argsort(-heights, 1, kind="stable")[:, : len(ranks)]
    wanted = {
        "all": ranks,
        "predicted": prediction,
        "predicted+label": np.concatenate([prediction, rows["label"][:, None]], 1),
        "positive": np.where((np.take_along_axis(heights, ranked, 1) >= 0) | (ranks == 0), ranked, -1),
    }.get(plan["cams"], ranked)
    return np.asarray((stored == wanted).all(1) | (prediction[:, 0] < 0))


def features_kept(
    rows: Rows, plan: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray, sound: np.ndarray
) -> np.ndarray:
    features, weight = rows["features"].astype(float), weight.astype(float)
    allowed = RECORD["feature_tolerance"][plan["precision"]] * np.maximum(1, np.abs(rows["logits"]).max(1))[:, None]
    if plan["features"] == "float16":
        allowed = allowed + (2.0**-11 * np.abs(features) + 2.0**-25) @ np.abs(weight).T
    return ~sound | (np.abs(features @ weight.T + bias - rows["logits"]) <= allowed).all(1)


def identity_kept(
    rows: Rows, plan: Mapping[str, Any], bias: np.ndarray, sound: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    classes = np.maximum(rows["cam_class"], 0)
    sums = rows["cams"].astype(float).mean((2, 3)) + bias[classes] + rows.get("offset", 0)
    gaps = np.abs(sums - np.take_along_axis(rows["logits"], classes, 1))
    gap = np.where(rows["cam_class"] >= 0, gaps, 0).max(1)
    scale = np.maximum(1, np.abs(rows["logits"]).max(1))
    yield "identity_residual", ~sound | (np.abs(rows["identity_residual"] - gap) <= ROUNDING * scale)
    if plan["identity"]:
        yield "mean(CAM) + bias = logit", ~sound | (gap <= RECORD["identity_tolerance"][plan["precision"]] * scale)


def bilinear(cams: np.ndarray, size: Iterable[int]) -> np.ndarray:
    """Return maps between the centres of their cells, edges extended, (n, h, w) to (n, H, W)."""
    for axis, length in enumerate(size, 1):
        cells = cams.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
        left = np.floor(place).astype(int)
        share = np.expand_dims(place - left, [a for a in range(3) if a != axis])
        right = np.minimum(left + 1, cells - 1)
        cams = np.take(cams, left, axis) * (1 - share) + np.take(cams, right, axis) * share
    return cams


def maps_kept(rows: Rows, want: np.ndarray, sound: np.ndarray, flat: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    ends = np.stack([want.min((1, 2)), want.max((1, 2))], 1)
    size = np.abs(ends).max(1)
    yield "map_range", ~sound | (np.abs(rows["map_range"] - ends) <= ROUNDING * size[:, None]).all(1)
    maps = rows["maps"]
    if maps.dtype.kind == "f":
        yield "maps", ~sound | (np.abs(maps - want) <= ROUNDING * size[:, None, None]).all((1, 2))
        return
    low, high = ends[:, :1, None], ends[:, 1:, None]
    grey = np.where((sound & ~flat)[:, None, None], (want - low) / (high - low) * 255, 0)
    yield "maps", (np.abs(maps - grey) <= 1.01).all((1, 2))


def check_dataset(rows: Rows, plan: Mapping[str, Any]) -> None:
    """Compare ids, labels and sizes with the fingerprint, and digests with the first inputs; schema 1 has no sizes."""
    if "input_bytes" not in rows:
        return
    texts_of = zip(rows["sample_id"], *(rows[f"meta/{name}"] for name in plan.get("meta", ())), strict=True)
    labels = [b"%d" % label for label in rows["label"]]
    if "labels" in rows:
        labels = ["".join("-01"[value + 1] for value in row).encode() for row in rows["labels"]]
    sizes = [b"%d" % size for size in rows["input_bytes"]]
    lines = (b"\0".join([*words, *rest]) + b"\n" for words, *rest in zip(texts_of, labels, sizes, strict=True))
    need(sha256(b"".join(lines)) == plan["dataset_fingerprint"], "dataset_fingerprint: not of these rows")
    inputs = {
        row.decode(): digest.tobytes().hex()
        for row, digest in zip(rows["sample_id"], rows["input_sha256"], strict=True)
    }
    for name, digest in plan.get("first_inputs", {}).items():
        need(inputs.get(name, "").startswith(digest), "first_inputs: not of these rows")


def check_totals(rows: Rows, manifest: Mapping[str, Any]) -> None:
    status, label, prediction = rows["status"], rows["label"], rows["prediction"]
    names = ("unreadable", "non finite", "constant map", "no positive evidence")
    flags = {name: int((status & 2**bit > 0).sum()) for bit, name in enumerate(names)}
    residuals = rows["identity_residual"][np.isfinite(rows["identity_residual"])]
    want = {"samples": len(status), "status": flags, "largest_identity_residual": max(residuals.tolist(), default=None)}
    if "labels" not in rows:
        known = (label >= 0) & (prediction >= 0)
        labelled, correct = int(known.sum()), int((known & (label == prediction)).sum())
        want |= {"labelled": labelled, "correct": correct, "accuracy": correct / labelled if labelled else None}
    if "trained_on" in rows:
        want["trained_on"] = int((rows["trained_on"] == 1).sum())
    need(manifest["totals"] == want, "manifest.json: totals")
    look = [{"kind": name, "count": flags[name]} for name in names[:2] if flags[name]]
    need(manifest["findings"] == look, "manifest.json: findings")


def check_master(run: Path, told: Mapping[str, Any], rows: Rows, shard: Rows) -> None:
    """Compare run.h5 with the shards, array by array, and its table with their files."""
    master = read_file(run / "run.h5", told, 0, told["plan"]["sample_count"])
    for name, values in master.items():
        if not name.startswith("shards/"):
            want = rows[name] if name in rows else shard[name]
            same = np.array_equal(values, want, equal_nan=values.dtype.kind == "f")
            need(same, f"run.h5: {name}: not what the shards say")
    records = [record_of(run / "shards" / name, first, count) for name, first, count in shards_of(told["plan"])]
    for key in records[0]:
        values = [v.decode() if isinstance(v, bytes) else v for v in master[f"shards/{key}"].tolist()]
        need(values == [record[key] for record in records], f"run.h5: shards/{key}: not what the files say")


def problem(run: Path) -> str:
    """Return which rule a run breaks, "" if it is valid."""
    try:
        validate(run)
    except (Invalid, OSError, KeyError, ValueError, jsonschema.ValidationError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


if __name__ == "__main__":
    broken = problem(Path(sys.argv[1]))
    print(broken or "valid")
    sys.exit(bool(broken))
