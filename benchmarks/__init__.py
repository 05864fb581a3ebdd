"""Measurements against other packages, on accelerators, and of robustness: see README.md."""
