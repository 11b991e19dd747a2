"""Prompts by a model's own chat template, whatever engine runs it: the template's sandbox, and the tokens."""
