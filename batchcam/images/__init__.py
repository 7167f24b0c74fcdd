"""Bytes to pixels, by one rule for worker and auditor alike."""
