"""The commands: options to a config, a config to one function, what it returns to text."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from batchcam.cli import dynamo
from batchcam.cli.options import (
    PROCESS_OPTIONS,
    build,
    findings_ok_option,
    parameters,
    version_option,
    without_variables,
)
from batchcam.cli.variables import remarks
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.demo.config import DemoConfig
from batchcam.commands.discover.config import DiscoverConfig
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.export.config import ExportConfig
from batchcam.commands.faithfulness.config import FaithfulnessConfig
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.jobs.config import JobsConfig
from batchcam.commands.localize.config import LocalizeConfig
from batchcam.commands.nightly.config import NightlyConfig
from batchcam.commands.promote.config import PromoteConfig
from batchcam.commands.render.config import RenderConfig
from batchcam.commands.report.config import OF_ONE_RUN, ReportConfig
from batchcam.commands.retrain.config import RetrainConfig
from batchcam.commands.review.config import ReviewConfig
from batchcam.commands.sample.config import SampleConfig
from batchcam.commands.submit.config import FinishConfig, GpusConfig, SubmitConfig, TaskConfig
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.trend.config import TrendConfig
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.view.config import ViewConfig
from batchcam.config.gates import Gates
from batchcam.config.options import members, option_of
from batchcam.config.shared import Config, MergeConfig
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, BatchcamError, ConfigError, one_line
from batchcam.job.stop import stop_if_asked

EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "done, with findings",
    75: "stopped early (signal, --time-limit, disk full): run the same command again to go on",
}

WORKERS = ("demo", "train", "evaluate", "explain", "merge", "faithfulness", "discover", "submit")
"""Commands that Windows does not have, beside jobs."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: its options make a config, a function takes it, what that returns is told as text.

    Attributes:
        name: of the command, its function, and NAME_text.
        example: arguments and options of a call.
        findings: whether it may end with 3.
        module: where the function is; imported when the command is called.
        text: where NAME_text is.
        takes: the fields of the config that the function takes instead of all of it, by their names.
        is_job: whether its steps are commands, to which stdout belongs; it tells only what somebody has to know, on
            stderr.
        hidden: whether only our scripts call it.
    """

    name: str
    config: type[Config]
    example: str
    help: str
    findings: bool = True
    module: str = "commands.{name}.{name}"
    text: str = "cli.printing"
    takes: tuple[str, ...] = ()
    is_job: bool = False
    hidden: bool = False

    def run(self, as_json: bool, findings_ok: bool = False, **values: Any) -> int:
        """Do what the values of the options say, and return the exit code."""
        if self.config is ReportConfig and values["against"] is None:
            values = without_variables(values, Gates) | {name: values[name] for name in OF_ONE_RUN}
        config = build(self.config, values)
        if sys.platform == "win32":
            self._require_auditors(config)
        if isinstance(config, InfoConfig) and config.watch:
            return _watch(config, as_json)
        as_markdown = isinstance(config, CompareConfig) and config.markdown
        if as_markdown and as_json:
            raise ConfigError("--markdown and --json exclude each other")
        function = self.function
        if not self.is_job:  # jobs tell others how they ended
            stop_if_asked()  # importing torch took its time
        summary = function(**{name: getattr(config, name) for name in self.takes}) if self.takes else function(config)
        code = _exit_code(summary)
        if findings_ok and code == EXIT_FINDINGS:
            code = EXIT_DONE
        to_text = _load("commands.compare.markdown", "compare_markdown") if as_markdown else self.to_text
        if told := to_text(summary):
            click.echo(told, err=self.is_job)
        if as_json:
            click.echo(json.dumps({**dataclasses.asdict(summary), "exit_code": code}, default=str))
        return code

    def _require_auditors(self, config: Config) -> None:
        recomputes = isinstance(config, VerifyConfig) and bool(config.recompute)
        if self.is_job or self.name in WORKERS or recomputes:
            name = f"{self.name} --recompute" if recomputes else self.name
            raise BatchcamError(f"{name}: needs Linux or macOS; on Windows runs are checked and read, not made")

    @property
    def function(self) -> Callable[..., Any]:
        """What the command does."""
        return _load(self.module.format(name=self.name), self.name.replace("-", "_"))

    @property
    def to_text(self) -> Callable[[Any], str]:
        """What makes a text of what the function returns."""
        return _load(self.text, f"{self.name.replace('-', '_')}_text")

    def to_click(self) -> click.Command:
        """Return the command for the command line; its help ends with an example and the exit codes."""
        own = parameters(self.config)
        limited = any(p.name == "time_limit" for p in own)
        meanings = {
            code: meaning if limited else meaning.replace(", --time-limit", "")
            for code, meaning in EXIT_CODES.items()
            if self.findings or code != EXIT_FINDINGS
        }
        lines = "\n".join(f"  {code:<3} {meaning}" for code, meaning in meanings.items())
        epilog = f"\b\nExample:\n  batchcam {self.name} {self.example}\n\n\b\nExit codes:\n{lines}"
        passes_on = any(option_of(field).passed_to for field, _ in members(self.config))
        context = {**CONTEXT, "allow_interspersed_args": not passes_on}
        command = click.Command(self.name, context, self.run, own, self.help, epilog, hidden=self.hidden)
        for add in (*[findings_ok_option] * self.findings, *PROCESS_OPTIONS):
            add(command)
        return command


@click.group(context_settings=CONTEXT, epilog="`batchcam COMMAND -h` ends with an example and the exit codes.")
@version_option
def cli() -> None:
    """Explain a whole dataset's predictions with class activation maps, in a record that an auditor can trust."""
    for remark in remarks(cli, os.environ):
        click.echo(f"batchcam: {one_line(remark)}", err=True)


