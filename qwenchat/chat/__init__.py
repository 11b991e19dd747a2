"""Pure values of a chat: messages, events, prompts and the context window. No I/O, no torch."""
