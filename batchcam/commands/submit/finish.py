"""finish, what the last job does: prove that a run is whole and true, report, compare it with an older one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from batchcam.commands.submit.config import FinishConfig
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS
from batchcam.job.steps import Steps
from batchcam.store.schema import MANIFEST_FILE


@dataclasses.dataclass(frozen=True)
class FinishSummary:
    """How a run was finished.

    Attributes:
        told: the same in words.
        exit_code: 0 or 3; of a step that failed, or found the record to be untrue, that step's.
    """

    run: str
    told: str
    exit_code: int


def finish(config: FinishConfig) -> FinishSummary:
    """Merge, verify, report, compare; findings are a result, and keep no step from running, but those of verify."""
    run, found = str(config.run), EXIT_DONE
    with Steps(config.quiet) as process:
        for words in _steps(config):
            code = process.run(*words)
            if code not in (EXIT_DONE, EXIT_FINDINGS) or (code and words[0] == "verify"):
                return FinishSummary(run, f"FAILED: exit code {code} of batchcam {words[0]}; see above", code)
            found = code or found
    return FinishSummary(run, "done, with findings; see above" if found else "done", found)


def _steps(config: FinishConfig) -> Iterator[list[str]]:
    run = str(config.run)
    # explain's last worker merges; a complete run keeps its manifest, whose digest may have been noted down
    if not (config.run / MANIFEST_FILE).exists():
        yield ["merge", run]
    yield ["verify", run]
    # where the images are now: the run knows where its first worker saw them
    yield ["report", run, "--data", config.data, "--out", f"{run}.html"]
    if config.against:
        yield ["compare", str(config.against), run, "--out", f"{run}-against-{config.against.name}", *config.words]
