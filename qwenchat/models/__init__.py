"""Checkpoints on disk: their names, how they get there, and the built-in model."""
