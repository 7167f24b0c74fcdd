"""`batchcam report`: one HTML file of a run."""
