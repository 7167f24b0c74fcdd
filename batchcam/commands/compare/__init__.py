"""`batchcam compare`: what moved between two runs, and gates for scripts."""
