"""`batchcam export`: a run in the forms of other programs."""
