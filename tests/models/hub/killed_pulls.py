"""Pulls a model again and again, kills each pull at another moment, lets another end it. Run by test_pull.

    python killed_pulls.py NAME FOLDER TIMES

Prints a JSON list: for each killed pull, whether the model was found after it, whether it was whole then, and
the hashes of its files after the next pull has ended. Each pull is a fork of this process, which has imported
everything beforehand.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from qwenchat.models import catalog, checking
from qwenchat.models.hub import client, pull

client.CHUNK = 4096
client.library()


def pull_in_fork(name: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        pull.pull(name)
    finally:
        os._exit(0)


def main() -> None:
    name, folder, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    os.environ["HF_HUB_CACHE"] = str(folder / "first")
    started = time.perf_counter()
    os.waitpid(pull_in_fork(name), 0)
    whole_run = time.perf_counter() - started
    rng = random.Random()
    outcomes = []
    for number in range(times):
        os.environ["HF_HUB_CACHE"] = str(folder / str(number))
        pid = pull_in_fork(name)
        time.sleep(rng.uniform(0, whole_run))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        place = catalog.place_of(name)
        was_whole = place is not None and not checking.check(place).bad
        os.waitpid(pull_in_fork(name), 0)
        path = catalog.locate(name)
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}
        outcomes.append({"found": place is not None, "was_whole": was_whole, "hashes": hashes})
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