COMMANDS = (
    Command("demo", DemoConfig, "--out demo",
            "The whole loop on generated images: train, explain, verify, pictures.", findings=False),
    Command("train", TrainConfig, "photos/train --val photos/test --out model.pth",
            "Fine-tune a classifier on DATA: by default ResNet18 on 128 px with Adam; run again to resume."),
    Command("evaluate", EvaluateConfig, "model.pth photos/test",
            "Measure how well CKPT predicts DATA, overall and per class; no maps."),
    Command("explain", ExplainConfig, 'model.pth photos/test --out runs/monday --task "$SLURM_ARRAY_TASK_ID/8"',
            "Explain every sample of DATA with CKPT: predictions, raw CAMs and maps into RUN's shards.\n\n"
            "DATA is a folder of class folders or of images, a .tar or .zip of one, a manifest (path[,label][,id] in a "
            ".csv, .tsv, .jsonl or .parquet), a URL of these, wds:PATTERN, hf:PATH[:split], stl10:ROOT[:split], "
            "torchvision:NAME:ROOT[:split] or python:module:callable. Run again to go on; several workers may share a "
            "run."),
    Command("merge", MergeConfig, "runs/monday",
            "Prove that RUN's shards hold each sample once; write run.h5 and the manifest.\n\n"
            "Shards are not read again that are untouched since a task of RUN wrote them, or an earlier merge proved "
            "them; verify reads every byte.",
            module="commands.merge", takes=("run", "prove", "time_limit_s")),
    Command("verify", VerifyConfig, "runs/monday",
            "Check every file and every row of RUN, read-only: digests, structure, coverage, numbers."),
    Command("info", InfoConfig, "runs/monday",
            "Tell what RUN explained, by which weights, how well, and what went wrong.", findings=False,
            module="commands.info.command"),
    Command("render", RenderConfig, "runs/monday --wrong --top 20 --out mistakes.png",
            "Draw maps over the original images: one sheet (20 spread over the run by default) or a file for each."),
    Command("report", ReportConfig, "runs/monday --out monday.html",
            "Write one HTML file about RUN: provenance, accuracy, calibration, where the evidence sits, what looks "
            "odd."),
    Command("sample", SampleConfig, "runs/monday --n 100 --stratify class --out review",
            "Draw samples of RUN at random, with a sheet of pictures and a table for people's verdicts.\n\n"
            "The same RUN, --n and --seed give the same samples everywhere."),
    Command("review", ReviewConfig, "review/*.csv --run runs/monday",
            "Tell how far people agree on drawn samples, what follows for the whole run, and which cases are open.\n\n"
            "FILES are filled-in copies of verdicts.csv, or folders of them.",
            text="commands.review.text"),
    Command("view", ViewConfig, "runs/monday --against runs/sunday --verdicts verdicts.csv",
            "Look at any sample of RUN on a page of this machine: filter, sort, maps of every class, verdicts by key."),
    Command("localize", LocalizeConfig, "runs/monday --annotations photos/annotations.csv --out scores",
            "Tell whether the maps find annotated objects: MaxBoxAccV2, PxAP, pointing game, energy inside.",
            text="commands.localize.text"),
    Command("faithfulness", FaithfulnessConfig, "runs/monday --checkpoint model.pth --data photos/test --out curves",
            "Tell whether the network uses what the maps point to: deletion, insertion and ROAD, beside baselines.",
            text="commands.faithfulness.text"),
    Command("discover", DiscoverConfig, "runs/monday --checkpoint model.pth --data photos/test --out shortcuts",
            "Tell whether a region carries a class into other images by itself, as a shortcut does; show the regions.",
            text="commands.discover.text"),
    Command("export", ExportConfig, "runs/monday --to csv --out monday-table",
            "Hand a run over in another tool's form: ViRelAy, FiftyOne, WSOL, pictures, tables, HDF5, Zarr, in-toto."),
    Command("compare", CompareConfig, "runs/monday runs/tuesday --max-accuracy-drop 1 --min-cam-similarity 0.5",
            "Tell what moved between two runs over the same images: predictions and reasons; a gate for scripts.",
            text="commands.compare.text"),
    Command("trend", TrendConfig, "runs --out trends",
            "Tell what moves over many nights, and end with 3 where the newest one is off by more than chance.\n\n"
            "RUNS are runs in their order, or a folder of them.",
            text="commands.trend.text"),
    Command("nightly", NightlyConfig, "--keep 14 models/promoted/model.pth photos runs --device cpu",
            "One night of a job that runs every night: explain DATA into RUNS/<today>, verify, let RUNS/latest point "
            "to the run, report, remove old runs.\n\n"
            "Silent after a good night; otherwise it tells on stderr, which cron mails, what happened and what to do. "
            "A run that was interrupted is finished by the next start. A second start on the day of a finished run "
            "does nothing; one while another is at work ends with 75. LOCKDIR may name a folder for locks, of this "
            "machine only.",
            is_job=True),
    Command("retrain", RetrainConfig, "--max-flips 5 photos/train photos/test models/second --epochs 40",
            "Train a VERSION of a model on TRAIN, explain TEST, compare with the promoted version, then promote or "
            "refuse (3).\n\n"
            "VERSION/model.pth is the checkpoint, VERSION/run its explanation, and the link `promoted` beside VERSION "
            "points to the promoted one. Without a gate: --max-accuracy-drop 1, of multi-label runs --max-auroc-drop "
            "1. The first version is promoted without a comparison, or held to the minima of --min-…. Limits that are "
            "auto come from the promoted version's retrainings, which --seeds makes. Run again to go on, or to try "
            "other gates.",
            is_job=True),
    Command("promote", PromoteConfig, "--max-flips 5 best.pth photos/test models/second --arch resnet50",
            "Do what retrain does after training, for CKPT of your own training code: copy it to VERSION, explain "
            "TEST, compare with the promoted version, then promote or refuse (3).",
            is_job=True),
    Command("submit", SubmitConfig, "--tasks 8 --against runs/monday --max-flips 2 model.pth photos runs/tuesday",
            "Submit to Slurm: an array that explains RUN; when all its tasks have ended well, one job merges, "
            "verifies, reports, and compares with an older run.\n\n"
            "Run it again after a failure: finished shards stay. Partition, account and their like come from "
            "SBATCH_PARTITION, SBATCH_ACCOUNT, …, for both jobs.",
            text="commands.submit.text"),
    Command("jobs", JobsConfig, "~/jobs",
            "Copy the job scripts for cron, Slurm and several GPUs into DIR, where you can adapt them.",
            findings=False),
)  # fmt: skip

