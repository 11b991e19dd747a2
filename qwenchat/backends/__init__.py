"""Backends: where tokens come from, all speaking the protocol of ``chat/backend.py``."""
