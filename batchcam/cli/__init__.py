"""The command line."""

from batchcam.cli.process import main

__all__ = ["main"]
