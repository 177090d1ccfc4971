"""The clients of the soak: what they send, again until it is acknowledged, and every promise that came back.

Each client has one thing under way. What was cut off, refused for now or answered "not yet" is sent again, the same
bytes, until its answer carries an index. Raw bodies are sent once: the same bytes twice are two entries.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import urllib3

import registry
from bench_doors import Publisher

UPLOADERS, READERS, STATERS, BATCHERS, ADDERS = 3, 2, 2, 1, 4
PAUSE = 0.3  # seconds between two uploads of a client
BATCH = 24  # statements of a batch
GRACE = 180  # seconds for what is under way at the end
AGAIN = (408, 429)  # the only refusals of a client that may be sent again

Promise = tuple[int, str]  # index and leaf hash


@dataclass(frozen=True)
class Offer:
    """One request, and how its answer is read: the promises by name, or None when there is none yet."""

    name: str
    path: str
    request: dict[str, object]
    read: Callable[[bytes], dict[str, Promise]]
    once: bool = False


class Load:
    """Clients that run until told to stop; what was promised, and the first thing that was wrong."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pool = urllib3.PoolManager(maxsize=16, retries=False)
        self.stop, self.turn = threading.Event(), threading.Lock()
        self.promised: dict[str, Promise] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seen = 0
        self.threads: list[threading.Thread] = []

    def start(self, kind: str, offers: Iterator[Offer], *, clients: int, pause: float = PAUSE) -> None:
        """This many clients take offers in turn."""
        lock = threading.Lock()

        def following() -> Offer | None:
            with lock:
                return next(offers, None)

        def work() -> None:
            while not self.stop.is_set() and (offer := following()) is not None:
                self._until_answered(kind, offer)
                time.sleep(pause)

        self._run(work, clients)

    def read(self, *paths: str) -> None:
        """Readers: what is public never goes back."""
        self._run(lambda: self._reading(paths), READERS)

    def join(self) -> None:
        """Stop, and wait for what is under way."""
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _run(self, work: Callable[[], None], count: int) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # a client that dies is a finding, not a quieter load
                self.wrong.append(f"a client ended with {error!r}")

        started = [threading.Thread(target=guarded) for _ in range(count)]
        self.threads += started
        for thread in started:
            thread.start()

    def _until_answered(self, kind: str, offer: Offer) -> None:
        deadline = None
        while not self._answered(kind, offer) and not offer.once:
            if self.stop.is_set():
                deadline = deadline or time.monotonic() + GRACE
                if time.monotonic() > deadline:
                    self.wrong.append(f"{offer.name} was never acknowledged")
                    return
            time.sleep(PAUSE)

    def _answered(self, kind: str, offer: Offer) -> bool:
        try:
            answer = self.pool.request("POST", self.url + offer.path, timeout=20, **offer.request)  # type: ignore[arg-type]
        except urllib3.exceptions.HTTPError:
            self.counts[f"{kind} cut"] += 1
            return False
        self.counts[f"{kind} {answer.status}"] += 1
        if answer.status != 200:
            if 400 <= answer.status < 500 and answer.status not in AGAIN:
                self.wrong.append(f"{offer.name}: {answer.status} {answer.data[:300]!r}")
            return False
        promises = offer.read(answer.data)
        with self.turn:
            for name, promise in promises.items():
                if self.promised.get(name, promise) != promise:
                    self.wrong.append(f"{name} was promised {self.promised[name]}, then {promise}")
                self.promised[name] = promise
        return True

    def _reading(self, paths: tuple[str, ...]) -> None:
        while not self.stop.is_set():
            before = self.seen
            for path in ("/log/checkpoint", *paths):
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    answer = self.pool.request("GET", self.url + path, timeout=10)
                    self.counts[f"reads {answer.status}"] += 1
                    if path == "/log/checkpoint" and answer.status == 200:
                        size = int(answer.data.split(b"\n")[1])
                        if size < before:
                            self.wrong.append(f"the public checkpoint went back from {before} to {size}")
                        self.seen = max(self.seen, size)
            time.sleep(0.05)


def uploads(wheels: list[registry.Wheel], token: str) -> Iterator[Offer]:
    """Signed wheels by the front door."""
    headers = urllib3.make_headers(basic_auth=f"__token__:{token}")
    for wheel in wheels:
        name = wheel.path.name
        fields = {
            ":action": "file_upload", "protocol_version": "1", "filetype": "bdist_wheel", "pyversion": "py3",
            "name": registry.PROJECT, "version": name.split("-")[1], "metadata_version": "2.1",
            "attestations": f"[{wheel.attestation.decode()}]",
            "content": (name, wheel.body, "application/octet-stream"),
        }  # fmt: skip
        yield Offer(name, "/legacy/", {"fields": fields, "headers": headers}, _one(name))


def statements(publisher: Publisher, numbers: Iterator[int]) -> Iterator[Offer]:
    """Signed publishes in a namespace, one by one."""
    for number in numbers:
        name = f"statement {number}"
        request = {"body": publisher.statement(number), "headers": _bearer(publisher)}
        yield Offer(name, "/api/v1/entries", request, _one(name))


def batches(publisher: Publisher, numbers: Iterator[int]) -> Iterator[Offer]:
    """The same, many in one request."""
    for number in numbers:
        of = [number, *(next(numbers) for _ in range(BATCH - 1))]
        body = b'{"entries":[' + b",".join(map(publisher.statement, of)) + b"]}"
        request = {"body": body, "headers": _bearer(publisher)}
        yield Offer(f"batch from {number}", "/api/v1/entries/batch", request, _many(of))


def raw(numbers: Iterator[int]) -> Iterator[Offer]:
    """Bodies for a raw log; an answer that was cut off promised nothing."""
    for number in numbers:
        body = b"body %d" % number
        leaf = hashlib.sha256(b"\0" + body).hexdigest()
        yield Offer(f"body {number}", "/log/add", {"body": body}, _index(f"body {number}", leaf), once=True)


def _bearer(publisher: Publisher) -> dict[str, str]:
    return {"Authorization": f"Bearer {publisher.token}", "Content-Type": "application/json"}


def _one(name: str) -> Callable[[bytes], dict[str, Promise]]:
    def read(answer: bytes) -> dict[str, Promise]:
        said = json.loads(answer)
        return {name: (said["index"], said["leaf_hash"])}

    return read


def _many(numbers: list[int]) -> Callable[[bytes], dict[str, Promise]]:
    def read(answer: bytes) -> dict[str, Promise]:
        items = json.loads(answer)["entries"]
        return {
            f"statement {number}": (item["index"], item["leaf_hash"])
            for number, item in zip(numbers, items, strict=True)
        }

    return read


def _index(name: str, leaf: str) -> Callable[[bytes], dict[str, Promise]]:
    return lambda answer: {name: (int(answer), leaf)}
