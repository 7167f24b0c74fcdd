"""Mathematics on tensors: CAMs, gradient methods, capture, the explainer."""
