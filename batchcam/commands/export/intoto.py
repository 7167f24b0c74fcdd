"""A complete run as an in-toto Statement: which files it is, and from what, how, by whom and when they were made.

SLSA's predicate of provenance says just that of things that were built, and is what tools that check statements know.
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.1/provenance
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

from batchcam.commands.export.form import Task
from batchcam.errors import RunError
from batchcam.job.scheduler import epoch_seconds
from batchcam.record.rows import Outcome
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.files import RunFiles
from batchcam.store.manifest import Manifest, stated_manifest
from batchcam.store.run import Run
from batchcam.store.schema import MANIFEST_FILE, PLAN_FILE, SHARD_FOLDER

FILE: Final = "statement.json"
BATCHCAM: Final = "https://github.com/batchcam/batchcam"


def write(task: Task) -> Outcome:
    """Write what the manifest states; whether the files are still so is what verify tells.

    Raises:
        RunError: the run is not one complete run, or the digests of its shards are not the manifest's.
    """
    run = task.run
    manifest = None if run.path.is_file() or run.lost else stated_manifest(run.path, run.plan)
    if run.runs != (run,) or manifest is None:
        raise RunError(f"{run.path}: --to intoto states a complete run; name one, without --partial")
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": list(_subjects(run, manifest)),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": _provenance(run, manifest),
    }
    task.folder.write(FILE, (json.dumps(statement, indent=1) + "\n").encode())
    task.advance(len(run))
    return Outcome(len(run))


def _subjects(run: Run, manifest: Manifest) -> Iterator[dict[str, Any]]:
    with contextlib.closing(RunFiles(run.path, run.plan, proves=True)) as files:
        table = files.proven_table(manifest)
    yield _resource(MANIFEST_FILE, landing.file_digest(run.path / MANIFEST_FILE))
    yield from (_resource(each.file, each.sha256) for each in (manifest.master, manifest.samples) if each)
    for record in map(table.record, run.plan.shards):
        yield _resource(f"{SHARD_FOLDER}/{record.file}", record.sha256)


def _provenance(run: Run, manifest: Manifest) -> dict[str, Any]:
    plan, origin = run.plan, read_document(run.path / PLAN_FILE)["origin"]
    versions: dict[str, str | None] = next((task["versions"] for task in manifest.tasks if task.get("versions")), {})
    times = {"startedOn": origin.get("created"), "finishedOn": manifest.made.get("when")}
    dataset = {"name": "dataset", "digest": {"batchcamDatasetFingerprint": plan.dataset_fingerprint}}
    kind = "batchcamStateDict" if plan.is_in_memory else "sha256"
    return {
        "buildDefinition": {
            "buildType": f"{BATCHCAM}/blob/HEAD/docs/record.md",
            "externalParameters": {name: origin.get(name) for name in ("command", "options")},
            "internalParameters": {"plan": plan.to_dict(), "tasks": manifest.tasks, "totals": manifest.totals},
            "resolvedDependencies": [_resource("checkpoint", plan.checkpoint_sha256, kind), dataset],
        },
        "runDetails": {
            "builder": {"id": BATCHCAM, "version": {name: text for name, text in versions.items() if text is not None}},
            "metadata": {
                "invocationId": plan.run_id,
                **{name: text for name, text in times.items() if epoch_seconds(text) is not None},
            },
            "byproducts": [_resource(PLAN_FILE, landing.file_digest(run.path / PLAN_FILE))],
        },
    }


def _resource(name: str, digest: str, kind: str = "sha256") -> dict[str, Any]:
    return {"name": name, "digest": {kind: digest}}
