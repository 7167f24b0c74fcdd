"""`batchcam jobs`: the job scripts, out of the installation into a folder where they can be adapted."""
