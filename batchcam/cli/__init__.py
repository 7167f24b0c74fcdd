"""The command line."""

from batchcam.cli.commands import EXIT_CODES, cli
from batchcam.cli.process import main

__all__ = ["EXIT_CODES", "cli", "main"]
