"""A first-generation Qwen checkpoint on our own engine."""
