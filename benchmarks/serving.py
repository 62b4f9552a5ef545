"""How fast `embedpipe view` answers: many clients at once, and the time from the command to the first pictures.

    python benchmarks/serving.py photos.features --clients 50 --seconds 30

Each client asks for rows, counts, pictures and neighbours in turn, as a page does. An answer other than 200 counts as
an error. Clients run in this process, so that they take processor time from the server: read the rates as lower bounds.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict


def get(url: str) -> bytes:
    """Return the body of an answer."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


class Client(threading.Thread):
    """Asks until a time, one request after the other."""

    def __init__(self, address: str, info: dict[str, object], until: float, seed: int) -> None:
        super().__init__()
        self.address, self.key, self.rows = address, info["key"], int(str(info["rows"]))
        self.until, self.random = until, random.Random(seed)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []

    def run(self) -> None:
        """Ask until the time is over."""
        while time.monotonic() < self.until:
            row = self.random.randrange(self.rows)
            kinds = {
                "rows": f"rows?start={max(0, row - 100)}&count=100",
                "counts": "counts?",
                "picture": f"rows/{row}/picture?size=small",
                "neighbours": f"rows?near=row:{row}&count=30",
            }
            kind = self.random.choices([*kinds], weights=(1, 1, 6, 2))[0]
            start = time.perf_counter()
            try:
                get(f"{self.address}api/{kinds[kind]}&key={self.key}".replace("?&", "?"))
            except (urllib.error.URLError, OSError) as error:
                self.errors.append(f"{kind}: {error}")
            else:
                self.seconds[kind].append(time.perf_counter() - start)


def main() -> None:
    """Start the server, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    start = time.monotonic()
    command = [sys.executable, "-m", "embedpipe", "view", options.store, "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the server did not start"
        address = found[0]
        info = json.loads(get(f"{address}api/store"))
        print(f"{info['rows']:,} items; first answer {time.monotonic() - start:.2f} s after the command")
        for row in range(20):
            get(f"{address}api/rows/{row}/picture?key={info['key']}")
        print(f"20 pictures {time.monotonic() - start:.2f} s after the command")
        get(f"{address}api/rows?near=row:0&key={info['key']}")  # the index is open
        until = time.monotonic() + options.seconds
        clients = [Client(address, info, until, seed) for seed in range(options.clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        total = 0
        for kind in ("rows", "counts", "picture", "neighbours"):
            taken = sorted(value for client in clients for value in client.seconds[kind])
            total += len(taken)
            if len(taken) > 1:
                cuts = [1000 * statistics.quantiles(taken, n=100)[place] for place in (49, 94, 98)]
                times = f"{cuts[0]:6.0f} ms median, {cuts[1]:6.0f} p95, {cuts[2]:6.0f} p99"
                print(f"{kind:12} {len(taken):7,} answers; {times}")
        errors = [error for client in clients for error in client.errors]
        load = f"{options.clients} clients, {options.seconds:g} s"
        print(f"{load}: {total / options.seconds:,.0f} answers a second, {len(errors)} errors {errors[:3]}")
    finally:
        server.terminate()
        server.wait(timeout=30)


if __name__ == "__main__":
    main()
