"""Overlays, palettes, sheets."""
