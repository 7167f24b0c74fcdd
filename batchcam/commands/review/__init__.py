"""`batchcam review`: what people said of samples, summed up."""
