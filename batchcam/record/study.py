"""What compare, localize and faithfulness share: why samples are left out, notes on a run, files, lines for people."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from batchcam.errors import one_line
from batchcam.rules import EXACT
from batchcam.store import landing
from batchcam.store.document import seal
from batchcam.store.ours import claim, require_own_files
from batchcam.store.run import Run
from batchcam.version import version

LISTED: Final = 1000
"""Ids of each reason that a study's JSON document lists; its tables have all of them."""

CLASSES_SHOWN: Final = 40


class Reason(enum.IntEnum):
    """Why a sample is left out, 0: it is not; a member's text is its name, or what stands beside its number."""

    _other: str

    def __new__(cls, number: int, text: str = "") -> Reason:
        member = int.__new__(cls, number)
        member._value_, member._other = number, text
        return member

    @property
    def text(self) -> str:
        """The reason as people read it, "" for a sample that is not left out."""
        return (self._other or self.name.lower().replace("_", " ")) if self else ""


def first_reasons(conditions: Mapping[Reason, np.ndarray]) -> np.ndarray:
    """Return the first reason that holds for each of n samples, 0 where none does, uint8 (n).

    Args:
        conditions: for which samples each reason holds, bool (n), in order of precedence.
    """
    return np.select(list(conditions.values()), list(conditions), 0).astype(np.uint8)


def rows_left_out(kind: type[Reason], reasons: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows that are left out by the reason's text, without reasons that hold for none."""
    rows = {reason.text: np.flatnonzero(reasons == reason) for reason in kind if reason}
    return {text: places for text, places in rows.items() if len(places)}


def count_left_out(kind: type[Reason], reasons: np.ndarray) -> dict[str, int]:
    """Return how many samples are left out by the reason's text, without reasons that hold for none."""
    return named_counts(kind, np.bincount(reasons, minlength=256))


def named_counts(kind: type[Reason], counts: np.ndarray) -> dict[str, int]:
    """Return by the reason's text how many samples are left out, from the count of each number, 0 left aside."""
    return {reason.text: int(counts[reason]) for reason in kind if reason and counts[reason]}


def run_notes(run: Run, name: str = "the run", control: str = "") -> Iterator[str]:
    """Yield what has to be known of a run before its numbers are read.

    Args:
        control: what follows from random weights; "": that needs no telling.
    """
    plan = run.plan
    if not run.complete:
        yield f"{name} is not complete: {run.state}"
    for remark in run.remarks:
        yield f"{name}: {remark}"
    if plan.is_control and control:
        yield f"control {plan.control}: {control}"
    if plan.waived:
        yield f"{name} waived the identity: its maps do not explain its logits"


def require_place(out: Path | None, study: str, files: Iterable[str], overwrite: bool) -> None:
    """Refuse a folder where the files of a study would replace others than its own, before the work begins.

    Raises:
        ConfigError: the message names the files.
    """
    if out is not None:
        require_own_files(out, f"{study}.json", files, overwrite)


def land_study(
    out: Path,
    study: str,
    layout: int,
    files: Mapping[str, bytes],
    content: Mapping[str, Any],
    landed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Land the files of a study in folder `out`, over those of an earlier one; its document comes last.

    Args:
        out: created if it is not there.
        layout: a number that changes with the names and meanings in the files.
        files: the other files by name.
        content: what the document says beside versions and the digests of the other files.
        landed: digests of further files, which lie there already, by name.
    """
    landing.make_folder(out)
    claim(out / f"{study}.json")
    for name, data in files.items():
        landing.land(out / name, data)
    head = {
        f"{study}_version": layout,
        "batchcam_version": version(),
        "files": {**landed, **{name: hashlib.sha256(data).hexdigest() for name, data in files.items()}},
    }
    # without the folder: the same runs give the same bytes, wherever they are written
    landing.land(out / f"{study}.json", seal({k: v for k, v in content.items() if k != "out"} | head))
    landing.remove_stale_partials(out, (*landed, *files, f"{study}.json"))


def head_lines(head: Iterable[tuple[str, str]], notes: Iterable[str], out: str | None, study: str) -> list[str]:
    """Return the lines above a study's tables: names and values, notes, and where its files are."""
    lines = [*head, *(("note", note) for note in notes)]
    if out is not None:
        lines.append(("written", f"{out}/{study}.json and the files it names"))
    return [f"{name:<11} {one_line(value)}" for name, value in lines]


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts by what is counted in one line."""
    return "; ".join(f"{count} {name}" for name, count in counts.items())


def maps_text(method: str) -> str:
    """Return what a study judges of maps by `method`."""
    return "raw CAM" if method == EXACT else f"raw map by {method}"


def class_lines(header: str, rows: Sequence[tuple[str, str]], what: str = "class", more: str = "") -> list[str]:
    """Return a table of the first classes, or of `what` else, from the name and the other columns of each.

    What follows a line break in the columns stands below them. `more` follows how many others there are.
    """
    shown = rows[:CLASSES_SHOWN]
    width = max(len(one_line(name)) for name in (what, *(name for name, _ in shown)))
    below = "\n" + " " * (width + 2)
    table = ((one_line(name), columns.replace("\n", below)) for name, columns in ((what, header), *shown))
    lines = [f"{name:<{width}}  {columns}".rstrip() for name, columns in table]
    return lines + ([f"… and {len(rows) - len(shown)} more{more}"] if len(rows) > len(shown) else [])
