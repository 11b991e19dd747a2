"""Checkpoints that this program writes: work that goes on where it stopped, files, and where they may lie."""
