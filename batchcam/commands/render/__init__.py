"""`batchcam render`: overlays of chosen samples."""
