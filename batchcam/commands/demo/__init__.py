"""`batchcam demo`: the whole loop on generated images."""
