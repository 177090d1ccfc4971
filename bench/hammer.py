"""A log hammer: threads that add raw bytes to a log, then look for every one of them in its tiles.

    COUNTERMARK_TESTING_RAW_ADD=true countermark-server up --trial --data DIR --listen 127.0.0.1:8090
    python bench/hammer.py http://127.0.0.1:8090 --threads 16 --count 2000

Independent on purpose: the standard library alone, and its own reading of the tlog-tiles paths and of a leaf
hash. Every thread keeps one connection alive. Afterwards each answered index must be unique, below the size of
the public checkpoint, and hold exactly the body that was sent, in the entry bundle and as hash in the tile.
Exit status 1, and one sentence, for the first thing that is not so.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import sys
import threading
import time
from urllib.parse import urlsplit

WIDTH = 256


class HammerError(Exception):
    """The log did not do what it answered."""


def hammer(url: str, threads: int, count: int, length: int) -> tuple[dict[int, bytes], list[float], float]:
    """Add `count` bodies; the body of each index, the seconds of each request, and the seconds of all."""
    todo = iter(range(count))
    turn, placed, times = threading.Lock(), dict[int, bytes](), list[float]()
    failures: list[str] = []

    def work() -> None:
        connection = _connection(url)
        while not failures:
            with turn:
                number = next(todo, None)
            if number is None:
                break
            body = number.to_bytes(4, "big") + os.urandom(max(0, length - 4))
            begun = time.perf_counter()
            connection.request("POST", "/log/add", body)
            answer = connection.getresponse()
            said = answer.read()
            took = time.perf_counter() - begun
            if answer.status != 200 or not said.isdigit():
                failures.append(f"body {number} was answered {answer.status} {said[:300]!r}")
                break
            with turn:
                times.append(took)
                if int(said) in placed:
                    failures.append(f"index {int(said)} was given twice")
                placed[int(said)] = body
        connection.close()

    def guarded() -> None:
        try:
            work()
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"connection failed: {error!r}")

    started = time.perf_counter()
    running = [threading.Thread(target=guarded) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    elapsed = time.perf_counter() - started
    if failures:
        raise HammerError(failures[0])
    return placed, times, elapsed


def check(url: str, placed: dict[int, bytes]) -> int:
    """Every body is where the log said it would be; the size of the public checkpoint."""
    connection = _connection(url)
    size = int(_get(connection, "/log/checkpoint").split(b"\n")[1])
    if placed and max(placed) >= size:
        raise HammerError(f"index {max(placed)} was answered, the public checkpoint is at {size}")
    for group in sorted({index // WIDTH for index in placed}):
        width = min(WIDTH, size - group * WIDTH)
        name = _name(group) + (f".p/{width}" if width < WIDTH else "")
        entries = _entries(_get(connection, f"/log/tile/entries/{name}"))
        hashes = _get(connection, f"/log/tile/0/{name}")
        if not len(entries) == width == len(hashes) // 32:
            raise HammerError(f"bundle {name} holds {len(entries)} entries, its tile {len(hashes) // 32}")
        for slot in range(width):
            body = placed.get(group * WIDTH + slot)
            if body is None:
                continue
            if entries[slot] != body:
                raise HammerError(f"entry {group * WIDTH + slot} is not the body that was sent")
            if hashes[slot * 32 : slot * 32 + 32] != hashlib.sha256(b"\0" + body).digest():
                raise HammerError(f"the tile has another hash at {group * WIDTH + slot}")
    connection.close()
    return size


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise HammerError(f"GET {path} was answered {answer.status}")
    return body


def _name(index: int) -> str:
    """273 -> 273; 70000 -> x070/000."""
    digits = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        digits = f"x{index % 1000:03}/{digits}"
    return digits


def _entries(bundle: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        found.append(bundle[at + 2 : end])
        at = end
    return found


def main() -> int:
    """Hammer, check, and print one line of JSON."""
    parser = argparse.ArgumentParser(description="add raw bytes to a log and find them again")
    parser.add_argument("url")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--length", type=int, default=256, help="bytes of a body")
    asked = parser.parse_args()
    try:
        placed, times, elapsed = hammer(asked.url, asked.threads, asked.count, asked.length)
        size = check(asked.url, placed)
    except HammerError as error:
        print(f"hammer: {error}", file=sys.stderr)
        return 1
    times.sort()
    said = {
        "added": len(placed),
        "per_second": round(len(placed) / elapsed, 1),
        "p50_ms": round(times[len(times) // 2] * 1000, 2),
        "p99_ms": round(times[len(times) * 99 // 100] * 1000, 2),
        "tree_size": size,
    }
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
