"""Explain a whole dataset's predictions with class activation maps."""

__version__ = "0.1.0"
