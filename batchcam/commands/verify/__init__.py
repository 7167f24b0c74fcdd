"""`batchcam verify`: every finding about a run, read only."""
