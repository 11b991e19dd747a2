"""Files on disk: opened with limits, written whole or not at all, locked, read as text and JSON."""
