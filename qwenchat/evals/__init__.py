"""Evaluations: the model card's tables and their like, repeated on any model, question by question."""
