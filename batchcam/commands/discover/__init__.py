"""`batchcam discover`: regions that carry a class by themselves, as a shortcut does, found in one run."""
