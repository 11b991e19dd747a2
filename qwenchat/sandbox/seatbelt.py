"""The profile of macOS's ``sandbox-exec`` for a policy. Not tried on a machine yet."""

from __future__ import annotations

from collections.abc import Sequence


def command(read: Sequence[str], write: Sequence[str]) -> list[str]:
    """What stands before a program's command; paths go as parameters: no name is part of the profile."""
    readable = [f'(subpath (param "READ{i}"))' for i in range(len(read))]
    writable = [f'(subpath (param "WRITE{i}"))' for i in range(len(write))]
    profile = [
        "(version 1)",
        "(deny default)",
        "(allow process-fork)",
        "(allow signal (target same-sandbox))",
        "(allow sysctl-read)",
        f"(allow process-exec file-map-executable {' '.join(readable)})",
        f'(allow file-read* (literal "/") (subpath "/System") (subpath "/Library/Frameworks") '
        f"{' '.join([*readable, *writable])})",
        f"(allow file-write* {' '.join(writable)})",
        '(allow file-write-data (literal "/dev/null") (literal "/dev/zero"))',
    ]
    names = [(f"READ{i}", path) for i, path in enumerate(read)]
    names += [(f"WRITE{i}", path) for i, path in enumerate(write)]
    parameters = [word for name, path in names for word in ("-D", f"{name}={path}")]
    return ["/usr/bin/sandbox-exec", *parameters, "-p", "\n".join(profile)]
