"""The options that several commands share, and how an option is declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import batchcam
from batchcam.cli.config_file import read_config
from batchcam.cli.variables import variable_of
from batchcam.config import PRECISIONS, parse_duration

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Return a click option that can also come from BATCHCAM_<its long name>."""
    longest = max((n for n in names if n.startswith("-")), key=len).lstrip("-")
    settings.setdefault("envvar", variable_of(longest))
    return click.option(*names, **settings)


def _options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that applies `decorators` in the order in which help should list them."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


partial_option = option("--partial", is_flag=True, help="Leave out shards that are gone or damaged; then end with 3.")


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"batchcam, version {batchcam.__version__}")
        context.exit()


version_option = click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip

common_options = _options(
    option("-q", "--quiet", is_flag=True, help="No progress and no notes."),
    option("--json", "as_json", is_flag=True, help="End stdout with one line: a JSON object."),
    click.option(
        "--config", type=FILE, callback=read_config, expose_value=False, is_eager=True, envvar="BATCHCAM_CONFIG",
        help="TOML file with options of this command, at its top level or under [COMMAND].",
    ),
    click.option("--debug", is_flag=True, expose_value=False, envvar="BATCHCAM_DEBUG", help="Traceback on failure."),
    version_option,
)  # fmt: skip


def _sample_timeout(context: click.Context, parameter: click.Parameter, text: str) -> float:
    return parse_duration(text, "--sample-timeout")


preprocessing_options = _options(
    option(
        "--preprocess",
        metavar="imagenet|seed",
        help="Preset: imagenet (256, crop 224) or seed (128, mean and std 0.5: what train does).",
    ),
    option("--image-size", metavar="N|HxW", help="The network's input, cropped from the centre."),
    option(
        "--resize", metavar="N|HxW", help="Before the crop: shorter side to N, or exactly HxW.  [default: --image-size]"
    ),
    option("--mean", metavar="R,G,B", help="Mean of the channels, in units of 0…1."),
    option("--std", metavar="R,G,B", help="Standard deviation of the channels."),
)

classifier_options = _options(
    option("--arch", help="torchvision's name of the network, where the checkpoint does not say."),
    option("--model", metavar="MODULE:CALLABLE", help="Your own function that returns the network."),
    option("--class-names", type=FILE, help="File with one class name a line, where the checkpoint does not say."),
    preprocessing_options,
)

device_options = _options(
    option("-j", "--workers", type=int, help="Processes that decode images.  [default: a quarter of the CPUs]"),
    option("--threads", type=int, help="CPU threads of the network.  [default: all CPUs]"),
    option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, or auto."),
    option(
        "--sample-timeout", metavar="TIME", default="5m", show_default=True, callback=_sample_timeout,
        help="Give up an image that takes longer to read: it counts as unreadable. 0: never.",
    ),
)  # fmt: skip

compute_options = _options(
    option("-b", "--batch-size", type=int, help="Images of one forward pass.  [default: 64]"),
    device_options,
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Of the network's arithmetic; CAMs are float32.  [default: fp32]",
    ),
)
