"""jobs: copy the job scripts, whole and executable, and replace nothing of the user's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from batchcam.commands.jobs.config import JobsConfig
from batchcam.errors import BatchcamError
from batchcam.store import landing
from batchcam.version import PACKAGE

NIGHTLY = "nightly.sh"


@dataclasses.dataclass(frozen=True)
class JobsSummary:
    """Names of the job scripts in `folder`: those that were copied, and those that lay there already, the same."""

    folder: str
    copied: list[str]
    kept: list[str]


def jobs(config: JobsConfig) -> JobsSummary:
    """Copy the job scripts into a folder, all or none; run again to go on.

    Raises:
        BatchcamError: the folder holds other files of these names, or this installation has no job scripts.
    """
    folder = config.folder
    scripts = {path.name: path for path in sorted(find_jobs(PACKAGE.parent).iterdir()) if path.is_file()}
    there = [name for name in scripts if (folder / name).exists()]
    if differing := [name for name in there if (folder / name).read_bytes() != scripts[name].read_bytes()]:
        raise BatchcamError(
            f"{folder}: {', '.join(differing)} would be replaced by this version's: move away what is there, "
            "or name another folder"
        )
    landing.make_folder(folder)
    for name, script in scripts.items():
        copy, executable = folder / name, script.stat().st_mode & 0o111
        if name not in there:
            landing.land(copy, script.read_bytes())
        if executable & ~copy.stat().st_mode:
            copy.chmod(copy.stat().st_mode | executable)
    return JobsSummary(str(folder), [name for name in scripts if name not in there], there)


def find_jobs(root: Path) -> Path:
    """Return the folder of the job scripts.

    Args:
        root: where the package lies: a checkout or an unpacked sdist, whose jobs/ lies beside it, or a folder of
            installed packages, below which or beside whose parents pip puts share/.

    Raises:
        BatchcamError: there is none.
    """
    for folder in (root / "jobs", *(parent / "share/batchcam/jobs" for parent in (root, *root.parents))):
        if (folder / NIGHTLY).is_file():
            return folder
    raise BatchcamError(f"{root}: no job scripts in this installation; batchcam's repository has them in jobs/")
