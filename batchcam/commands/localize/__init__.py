"""`batchcam localize`: maps against boxes and masks."""
