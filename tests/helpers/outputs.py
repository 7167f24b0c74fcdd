"""Every command that reads a run, and what is wrong with what it printed or wrote, told from the output alone."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from tests.helpers.synthetic import run_command
from tests.helpers.wellformed import Page

Words = Callable[[Path, Path], list[object]]
"""From a run and a folder to write into to the words of a command line."""

READERS: dict[str, Words] = {
    "info": lambda run, out: ["info", run],
    "verify": lambda run, out: ["verify", run],
    "render sheet": lambda run, out: ["render", run, "--out", out / "sheet.png"],
    "render folder": lambda run, out: ["render", run, "--out", out / "pictures"],
    "render --signed": lambda run, out: ["render", run, "--signed", "--out", out / "sheet.png"],
    "render --cells": lambda run, out: ["render", run, "--cells", "--out", out / "pictures"],
    "render --contrast": lambda run, out: ["render", run, "--contrast", 0, 1, "--out", out / "pictures"],
    "report": lambda run, out: ["report", run, "--out", out / "report.html"],
    "sample": lambda run, out: ["sample", run, "--n", 1, "--out", out / "review"],
    "compare": lambda run, out: ["compare", run, run, "--out", out / "compared"],
    "compare gate": lambda run, out: ["compare", run, run, "--max-flips", 0, "--max-accuracy-drop", 0],
    "export csv": lambda run, out: ["export", run, "--to", "csv", "--out", out / "table"],
    "export png": lambda run, out: ["export", run, "--to", "png", "--out", out / "pictures"],
    "export wsol": lambda run, out: ["export", run, "--to", "wsol", "--size", "16x16", "--out", out / "wsol"],
    "export virelay": lambda run, out: ["export", run, "--to", "virelay", "--out", out / "project"],
}

LONGEST_NAME = 255
"""Bytes that file systems allow a name."""

DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
FORMULA = r"\s*[=+@\t\r\n＝＋－＠-]"
"""How OWASP says that a cell starts which a spreadsheet may run."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended that was asked for JSON and no progress."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> dict[str, Any]:
        return strict_json(self.out.splitlines()[-1])

    @property
    def faults(self) -> list[str]:
        """What is wrong with the words for people and scripts, whether the command did its work or not."""
        wrong = [f"{c!r} in the output" for c in sorted(set(self.out + self.err)) if not c.isprintable() and c != "\n"]
        wrong += re.findall(r"Traceback|unexpected|\b[A-Z]\w*Error\b", self.out + self.err)
        if self.said["exit_code"] != self.code:
            wrong.append(f"JSON says exit code {self.said['exit_code']}, not {self.code}")
        if self.code in (0, 3):
            return wrong + [f"on stderr: {self.err}"] * bool(self.err)
        if not re.fullmatch(r"batchcam: error: [^\n]+\n", self.err):
            wrong.append(f"not one line of error: {self.err!r}")
        return wrong + [f"on stdout: {self.out}"] * (self.out.count("\n") > 1)


def run_json(*words: object) -> Ended:
    """Run a command line in this process, with --json and --quiet."""
    command, *rest = words
    return Ended(*run_command(command, "--json", "--quiet", *rest))


def strict_json(text: str | bytes) -> Any:
    """Parse JSON as every parser but Python's does: without NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def snapshot(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file below some folders, to see whether any has changed."""
    files = (path for folder in folders for path in folder.rglob("*"))
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files}


def files_of(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if not path.is_dir())


def faults_of_files(out: Path) -> list[str]:
    """What is wrong with the names and contents of the files below `out`."""
    wrong = []
    for path in out.rglob("*"):
        wrong += [f"{path.relative_to(out)}: {fault}" for fault in _faults_of_name(path.name)]
        if path.is_symlink() or not path.resolve().is_relative_to(out.resolve()):
            wrong.append(f"{path}: leads elsewhere")
        elif path.is_file():
            wrong += [f"{path.relative_to(out)}: {fault}" for fault in _faults_of_content(path)]
    return wrong


def _faults_of_name(name: str) -> Iterator[str]:
    if len(name.encode()) > LONGEST_NAME:
        yield "longer than a name may be"
    if not name.isprintable() or set(name) & set('\\/:*?"<>|'):
        yield "characters that not every system takes"
    if name.startswith(("-", ".", " ")) or name.endswith((".", " ")):
        yield "an end that not every program keeps"
    if DEVICES.match(name):
        yield "a device's name on Windows"


def _faults_of_content(path: Path) -> list[str]:
    if path.suffix == ".html":
        return faults_of_page(path.read_text(encoding="utf-8"))
    if path.suffix == ".csv":
        return faults_of_table(path)
    if path.suffix == ".png":
        pixels = np.frombuffer(path.read_bytes(), np.uint8)  # cv2.imread crashes on names that are no UTF-8
        return [] if cv2.imdecode(pixels, cv2.IMREAD_COLOR) is not None else ["no picture"]
    if path.suffix == ".json":
        return [] if strict_json(path.read_bytes()) else ["empty"]
    if path.suffix == ".parquet":
        return [] if path.read_bytes()[:4] == path.read_bytes()[-4:] == b"PAR1" else ["no Parquet"]
    if path.suffix == ".npy":
        values = np.load(path, allow_pickle=False)
        return [] if 0 <= values.min() <= values.max() <= 1 else ["values outside of [0, 1]"]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return [] if len(file) else ["empty"]
    text = path.read_text(encoding="utf-8")
    return [] if text.replace("\n", "").isprintable() else ["characters that do not print"]


def faults_of_page(source: str) -> list[str]:
    """What is wrong with an HTML page."""
    raw = sorted({c for c in source if not c.isprintable()} - {"\n"})
    return Page(source).wrong + [f"{c!r} stands in the page" for c in raw]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def exact(cell: str) -> str:
    """The text of a cell, in the way that docs/record.md tells."""
    return cell[1:].encode("latin-1", "backslashreplace").decode("unicode_escape") if cell.startswith("'") else cell


def faults_of_table(path: Path) -> list[str]:
    """What is wrong with a CSV file: rows of other lengths than the header, lines within cells, formulas."""
    text = path.read_text(encoding="utf-8-sig")
    wrong = [] if text.replace("\n", "").isprintable() else ["characters that do not print"]
    rows = list(csv.reader(text.splitlines(keepends=True), strict=True))
    if len({len(row) for row in rows}) != 1 or len(rows) != text.count("\n"):
        wrong.append("rows of several lengths, or lines within cells")
    cells = [cell for row in rows for cell in row]
    wrong += [f"{cell!r} starts a formula" for cell in cells if re.match(FORMULA, cell) and not _is_number(cell)]
    for separator in ";\t":  # where a spreadsheet is set otherwise, quotes are in odd places
        cells = [cell.strip(' "') for line in text.splitlines() for cell in line.split(separator)]
        wrong += [f"{cell!r} starts a formula" for cell in cells if re.match(FORMULA, cell) and not _is_number(cell)]
    return wrong


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", cell) is not None
