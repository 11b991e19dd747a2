"""Checkpoint files to weights: safetensors, GPTQ, staging, the loader."""
