"""What can be said to the chat itself: the rules in ``registry``, the commands, by group, beside it."""
