"""What the tool survives, tried for real: `python -m benchmarks.faults` makes docs/reliability.md."""
