"""Where the tests' files lie."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
GOLDEN = TESTS / "data" / "golden"
"""Outputs of the original implementation, and checkpoints small enough to compute them."""
SCHEMA_1 = TESTS / "data" / "sessions"
"""Session files that qwenchat wrote before schema 2."""
