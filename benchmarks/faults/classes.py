"""All fault classes, in the table's order: a module that is imported here enters its own."""

# isort: skip_file
from . import kill, leases, terminate, power, disk, soak, checkpoints, images, fuzzing, bit_rot, hostile  # noqa: F401
from .registry import CLASSES

__all__ = ["CLASSES"]
