"""What a model can call: how it is told so, what it calls, and what runs it."""
