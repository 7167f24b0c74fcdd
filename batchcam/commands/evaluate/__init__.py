"""`batchcam evaluate`: accuracy of a checkpoint."""
