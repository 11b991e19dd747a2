"""Where tokens come from: one module per kind of model, all speaking the protocol in ``base.py``."""
