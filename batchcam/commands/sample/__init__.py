"""`batchcam sample`: a draw of samples for people to judge."""
