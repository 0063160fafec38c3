"""Experiments: each writes its figures to `results/`."""
