"""What a person sees: the chat on a terminal, and the consoles that commands write to."""
