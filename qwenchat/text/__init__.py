"""Text as people compare it: case, composition, accents."""
