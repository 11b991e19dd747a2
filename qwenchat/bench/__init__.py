"""The speed of a model, measured, beside what the machine could do; ``qwenchat bench`` prints it."""
