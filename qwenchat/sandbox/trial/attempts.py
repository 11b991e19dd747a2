"""Makes every attempt: a program, run confined and unconfined.

stdin has one JSON object, the targets. stdout gets a list: the kind and the name of each attempt, and
``null`` if it was done, else why not.
"""

from __future__ import annotations

import json
import sys

from qwenchat.sandbox.trial import files, kernel, network, processes  # noqa: F401 - each declares some
from qwenchat.sandbox.trial.registry import ATTEMPTS


def main() -> None:
    """Makes every attempt."""
    targets = json.load(sys.stdin)
    said: list[tuple[str, str, str | None]] = []
    for kind, name, make in ATTEMPTS:
        try:
            make(targets)
            said.append((kind, name, None))
        except (OSError, AttributeError) as error:  # the latter of what a system does not have
            said.append((kind, name, str(error.args[-1]) if error.args else type(error).__name__))
    print(json.dumps(said))