OF_SCRIPTS = (
    Command("slurm-task", TaskConfig, "--tasks 8 model.pth photos runs/tuesday",
            "What jobs/explain.sbatch does: the share of this task of an array of Slurm's, in a step of srun.",
            module="commands.submit.task", text="commands.submit.text", is_job=True, hidden=True),
    Command("explain-gpus", GpusConfig, "4 model.pth photos runs/tuesday",
            "What jobs/explain_gpus.sh does: a worker for each GPU of this machine, or of an allocation of Slurm's.",
            module="commands.submit.gpus", text="commands.submit.text", is_job=True, hidden=True),
    Command("finish", FinishConfig, "--against runs/monday --max-flips 2 photos runs/tuesday",
            "What jobs/finish.sbatch does: merge, verify, report, compare.",
            module="commands.submit.finish", text="commands.submit.text", is_job=True, hidden=True),
)  # fmt: skip
"""What only the scripts in jobs/ call."""

for each in (*COMMANDS, *OF_SCRIPTS):
    cli.add_command(each.to_click())


def _load(module: str, name: str) -> Callable[[Any], Any]:
    with dynamo.imported_late():
        function: Callable[[Any], Any] = getattr(importlib.import_module(f"batchcam.{module}"), name)
    return function


def _exit_code(summary: Any) -> int:
    """Return the exit code that a summary says, or that its findings mean."""
    code: int = getattr(summary, "exit_code", EXIT_FINDINGS if getattr(summary, "findings", 0) else EXIT_DONE)
    return code


def _watch(config: InfoConfig, as_json: bool) -> int:
    """Print looks at a run until it is complete: in place on a terminal, line by line elsewhere."""
    from batchcam.cli.printing import watch_line, watch_text
    from batchcam.commands.info.command import watch

    in_place = sys.stdout.isatty() and not as_json
    for seen in watch(config, 2.0 if in_place else 30.0):
        if as_json:
            click.echo(json.dumps({**dataclasses.asdict(seen), "exit_code": EXIT_DONE if seen.complete else None}))
        elif in_place:
            click.clear()
            click.echo(watch_text(seen))
        else:
            click.echo(watch_line(seen))
    return EXIT_DONE
