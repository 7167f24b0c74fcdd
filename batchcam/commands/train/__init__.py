"""`batchcam train`: fine-tune a torchvision classifier."""
