"""Checkpoints fetched: the Hugging Face Hub, ModelScope, pulls that go on where they stopped."""
