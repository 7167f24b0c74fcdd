"""`batchcam info`: what a run holds, and how far it is."""
