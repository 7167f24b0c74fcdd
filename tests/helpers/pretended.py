"""Programs that are pretended, such as Slurm's: each notes how it was called and does as it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Pretended:
    """Programs in a folder of their own, alone on PATH with the system's."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir()
        patch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        for name in os.environ:
            if name.startswith(("SLURM", "SBATCH", "EXPLAIN_", "BATCHCAM_", "CUDA_")):
                patch.delenv(name)

    def program(self, name: str, does: str) -> None:
        """Pretend a program that does what some lines of shell say."""
        program = self._folder / name
        program.write_text(f'#!/bin/bash\n(IFS=$\'\\t\'; echo "{name}\t$*") >> "{self._folder}/calls"\n{does}\n')
        program.chmod(0o755)

    def calls(self, name: str = "") -> list[list[str]]:
        """Return the words of every call so far, in order."""
        try:
            lines = (self._folder / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [words for line in lines if (words := line.split("\t"))[0] == name or not name]


def at_first(does: str, then: str) -> str:
    """Return lines of shell that do one thing when they run first, as while slurmctld restarts, and then another."""
    return f'if mkdir "$0.was-here" 2>/dev/null; then {does}; else {then}; fi'
