"""The sandbox on trial: attempts to get out of it, each of which it must deny."""
