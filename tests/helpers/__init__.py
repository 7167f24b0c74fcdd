"""Set-up that tests share."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout, from which other processes of a test import this package too."""
