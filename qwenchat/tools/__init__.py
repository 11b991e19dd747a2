"""What a model can call, and what runs it."""
