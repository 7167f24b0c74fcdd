"""`batchcam retrain`: train a version of a model, and decide whether it becomes the promoted one"""
