"""What the tool survives, tried for real: `python -m tests.faults` makes tests/RELIABILITY.md."""
