"""Tiny shapes and a clock."""

from tests.bench_fixtures import fresh_consoles, full_vocabulary, tiny_shapes

__all__ = ["fresh_consoles", "full_vocabulary", "tiny_shapes"]
