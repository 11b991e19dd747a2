"""What the starter and the launcher say to each other: an order, then a byte for every Ctrl-C.

The order is a length and marshal, which both ends have without an import. Apart from the launcher, which not
every system can import.
"""

ORDER_LENGTH = 4
"""Bytes of the length, little-endian."""
INTERRUPT = b"i"
