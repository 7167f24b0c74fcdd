"""`batchcam jobs`: the job scripts, to be adapted."""
