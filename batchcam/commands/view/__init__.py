"""`batchcam view`: any sample of a run, in a local page."""
