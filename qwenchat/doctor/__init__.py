"""``qwenchat doctor``: what a chat depends on, and what it means for a chat."""
