"""What verify can find, each kind by name, and what it saw in all."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any


class Kind(str, enum.Enum):
    """Kind of damage or doubt; the value is the name in `--json`."""

    PLAN_DAMAGED = "plan-damaged"
    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_DAMAGED = "manifest-damaged"
    TASK_DAMAGED = "task-damaged"
    FILE_MISSING = "file-missing"
    FILE_UNREADABLE = "file-unreadable"
    SIZE_MISMATCH = "size-mismatch"
    DIGEST_MISMATCH = "digest-mismatch"
    DIGEST_FILE_DAMAGED = "digest-file-damaged"
    UNEXPECTED_FILE = "unexpected-file"
    LEFTOVER_FILE = "leftover-file"
    OTHER_RUN = "other-run"
    SCHEMA = "schema"
    COVERAGE = "coverage"
    TEXT = "text"
    LABEL = "label"
    LOGITS = "logits"
    PREDICTION = "prediction"
    CONFIDENCE = "confidence"
    CAM_CLASS = "cam-class"
    IDENTITY = "identity"
    MAP = "map"
    MAP_RANGE = "map-range"
    STATUS = "status"
    CLASSIFIER = "classifier"
    TOTALS = "totals"
    DATASET = "dataset"
    OTHER_MANIFEST = "other-manifest"
    SIGNATURE = "signature"
    RECOMPUTED = "recomputed"
    INPUT_CHANGED = "input-changed"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that verify reports.

    Attributes:
        kind: what is wrong.
        file: where, relative to the run directory.
        message: the same for a person, in one line.
        array: HDF5 dataset, where content is wrong.
        rows: how many of its rows are wrong.
        first_sample: dataset position of the first of them.
    """

    kind: Kind
    file: str
    message: str
    array: str | None = None
    rows: int | None = None
    first_sample: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON types, without what it does not have."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None} | {"kind": self.kind.value}

    def __str__(self) -> str:
        where = f"{self.file}:{self.array}" if self.array else self.file
        return f"{self.kind.value}: {where}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was seen of a run.

    Attributes:
        run_id: of the plan, None when it can't be read.
        samples: rows checked.
        bytes: of the files whose digest was computed.
        sound: indices of the shards that nothing was found wrong with.
        unreadable: of the rows checked, how many say that their image could not be read.
        unchecked: what could not be checked, and why, a line each.
        unconfined: on what the process that read the files had no limits, of `confinement.LIMITS`.
    """

    run_id: str | None = None
    shards: int = 0
    samples: int = 0
    bytes: int = 0
    sound: list[int] = dataclasses.field(default_factory=list)
    found: list[Finding] = dataclasses.field(default_factory=list)
    unreadable: int = 0
    unchecked: list[str] = dataclasses.field(default_factory=list)
    unconfined: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Inspection:
        """Return the inspection that `to_dict` gave."""
        found = [Finding(**{**each, "kind": Kind(each["kind"])}) for each in content["found"]]
        return cls(**{**content, "found": found})
