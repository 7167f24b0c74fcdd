"""The commands: options to a config, a config to one function, what it returns to text."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from batchcam import __version__
from batchcam.cli.options import PROCESS_OPTIONS, build, parameters
from batchcam.cli.variables import remarks
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.demo.config import DemoConfig
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.export.config import ExportConfig
from batchcam.commands.faithfulness.config import FaithfulnessConfig
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.localize.config import LocalizeConfig
from batchcam.commands.render.config import RenderConfig
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.verify.config import VerifyConfig
from batchcam.config import Config, RunConfig
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, one_line
from batchcam.job.scheduler import Stop

EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "done, with findings",
    75: "stopped early (signal, --time-limit, disk full): run the same command again to go on",
}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: it makes a config of its options, hands it to a function, and tells what that returns.

    Attributes:
        name: of the command and of the function.
        config: what it is asked.
        help: what it does.
        example: how to call it.
        findings: whether it may end with 3.
        module: where the function is; imported when the command is called.
        text: where its function is that makes a text of what the other returns, NAME_text.
        takes: the field of the config that the function takes; None: all of it.
        stops: whether the function also takes what listens for signals and the time limit.
    """

    name: str
    config: type[Config]
    help: str
    example: str
    findings: bool = True
    module: str = "batchcam.commands.{name}.{name}"
    text: str = "batchcam.cli.printing"
    takes: str | None = None
    stops: bool = False

    def run(self, as_json: bool, **values: Any) -> int:
        """Do what the values of the options say, and return the exit code."""
        config = build(self.config, values)
        if isinstance(config, InfoConfig) and config.watch:
            return _watch(config.run, as_json)
        asked = getattr(config, self.takes) if self.takes else config
        # before torch is imported, which takes seconds
        with Stop(getattr(config, "time_limit_s", None)) if self.stops else contextlib.nullcontext() as stop:
            function = getattr(importlib.import_module(self.module.format(name=self.name)), self.name)
            text = getattr(importlib.import_module(self.text), f"{self.name}_text")
            return _finish(function(asked, stop) if stop else function(asked), text, as_json)

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
        epilog = f"\b\nExample:\n  {self.example}\n\n\b\nExit codes:\n{lines}"
        command = click.Command(self.name, CONTEXT, self.run, own, self.help, epilog)
        for add in PROCESS_OPTIONS:
            add(command)
        return command


@click.group(context_settings=CONTEXT, epilog="`batchcam COMMAND -h` ends with an example and the exit codes.")
@click.version_option(__version__, prog_name="batchcam")
def cli() -> None:
    """Explain a whole dataset's predictions with class activation maps, in a record that an auditor can trust."""
    for remark in remarks(cli, os.environ):
        click.echo(f"batchcam: {one_line(remark)}", err=True)


COMMANDS = (
    Command(
        "demo",
        DemoConfig,
        "The whole loop on generated images: train, explain, verify, pictures.",
        "batchcam demo --out demo",
        findings=False,
    ),
    Command(
        "train",
        TrainConfig,
        "Fine-tune a classifier on DATA: by default ResNet18 on 128 px with Adam; run again to resume.",
        "batchcam train photos/train --val photos/test --out model.pth",
    ),
    Command(
        "evaluate",
        EvaluateConfig,
        "Measure the accuracy of CKPT on DATA, overall and per class; no maps.",
        "batchcam evaluate model.pth photos/test",
    ),
    Command(
        "explain",
        ExplainConfig,
        "Explain every sample of DATA with CKPT: predictions, raw CAMs and maps into RUN's shards.\n\n"
        "DATA is a folder of class folders, a CSV manifest (path[,label][,id]), stl10:ROOT[:split], "
        "torchvision:NAME:ROOT[:split] or python:module:callable. Run again to go on; several workers may share a run.",
        'batchcam explain model.pth photos/test --out runs/monday --task "$SLURM_ARRAY_TASK_ID/8"',
        stops=True,
    ),
    Command(
        "merge",
        RunConfig,
        "Prove that RUN's shards hold each sample once; write run.h5 and the manifest.",
        "batchcam merge runs/monday",
        module="batchcam.commands.merge",
        takes="run",
    ),
    Command(
        "verify",
        VerifyConfig,
        "Check every file and every row of RUN, read-only: digests, structure, coverage, numbers.",
        "batchcam verify runs/monday",
    ),
    Command(
        "info",
        InfoConfig,
        "Tell what RUN explained, by which weights, how well, and what went wrong.",
        "batchcam info runs/monday",
        findings=False,
        takes="run",
    ),
    Command(
        "render",
        RenderConfig,
        "Draw maps over the original images: one sheet (20 spread over the run by default) or a file for each.",
        "batchcam render runs/monday --wrong --top 20 --out mistakes.png",
    ),
    Command(
        "report",
        ReportConfig,
        "Write one HTML file about RUN: provenance, accuracy, calibration, where the evidence sits, what looks odd.",
        "batchcam report runs/monday --out monday.html",
    ),
    Command(
        "localize",
        LocalizeConfig,
        "Tell whether the maps find annotated objects: MaxBoxAccV2, PxAP, pointing game, energy inside.",
        "batchcam localize runs/monday --annotations photos/annotations.csv --out scores",
        text="batchcam.commands.localize.localize",
    ),
    Command(
        "faithfulness",
        FaithfulnessConfig,
        "Tell whether the network uses what the maps point to: deletion, insertion and ROAD, beside baselines.",
        "batchcam faithfulness runs/monday --checkpoint model.pth --data photos/test --out scores",
        text="batchcam.commands.faithfulness.faithfulness",
    ),
    Command(
        "export",
        ExportConfig,
        "Hand a run over in another tool's format: ViRelAy, WSOL score maps, pictures, tables.",
        "batchcam export runs/monday --to csv --out monday-table",
    ),
    Command(
        "compare",
        CompareConfig,
        "Tell what moved between two runs over the same images: predictions and reasons; a gate for scripts.",
        "batchcam compare runs/monday runs/tuesday --max-accuracy-drop 1 --min-cam-similarity 0.5",
        text="batchcam.commands.compare.text",
    ),
)

for each in COMMANDS:
    cli.add_command(each.to_click())


def _finish(summary: Any, text: Callable[[Any], str], as_json: bool) -> int:
    """Print what a command returned; return the exit code."""
    code = EXIT_FINDINGS if getattr(summary, "findings", 0) else EXIT_DONE
    click.echo(text(summary))
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(summary), "exit_code": code}, default=str))
    return code


def _watch(run: Path, as_json: bool) -> int:
    """Print looks at a run until it is complete: in place on a terminal, line by line elsewhere."""
    from batchcam.cli.printing import watch_line, watch_text
    from batchcam.commands.info.watch import watch

    in_place = sys.stdout.isatty()
    for seen in watch(run, 2.0 if in_place else 30.0):
        if in_place:
            click.clear()
        click.echo(watch_text(seen) if in_place else watch_line(seen))
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(seen), "exit_code": EXIT_DONE}))
    return EXIT_DONE
