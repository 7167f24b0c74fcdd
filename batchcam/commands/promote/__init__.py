"""`batchcam promote`: decide whether a checkpoint becomes the promoted version"""
