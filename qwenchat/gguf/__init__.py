"""GGUF files, read by a reader of our own: the container, the tensors' formats, the vocabulary."""
