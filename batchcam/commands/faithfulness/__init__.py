"""`batchcam faithfulness`: whether the network needs the pixels that its maps point at."""
