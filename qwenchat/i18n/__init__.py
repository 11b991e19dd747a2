"""English and Chinese: whoever tells something translates it."""
