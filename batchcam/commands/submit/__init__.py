"""`batchcam submit`: a run as jobs of Slurm, and what these jobs do."""
