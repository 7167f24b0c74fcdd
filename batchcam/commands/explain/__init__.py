"""`batchcam explain`: plan a run, do this worker's share of it."""
