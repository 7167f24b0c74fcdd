"""The commands: options to a config, a config to one function, what it returns to text."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from batchcam import __version__
from batchcam.cli.options import (
    FILE,
    classifier_options,
    common_options,
    compute_options,
    device_options,
    option,
    partial_option,
    preprocessing_options,
)
from batchcam.cli.variables import remarks
from batchcam.config import (
    Classifier,
    Compute,
    DemoConfig,
    EvaluateConfig,
    ExplainConfig,
    TrainConfig,
    VerifyConfig,
    parse_duration,
)
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, one_line
from batchcam.rules import CONTROLS, METHODS

EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "done, with findings",
    75: "stopped early (signal, --time-limit, disk full): run the same command again to go on",
}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _command(example: str, findings: bool = True) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command whose help ends with an example and its exit codes.

    Args:
        example: how to call it.
        findings: whether it may end with 3.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        own = len(parameters := getattr(function, "__click_params__", []))
        limited = any(p.name == "time_limit" for p in parameters)
        meanings = {
            code: meaning if limited else meaning.replace(", --time-limit", "")
            for code, meaning in EXIT_CODES.items()
            if findings or code != EXIT_FINDINGS
        }
        lines = "\n".join(f"  {code:<3} {meaning}" for code, meaning in meanings.items())
        epilog = f"\b\nExample:\n  {example}\n\n\b\nExit codes:\n{lines}"
        command = cli.command(epilog=epilog, context_settings=CONTEXT)(common_options(function))
        command.params = command.params[-own:] + command.params[:-own]  # what all commands share comes last
        return command

    return decorate


@click.group(context_settings=CONTEXT, epilog="`batchcam COMMAND -h` ends with an example and the exit codes.")
@click.version_option(__version__, prog_name="batchcam")
def cli() -> None:
    """Explain a whole dataset's predictions with class activation maps, in a record that an auditor can trust."""
    for remark in remarks(cli, os.environ):
        click.echo(f"batchcam: {one_line(remark)}", err=True)


@_command("batchcam demo --out demo", findings=False)
@option("--out", type=FILE, default=Path("batchcam-demo"), show_default=True, help="New folder for everything.")
@option("--seed", type=int, default=0, show_default=True, help="Random seed of images, weights and order.")
@option("--threads", type=int, help="CPU threads of the network.  [default: all CPUs]")
def demo(out: Path, seed: int, threads: int | None, quiet: bool, as_json: bool) -> int:
    """The whole loop on generated images: train, explain, verify, pictures."""
    from batchcam.cli.printing import demo_text
    from batchcam.commands.demo.demo import demo as run

    return _finish(run(DemoConfig(out, seed, threads, quiet)), demo_text, as_json)


@_command("batchcam train photos/train --val photos/test --out model.pth")
@click.argument("data")
@option("--out", type=FILE, required=True, help="The best checkpoint; the last one, to resume from, lies beside it.")
@option("--val", help="Validation dataset.  [default: a tenth of each class of DATA]")
@option(
    "--val-fraction", type=float, default=0.1, show_default=True, help="Share of DATA to validate on, without --val."
)
@option("--arch", default="resnet18", show_default=True, help="torchvision's name of the network.")
@option("--weights", help="Pretrained weights: a file, or torchvision's name such as DEFAULT.")
@option("--epochs", type=int, default=20, show_default=True, help="Times to go through the training images.")
@option("-b", "--batch-size", type=int, default=40, show_default=True, help="Images of one step.")
@option("--learning-rate", type=float, default=1e-4, show_default=True, help="Step size of Adam.")
@option("--weight-decay", type=float, default=1e-2, show_default=True, help="Weight decay of Adam.")
@option("--seed", type=int, default=0, show_default=True, help="Random seed of split, weights and order.")
@preprocessing_options
@device_options
def train(quiet: bool, as_json: bool, **options: Any) -> int:
    """Fine-tune a classifier on DATA: by default ResNet18 on 128 px with Adam; run again to resume."""
    from batchcam.cli.printing import train_text
    from batchcam.commands.train.train import train as run

    return _finish(run(TrainConfig(quiet=quiet, **options)), train_text, as_json)


@_command("batchcam evaluate model.pth photos/test")
@click.argument("ckpt", type=FILE)
@click.argument("data")
@classifier_options
@compute_options
def evaluate(ckpt: Path, data: str, quiet: bool, as_json: bool, **options: Any) -> int:
    """Measure the accuracy of CKPT on DATA, overall and per class; no maps."""
    from batchcam.cli.printing import evaluate_text
    from batchcam.commands.evaluate.evaluate import evaluate as run

    classifier, compute = _classifier(ckpt, options), _compute(options)
    return _finish(run(EvaluateConfig(classifier, data, compute, quiet)), evaluate_text, as_json)


