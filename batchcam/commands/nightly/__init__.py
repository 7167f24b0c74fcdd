"""`batchcam nightly`: one night of a job that runs every night"""
