"""Read a run by h5py alone: `python read_run.py RUN` checks digests and identity, and prints a line for each sample."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

KNOWN_SCHEMAS = (1, 2)
TOLERANCE = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}


def refuse(path: Path, reason: str) -> NoReturn:
    sys.exit(f"{path}: {reason}")


def read_document(path: Path) -> dict[str, Any]:
    """Return a document whose digest is right: that of its text without spaces between tokens and without itself."""
    text = path.read_text(encoding="utf-8")
    lines = [re.sub(r'^ *("(?:[^"\\]|\\.)*":) ', r"\1", line).lstrip(" ") for line in text.split("\n")]
    digest = next((line for line in lines if line.startswith('"document_sha256":')), "")
    bare = "".join(line for line in lines if line != digest)
    if digest.strip(",") != f'"document_sha256":"{hashlib.sha256(bare.encode()).hexdigest()}"':
        refuse(path, "changed after it was written")
    return dict(json.loads(text))


def check_digests(run: Path, manifest: dict[str, Any]) -> list[Path]:
    """Return the shards in their order, each of which has the recorded SHA-256."""
    shards = sorted((run / "shards").glob("shard-*.h5"), key=lambda path: (len(path.name), path.name))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in shards]
    stated = manifest["shards"]
    if isinstance(stated, list):  # earlier versions
        recorded = [f"{each['sha256']}  {each['file']}\n" for each in stated]
        stated = {"count": len(recorded), "sha256": hashlib.sha256("".join(recorded).encode()).hexdigest()}
    if len(shards) != stated["count"] or hashlib.sha256("".join(lines).encode()).hexdigest() != stated["sha256"]:
        refuse(run / "shards", "not the shards that manifest.json states")
    return shards


def identity_of(file: h5py.File, row: int, plan: dict[str, Any]) -> str:
    """Return whether the mean of each CAM, the bias and the offset make the logit, "-" where nothing says so."""
    known = file["cam_class"][row] >= 0
    classes, logits = file["cam_class"][row][known], file["logits"][row].astype(float)
    offset = file["offset"][row][known] if "offset" in file else 0
    sums = file["cams"][row][known].astype(float).mean((1, 2)) + file["classifier/bias"][...][classes] + offset
    gap = np.abs(sums - logits[classes]).max(initial=0)
    if not plan["identity"] or not len(classes) or not np.isfinite(gap):
        return "-"
    return "holds" if gap <= TOLERANCE[plan["precision"]] * max(1, np.abs(logits).max()) else "FAILS"


def print_rows(path: Path, plan: dict[str, Any], run_id: str) -> bool:
    """Print a line for each row of a shard; return whether the identity holds for all."""
    names = plan["class_names"]
    held = True
    with h5py.File(path) as file:
        if file.attrs["run_id"].decode() != run_id:
            refuse(path, "of another run")
        for row in range(len(file["status"])):
            classes = [names[k] if k >= 0 else "-" for k in (file["label"][row], file["prediction"][row])]
            confidence, identity = float(file["confidence"][row]), identity_of(file, row, plan)
            told = f"{confidence:.6f}" if np.isfinite(confidence) else "-"
            fields = [file["sample_index"][row], file["sample_id"][row].decode(), *classes, told]
            line = [re.sub("[\x01-\x1f\x7f]", "?", str(field)) for field in [*fields, identity, file["status"][row]]]
            print("\t".join(line))
            held = held and identity != "FAILS"
    return held


def main() -> None:
    run = Path(sys.argv[1])
    document, manifest = read_document(run / "run.json"), read_document(run / "manifest.json")
    plan = document["plan"]
    if plan["schema_version"] not in KNOWN_SCHEMAS:
        refuse(run, f"schema {plan['schema_version']}; this reads {KNOWN_SCHEMAS}")
    if manifest["run_id"] != document["run_id"]:
        refuse(run, "run.json and manifest.json are of two runs")
    shards = check_digests(run, manifest)
    print("\t".join(["index", "id", "label", "prediction", "confidence", "identity", "status"]))
    held = [print_rows(path, plan, document["run_id"]) for path in shards]
    sys.exit(not all(held))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    main()
