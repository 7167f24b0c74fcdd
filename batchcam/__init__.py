"""Explain a whole dataset's predictions with class activation maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from batchcam.commands.compare.compare import CompareSummary
    from batchcam.commands.compare.compare import by_keywords as compare
    from batchcam.commands.compare.config import CompareConfig
    from batchcam.commands.compare.gates import Gate
    from batchcam.commands.explain.config import ExplainConfig
    from batchcam.commands.explain.explain import ExplainSummary
    from batchcam.commands.explain.explain import by_keywords as explain
    from batchcam.commands.merge import MergeSummary, merge
    from batchcam.commands.report.config import ReportConfig
    from batchcam.commands.report.report import ReportSummary, SigmoidReport
    from batchcam.commands.report.report import by_keywords as report
    from batchcam.commands.verify.config import VerifyConfig
    from batchcam.commands.verify.verify import VerifySummary
    from batchcam.commands.verify.verify import by_keywords as verify
    from batchcam.config.shared import Classifier, Compute
    from batchcam.errors import (
        BatchcamError,
        CheckerError,
        CheckpointError,
        ClassesError,
        ConfigError,
        DatasetError,
        DeviceError,
        ModelError,
        OtherClassesError,
        OutOfMemoryError,
        RunError,
        StoppedEarlyError,
        StorageFullError,
    )
    from batchcam.rules import Status
    from batchcam.store.findings import Finding
    from batchcam.store.opening import open_run
    from batchcam.store.run import Run, RunArray, Sample
    from batchcam.store.series import Series

    __version__: str

__all__ = [
    "BatchcamError", "CheckerError", "CheckpointError", "ClassesError", "Classifier", "CompareConfig",
    "CompareSummary", "Compute", "ConfigError", "DatasetError", "DeviceError", "ExplainConfig", "ExplainSummary",
    "Finding", "Gate", "MergeSummary", "ModelError", "OtherClassesError", "OutOfMemoryError", "ReportConfig",
    "ReportSummary", "Run", "RunArray", "RunError", "Sample", "Series", "SigmoidReport", "Status", "StoppedEarlyError",
    "StorageFullError", "VerifyConfig", "VerifySummary", "__version__", "compare", "explain", "merge", "open_run",
    "report", "verify",
]  # fmt: skip

_HOMES: Final = {
    "Classifier": "config.shared",
    "CompareConfig": "commands.compare.config",
    "CompareSummary": "commands.compare.compare",
    "Compute": "config.shared",
    "ExplainConfig": "commands.explain.config",
    "ExplainSummary": "commands.explain.explain",
    "Finding": "store.findings",
    "Gate": "commands.compare.gates",
    "MergeSummary": "commands.merge",
    "ReportConfig": "commands.report.config",
    "ReportSummary": "commands.report.report",
    "Run": "store.run",
    "RunArray": "store.run",
    "Sample": "store.run",
    "Series": "store.series",
    "SigmoidReport": "commands.report.report",
    "Status": "rules",
    "VerifyConfig": "commands.verify.config",
    "VerifySummary": "commands.verify.verify",
    "compare": "commands.compare.compare:by_keywords",
    "explain": "commands.explain.explain:by_keywords",
    "merge": "commands.merge",
    "open_run": "store.opening",
    "report": "commands.report.report:by_keywords",
    "verify": "commands.verify.verify:by_keywords",
}
"""Where each public name is, and as what; the errors are in `errors`. Imported when asked for: whoever reads a run
waits for no torch, and `batchcam --help` not for numpy."""


if not TYPE_CHECKING:  # type checkers would take any name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":  # asks git in a checkout
            from batchcam.version import version

            return version()
        from importlib import import_module

        module, _, attribute = _HOMES.get(name, "errors").partition(":")
        value = getattr(import_module(f"{__name__}.{module}"), attribute or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
