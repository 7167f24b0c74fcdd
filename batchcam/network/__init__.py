"""What is explained: checkpoints, models, heads, proof, folding, precision."""