@_command('batchcam explain model.pth photos/test --out runs/monday --task "$SLURM_ARRAY_TASK_ID/8"')
@click.argument("ckpt", type=FILE)
@click.argument("data")
@option("--out", type=FILE, required=True, help="The run directory.")
@option(
    "--task",
    metavar="I/N",
    help="This worker's share of the shards, 0/N to N-1/N.  [default: from torchrun or srun, or all]",
)
@option("--shard-size", type=int, help="Samples of one shard.  [default: about 64 MiB]")
@option(
    "--target-layer",
    help="Layer to explain.  [default: the one that the classifier pools; for gradient methods the last grid]",
)
@option("--no-identity", is_flag=True, help="Explain --target-layer although its CAMs do not add up to the logits.")
@option(
    "--method",
    type=click.Choice(METHODS),
    help="cam adds up to the logits; the others are gradient methods, for networks without it.  [default: cam]",
)
@option(
    "--control",
    type=click.Choice(CONTROLS),
    help="Sanity check: give the last layer (head) or all layers (weights) random weights, then explain; maps that "
    "stay the same do not depend on what was learned.",
)
@option(
    "--cams",
    metavar="SELECTION",
    help="Classes to store: all, predicted, predicted+label, topk:N.  [default: all; predicted with gradients]",
)
@option(
    "--maps",
    type=click.Choice(("uint8", "float32", "none")),
    help="Upsampled map of the predicted class.  [default: uint8]",
)
@option("--time-limit", metavar="TIME", help="Stop early after 90s, 15m, 2h or HH:MM:SS.")
@option("--dry-run", is_flag=True, help="Check everything, tell samples, shards and bytes, write nothing.")
@classifier_options
@compute_options
def explain(
    ckpt: Path,
    data: str,
    out: Path,
    no_identity: bool,
    time_limit: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Explain every sample of DATA with CKPT: predictions, raw CAMs and maps into RUN's shards.

    DATA is a folder of class folders, a CSV manifest (path[,label][,id]), stl10:ROOT[:split],
    torchvision:NAME:ROOT[:split] or python:module:callable. Run again to go on; several workers may share a run.
    """
    config = ExplainConfig(
        classifier=_classifier(ckpt, options),
        data=data,
        out=out,
        compute=_compute(options),
        identity=not no_identity,
        time_limit_s=parse_duration(time_limit, "--time-limit") if time_limit else None,
        quiet=quiet,
        **options,
    )
    from batchcam.cli.printing import explain_text
    from batchcam.commands.explain.explain import explain as run

    return _finish(run(config), explain_text, as_json)


@_command("batchcam merge runs/monday")
@click.argument("run", type=FILE)
def merge(run: Path, quiet: bool, as_json: bool) -> int:
    """Prove that RUN's shards hold each sample once; write run.h5 and the manifest."""
    from batchcam.cli.printing import merge_text
    from batchcam.commands.merge import merge as command

    return _finish(command(run), merge_text, as_json)


@_command("batchcam verify runs/monday")
@click.argument("run", type=FILE)
@option("--recompute", type=int, default=0, show_default=True, help="Run the network again on so many samples.")
@option("--checkpoint", type=FILE, help="The run's checkpoint, for --recompute.")
@option("--data", help="The run's dataset, for --recompute.")
@option("--seed", type=int, default=0, show_default=True, help="Random seed of the draw of samples.")
@option("--device", default="auto", show_default=True, help="Where to recompute: cpu, cuda, cuda:N or auto.")
@classifier_options
def verify(
    run: Path,
    recompute: int,
    checkpoint: Path | None,
    data: str | None,
    seed: int,
    device: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Check every file and every row of RUN, read-only: digests, structure, coverage, numbers."""
    from batchcam.cli.printing import verify_text
    from batchcam.commands.verify.verify import verify as command

    classifier = _classifier(checkpoint, options) if checkpoint else None
    return _finish(command(VerifyConfig(run, recompute, classifier, data, seed, device, quiet)), verify_text, as_json)


@_command("batchcam info runs/monday", findings=False)
@click.argument("run", type=FILE)
@option("--watch", is_flag=True, help="Show a run in progress until it is complete.")
def info(run: Path, watch: bool, quiet: bool, as_json: bool) -> int:
    """Tell what RUN explained, by which weights, how well, and what went wrong."""
    if watch:
        return _watch(run, as_json)
    from batchcam.cli.printing import info_text
    from batchcam.commands.info.info import info as command

    return _finish(command(run), info_text, as_json)


@_command("batchcam render runs/monday --wrong --top 20 --out mistakes.png")
@click.argument("run", type=FILE)
@option("--out", type=FILE, required=True, help="FILE.png: one sheet; else a folder: one picture per sample.")
@option("--sample", "sample_ids", multiple=True, metavar="ID", help="These samples; may be repeated.")
@option("--class", "label", metavar="C", help="Samples of this class, by name or index.")
@option("--wrong", is_flag=True, help="Samples predicted otherwise than labelled.")
@option("--confusion", nargs=2, metavar="A B", help="Samples of class A predicted as B.")
@option("--top", type=int, metavar="N", help="The N with the largest values of --by.")
@option("--bottom", type=int, metavar="N", help="The N with the smallest values of --by.")
@option(
    "--by",
    metavar="confidence|entropy|margin|loss|identity_residual",
    default="confidence",
    show_default=True,
    help="What --top and --bottom rank by.",
)
@option("--data", help="Where the original images are.  [default: where the run found them]")
@option("--palette", metavar="viridis|jet", default="viridis", show_default=True, help="Colours of the maps.")
@option("--cells", is_flag=True, help="Show the map's own cells instead of interpolating.")
@option("--signed", is_flag=True, help="Raw values around zero: evidence for red, against blue.")
@option("--contrast", nargs=2, metavar="A B", help="CAM of class A minus that of B; also 'predicted', 'label'.")
@partial_option
def render(run: Path, quiet: bool, as_json: bool, **options: Any) -> int:
    """Draw maps over the original images: one sheet (20 spread over the run by default) or a file for each."""
    from batchcam.cli.printing import render_text
    from batchcam.commands.render.render import RenderConfig
    from batchcam.commands.render.render import render as command
    from batchcam.commands.render.selection import Selection

    selection = Selection(**_take(options, Selection))
    return _finish(command(RenderConfig(run, selection=selection, quiet=quiet, **options)), render_text, as_json)


@_command("batchcam report runs/monday --out monday.html")
@click.argument("run", type=FILE)
@option("--out", type=FILE, required=True, help="FILE.html: one file that needs nothing else.")
@option("--data", help="Where the original images are.  [default: where the run found them]")
@option("--against", type=FILE, metavar="OLD", help="An older run of the same samples: tell what moved since.")
@option("--top", type=int, default=24, show_default=True, help="Most pictures of each kind.")
@partial_option
def report(run: Path, quiet: bool, as_json: bool, **options: Any) -> int:
    """Write one HTML file about RUN: provenance, accuracy, calibration, where the evidence sits, what looks odd."""
    from batchcam.cli.printing import report_text
    from batchcam.commands.report.report import ReportConfig
    from batchcam.commands.report.report import report as command

    return _finish(command(ReportConfig(run, quiet=quiet, **options)), report_text, as_json)


@_command("batchcam localize runs/monday --annotations photos/annotations.csv --out scores")
@click.argument("run", type=FILE)
@option("--annotations", type=FILE, required=True, help="CSV file, folder of masks, or WSOL's localization.txt.")
@option("--target", metavar="label|predicted", default="label", show_default=True, help="Whose CAM.")
@option(
    "--frame",
    metavar="view|image",
    default="view",
    show_default=True,
    help="view: what the network saw; image: WSOL's 224x224.",
)
@option(
    "--tolerance",
    type=float,
    metavar="PX",
    help="How far beside an object the pointing game counts as a hit, in pixels.  [default: 15 at 224]",
)
@option("--mask-root", type=FILE, help="Folder of the masks.  [default: where the annotations lie]")
@option("--prefix", help="What stands before the sample ids in the annotations.  [default: found by itself]")
@option("--out", type=FILE, help="Folder for localize.json, localize.csv and curves.csv.")
@option("-j", "--workers", type=int, help="Threads that judge maps.  [default: all CPUs, at most 8]")
def localize(run: Path, quiet: bool, as_json: bool, **options: Any) -> int:
    """Tell whether the maps find annotated objects: MaxBoxAccV2, PxAP, pointing game, energy inside."""
    from batchcam.commands.localize.localize import LocalizeConfig
    from batchcam.commands.localize.localize import localize as command
    from batchcam.commands.localize.text import localize_text

    return _finish(command(LocalizeConfig(run, quiet=quiet, **options)), localize_text, as_json)


@_command("batchcam faithfulness runs/monday --checkpoint model.pth --data photos/test --out scores")
@click.argument("run", type=FILE)
@option("--checkpoint", "ckpt", type=FILE, required=True, help="The run's checkpoint.")
@option("--data", required=True, help="The run's dataset.")
@option("--samples", type=int, default=50, show_default=True, help="How many to draw at random.")
@option("--steps", type=int, default=20, show_default=True, help="Steps of each curve.")
@option(
    "--seed", type=int, default=0, show_default=True, help="Random seed of the draw, the random orders and the noise."
)
@option(
    "--deletion-to", metavar="mean|zero|blur", default="mean", show_default=True, help="What deleted pixels become."
)
@option("--insertion-from", metavar="mean|zero|blur", default="blur", show_default=True, help="What pixels go into.")
@option("--out", type=FILE, help="Folder for faithfulness.json, faithfulness.csv and curves.csv.")
@option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N or auto.")
@option("--threads", type=int, help="CPU threads of the network.  [default: all CPUs]")
@classifier_options
def faithfulness(run: Path, ckpt: Path, data: str, quiet: bool, as_json: bool, **options: Any) -> int:
    """Tell whether the network uses what the maps point to: deletion, insertion and ROAD, beside baselines."""
    from batchcam.commands.faithfulness.faithfulness import FaithfulnessConfig
    from batchcam.commands.faithfulness.faithfulness import faithfulness as command
    from batchcam.commands.faithfulness.text import faithfulness_text

    config = FaithfulnessConfig(run, _classifier(ckpt, options), data, quiet=quiet, **options)
    return _finish(command(config), faithfulness_text, as_json)


@_command("batchcam export runs/monday --to csv --out monday-table")
@click.argument("run", type=FILE)
@option("--to", required=True, metavar="virelay|wsol|png|csv|parquet", help="parquet: pip install pyarrow first.")
@option("--out", type=FILE, required=True, help="Folder; run again to go on.")
@option("--data", help="Where the original images are, for virelay and png.  [default: where the run found them]")
@option("--target", metavar="predicted|label", help="Explained class.  [default: predicted; label for wsol]")
@option(
    "--size", metavar="HxW", help="Size of the maps, or 'input', or for virelay 'grid'.  [default: 224x224 for wsol]"
)
@option("--palette", metavar="viridis|jet", help="Colours of the maps, for png.  [default: viridis]")
@partial_option
def export(run: Path, quiet: bool, as_json: bool, **options: Any) -> int:
    """Hand a run over in another tool's format: ViRelAy, WSOL score maps, pictures, tables."""
    from batchcam.cli.printing import export_text
    from batchcam.commands.export.export import ExportConfig
    from batchcam.commands.export.export import export as command

    return _finish(command(ExportConfig(run, quiet=quiet, **options)), export_text, as_json)


@_command("batchcam compare runs/monday runs/tuesday --max-accuracy-drop 1 --min-cam-similarity 0.5")
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@option("--max-flips", type=float, metavar="P", help="Gate: percent of compared samples whose prediction changed.")
@option("--max-accuracy-drop", type=float, metavar="P", help="Gate: percentage points, on samples labelled in both.")
@option("--min-cam-similarity", type=float, metavar="S", help="Gate: mean similarity (rank correlation) of the CAMs.")
@option("--min-class-similarity", type=float, metavar="S", help="Gate: the same of each class with ten pairs of CAMs.")
@option(
    "--min-compared", type=float, metavar="P", help="Gate: percent of OLD compared.  [default: 95 with a gate; 0: off]"
)
@option("--out", type=FILE, help="Folder for compare.h5, compare.json and movers.csv.")
@option("--shared-classes", is_flag=True, help="Compare the classes that both runs name, and leave out the others.")
@option("--target", metavar="old|new|label", default="old", show_default=True, help="Whose class's CAMs to compare.")
@option("--top", type=int, default=50, show_default=True, help="Movers to list of each kind.")
def compare(old: Path, new: Path, quiet: bool, as_json: bool, **options: Any) -> int:
    """Tell what moved between two runs over the same images: predictions and reasons; a gate for scripts."""
    from batchcam.commands.compare.compare import CompareConfig
    from batchcam.commands.compare.compare import compare as command
    from batchcam.commands.compare.text import compare_text

    return _finish(command(CompareConfig(old, new, quiet=quiet, **options)), compare_text, as_json)


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


def _take(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Remove from `options` those that are fields of the dataclass `kind`, and return them."""
    return {f.name: options.pop(f.name) for f in dataclasses.fields(kind) if f.name in options}


def _classifier(checkpoint: Path, options: dict[str, Any]) -> Classifier:
    return Classifier(checkpoint=checkpoint, **_take(options, Classifier))


def _compute(options: dict[str, Any]) -> Compute:
    return Compute(**_take(options, Compute))
