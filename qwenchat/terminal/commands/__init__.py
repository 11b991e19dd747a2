"""Commands of the chat: the rules in ``registry``, the commands, by group, beside it."""
