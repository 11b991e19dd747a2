"""What can be said to the chat itself: the rules in ``registry``, a group of commands in each other module."""
