"""A model over HTTP, in the protocols that programs speak: OpenAI's, Anthropic's and ollama's."""
