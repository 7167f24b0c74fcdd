"""Which samples of a run an export shows, and the raw CAM of the class that it explains for each."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal

import numpy as np

from batchcam.errors import ConfigError, RunError, one_line
from batchcam.record.names import safe_name
from batchcam.rules import Status
from batchcam.store.run import Run
from batchcam.store.stored_cams import picked_cams, stored_ranks

Target = Literal["predicted", "label"]
"""The class explained for each sample: the predicted one, or the one that the dataset says."""

NAMED_CLASSES: Final = 10  # that an error lists

Advance = Callable[[int], None]
"""Told how many more samples are done."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an exporter did.

    Attributes:
        samples: how many the export shows.
        left_out: how many of the run it does not.
        changed: images that are no longer those explained.
        notes: what a reader should know, a line each.
    """

    samples: int
    left_out: int = 0
    changed: int = 0
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Choice:
    """Samples to show.

    Attributes:
        rows: rows of the run, ascending, int64 (n,).
        classes: class to explain for each, int64 (n,); -1 where there is none.
        left_out: how many samples are not shown, by reason.
    """

    rows: np.ndarray
    classes: np.ndarray
    left_out: Mapping[str, int]

    @property
    def notes(self) -> tuple[str, ...]:
        """Why samples are left out, a line for each reason."""
        return tuple(f"{_samples(count)} left out: {reason}" for reason, count in self.left_out.items())

    def outcome(self, *notes: str, changed: int = 0) -> Outcome:
        """Return what was done when all of these samples are shown."""
        return Outcome(len(self.rows), sum(self.left_out.values()), changed, (*self.notes, *notes))


def choose(run: Run, target: Target, finite: bool, meant: np.ndarray) -> Choice:
    """Return the samples of `run` that have a CAM of the target class.

    Args:
        target: which class to explain.
        finite: leave out samples whose numbers are not finite.
        meant: which samples to choose from, bool (n,).

    Raises:
        RunError: there are none; the message says why.
    """
    status, classes = run.status[:], (run.prediction if target == "predicted" else run.label)[:]
    reasons: dict[str, np.ndarray] = {"unreadable": (status & Status.UNREADABLE) > 0}
    if finite:
        reasons["numbers that are not finite"] = (status & Status.NON_FINITE) > 0
    reasons["not predicted as asked"] = ~meant
    if target == "label":
        reasons["no label"] = classes < 0
    if not run.plan.cams.is_all:
        missing = (stored_ranks(run.cam_class[:], classes) < 0) & (classes >= 0)
        reasons[f"no CAM of this class in a run with --cams {run.plan.cams}"] = missing
    shown = np.ones(len(status), bool)
    left_out = collections.Counter[str]()
    for reason, rows in reasons.items():
        left_out[reason] = int((rows & shown).sum())
        shown &= ~rows
    left_out = +left_out  # drops the reasons that hold for none
    if not shown.any():
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise RunError(f"{run.path}: no sample of {len(run)} can be exported: {told}")
    rows = np.flatnonzero(shown)
    return Choice(rows, classes[rows], dict(left_out))


def predicted_as(run: Run, class_name: str | None) -> np.ndarray:
    """Return which samples are predicted as a class, by `class_index`, bool (n,); None: all are meant.

    Raises:
        ConfigError: there is no such class, or no such sample.
    """
    if class_name is None:
        return np.ones(len(run), bool)
    meant: np.ndarray = run.prediction[:] == class_index(run, class_name, "--predicted")
    if not meant.any():
        raise ConfigError(f"--predicted {class_name}: no sample of {len(run)} is predicted as it")
    return meant


def cam_blocks(
    run: Run, rows: np.ndarray, classes: np.ndarray, names: Sequence[str] = (), held: int = 0
) -> Iterator[tuple[slice, np.ndarray, dict[str, np.ndarray]]]:
    """Yield the raw CAM of one class for each row, in blocks as `Run.blocks` cuts them.

    Args:
        rows: rows of the run, int64 (n,).
        classes: class for each row, -1: none, int64 (n,).
        names: further arrays of the schema to read.
        held: as `Run.blocks` takes it.

    Yields:
        Which of `rows` these are; CAMs, float32 (b, h, w), NaN where none is stored; and the arrays by name,
        `cam_class` among them unless the run stores the CAMs of all classes.
    """
    cam_class = () if run.plan.cams.is_all else ("cam_class",)
    start = 0
    for some, block in run.blocks(("cams", *cam_class, *names), rows, held=held):
        part = slice(start, start := start + len(some))
        yield part, picked_cams(block["cams"], block.get("cam_class"), classes[part]), block


def file_names(run: Run, rows: np.ndarray, ending: str, folds_case: bool) -> list[str]:
    """Return the name of each row's file (see `names.safe_name`).

    Raises:
        RunError: two samples have one id, so that one would take the other's file.
    """
    ids = run.sample_id[rows].tolist()
    if len(set(ids)) < len(ids):
        raise RunError(f"{run.path}: a sample id stands twice; see batchcam verify")
    return [safe_name(sample_id, ending, folds_case) for sample_id in ids]


def class_index(run: Run, name: str, option: str) -> int:
    """Return the index of a class given by name, or by index where no class has such a name.

    Raises:
        ConfigError: there is none; the message names the option.
    """
    try:
        return run.class_index(int(name) if name not in run.class_names and name.isdecimal() else name)
    except KeyError as error:
        known = ", ".join(map(one_line, run.class_names[:NAMED_CLASSES]))
        more = f" and {len(run.class_names) - NAMED_CLASSES} more" if len(run.class_names) > NAMED_CLASSES else ""
        raise ConfigError(f"{option} {name}: no such class; the run has {known}{more}") from error


def class_names(run: Run, classes: np.ndarray) -> list[str | None]:
    """Return the name of each class, None for -1."""
    names = [*run.class_names, None]
    return [names[c] for c in classes.tolist()]


def label_text(run: Run, labels: np.ndarray) -> str | None:
    """Return the classes that are true of a sample of a multi-label run, such as `a|b`; None where nothing is known."""
    true = [run.class_names[k] for k in np.flatnonzero(labels == 1).tolist()]
    return "|".join(true) if (labels >= 0).any() else None


def label_texts(run: Run, rows: np.ndarray) -> list[str | None]:
    """Return the label of each row, or `label_text` of a multi-label run."""
    if run.plan.is_multi_label:
        return [label_text(run, each) for each in run.labels[rows]]
    return class_names(run, run.label[rows])


def status_words(status: int) -> str:
    """Return the flags of a status as words, "" when there are none."""
    return " ".join(str(flag.name).lower() for flag in Status if flag & status)


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"
