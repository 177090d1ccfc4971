"""Signed statements a second: through `/api/v1/entries` one by one, and in batches, each durable and proved.

    COUNTERMARK_BENCH_DOORS=gunicorn,granian  COUNTERMARK_BENCH_DATABASES=postgresql,sqlite

Publishes in a namespace, signed before the clock runs. A statement counts when its answer carries the proof; a
sample of the proofs is verified afterwards with the registry's own trust file, entry and all. PostgreSQL and the load
generator run on the same machine. Beside seconds stands CPU time by process, which a busy machine spoils less.
Scanner, tufrepo and timestamper stand still meanwhile: they follow later, and wait for nobody here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

import connections
import registry
from countermark.statement import KeySigner, Statement, sign
from countermark.tlog import proof as tlog_proof
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.proof import TlogProof
from countermark.tlog.tile import WIDTH
from countermark_server import adopted, db
from countermark_server.accounts import people, tokens
from countermark_server.log.tree import public_tree
from countermark_server.settings import Settings, load
from countermark_server.stores import places
from figures import Figure, percentile
from tests import postgres
from tests.world.world import World, free_port

NAMESPACE = "bench"
SINGLES, CONNECTIONS, RUNS = 2000, 64, 3
BATCHES, BATCH = 3, 4096
# Connections of batches, as a client has that has many: one is judged while the other is sequenced.
SENDERS = 2
SAMPLE = 100  # one proof in so many is verified
STATIONS = ("scan", "tufrepo", "timestamper")
THREADS, WORKERS = 64, 2  # a worker a core, as docs/operations/deploy.md says
_OPEN = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND xact_start < now() - interval '0.15 s'"
)


@dataclass(frozen=True)
class Publisher:
    """Who publishes in the namespace."""

    origin: str
    key: KeySigner
    token: str

    def statement(self, number: int) -> bytes:
        """One signed publish, as a request's body."""
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        predicate = {
            "origin": self.origin, "namespace": NAMESPACE, "project": "widget", "prev": None, "version": str(number),
            "length": 10, "metadata_sha256": digest, "record_sha256": None,
        }  # fmt: skip
        envelope = sign(Statement(f"widget-{number}.tar.gz", digest, "publish", predicate), self.key)
        return json.dumps({"envelope": envelope.to_dict()}).encode()


@dataclass(frozen=True)
class Served:
    """A web server that runs, and how many statements a second it should take."""

    port: int
    pid: int
    budget: int


def measure() -> list[Figure]:
    """Statements a second and p99 by server and database, batches, and CPU time by process."""
    figures = []
    databases = os.environ.get("COUNTERMARK_BENCH_DATABASES", "postgresql,sqlite").split(",")
    servers = os.environ.get("COUNTERMARK_BENCH_DOORS", "gunicorn,granian").split(",")
    for database in databases:
        settings = {"COUNTERMARK_WEB_THREADS": str(THREADS), "COUNTERMARK_WEB_WORKERS": str(WORKERS)}
        if database == "postgresql":
            settings["COUNTERMARK_DATABASE_URL"] = postgres.server().database()
        with registry.running(settings) as world:
            os.environ["COUNTERMARK_DATABASE_URL"] = settings.get("COUNTERMARK_DATABASE_URL", "")
            publisher, numbers = enrolled(world), iter(range(1 << 30))
            stand_still(world, settings)
            for server in servers:
                with _served(world, server, settings) as served:
                    figures += _singles(world, publisher, served, numbers, f"{server}, {database}")
            figures += _batches(world, publisher, numbers, database)
            for station in STATIONS:
                world.resume(station)
            del os.environ["COUNTERMARK_DATABASE_URL"]
    return figures


def _singles(
    world: World, publisher: Publisher, served: Served, numbers: Iterator[int], what: str
) -> list[Figure]:
    rates, tails, cpu = [], [], dict[str, list[float]]()
    for _ in range(RUNS):
        bodies = [publisher.statement(next(numbers)) for _ in range(SINGLES)]
        requests = [connections.post("/api/v1/entries", body, publisher.token) for body in bodies]
        before, answers = _cpu(world, served.pid), list[bytes]()
        waits, seconds = connections.closed_loop(
            served.port, requests, connections=CONNECTIONS, answered=answers.append
        )
        for name, spent in _cpu(world, served.pid).items():
            cpu.setdefault(name, []).append(1000 * (spent - before[name]) / SINGLES)
        rates.append(len(waits) / seconds)
        tails.append(1000 * percentile(waits, 0.99))
        _check(world, [json.loads(answer) for answer in answers[::SAMPLE]])
    return [
        Figure(f"signed statements, {what}", "statements/s", rates, served.budget, more_is_better=True),
        Figure(f"signed statements, {what}, p99", "ms", tails, 100),
        *(Figure(f"signed statements, {what}, {name}", "CPU ms", spent) for name, spent in cpu.items()),
    ]


def _batches(world: World, publisher: Publisher, numbers: Iterator[int], database: str) -> list[Figure]:
    rates, cpu, pid = [], dict[str, list[float]](), world.pid("web")
    for _ in range(BATCHES):
        requests = [_batch(publisher, numbers) for _ in range(2 * SENDERS)]
        before, answers = _cpu(world, pid), list[bytes]()
        _, seconds = connections.closed_loop(
            world.port, requests, connections=SENDERS, answered=answers.append
        )
        for name, spent in _cpu(world, pid).items():
            cpu.setdefault(name, []).append(1000 * (spent - before[name]) / BATCH / len(requests))
        rates.append(BATCH * len(requests) / seconds)
        said = json.loads(answers[0])
        proved = [item for item in said["entries"] if item.get("proof") is not None]
        assert len(proved) == BATCH, said["entries"][0]
        for item in proved[:: SAMPLE * 4]:
            hashes = tuple(base64.b64decode(each) for each in item["proof"])
            proof = TlogProof(item["index"], hashes, said["checkpoint"].encode()).format().decode()
            _check(world, [{**item, "proof": proof}])
    what = f"signed statements in batches of {BATCH}, {database}"
    return [
        Figure(what, "statements/s", rates, 8_000, more_is_better=True),
        *(Figure(f"{what}, {name}", "CPU ms", spent) for name, spent in cpu.items()),
    ]


def _batch(publisher: Publisher, numbers: Iterator[int]) -> bytes:
    items = b",".join(publisher.statement(next(numbers)) for _ in range(BATCH))
    return connections.post("/api/v1/entries/batch", b'{"entries":[' + items + b"]}", publisher.token)


def _check(world: World, answers: list[dict[str, object]]) -> None:
    """Each proof leads from the entry in the public tree to a checkpoint that the witness cosigned."""
    public = places.public(_settings(world))
    policy = adopted.trust_file(public).policy
    for answer in answers:
        proof = TlogProof.parse(str(answer["proof"]).encode())
        opened = open_checkpoint(proof.checkpoint, policy, now=int(time.time()))
        tree, end = public_tree(public), min(opened.size, (proof.index // WIDTH + 1) * WIDTH)
        entry = tree.entries(proof.index, end, tree.reader(opened.size, opened.root_hash))[0]
        tlog_proof.check(entry, proof, opened)


def enrolled(world: World) -> Publisher:
    """An account with a token, whose key is enrolled for the namespace."""
    settings, key = _settings(world), KeySigner(Ed25519PrivateKey.generate())
    engine, now = db.open_engine(settings.database_url), int(time.time())
    with db.write(engine) as connection:
        account = people.add_account(connection, "bench", now=now)
        session = tokens.issue_token(connection, account.id, tokens.SESSION, now=now, expires=now + 3600)
    engine.dispose()
    predicate = {
        "origin": world.origin, "namespace": NAMESPACE, "project": "", "prev": None,
        "key": base64.b64encode(key.public_key).decode(), "scope": "namespace", "valid_for": None, "threshold": 1,
    }  # fmt: skip
    envelope = sign(Statement.about(f"key:{key.keyid}", "key-enroll", predicate), key)
    body = json.dumps({"envelope": envelope.to_dict()}).encode()
    connections.closed_loop(world.port, [connections.post("/api/v1/keys", body, session)], connections=1)
    return Publisher(world.origin, key, session)


def stand_still(world: World, settings: Mapping[str, str]) -> None:
    """Pause the stations that follow the log; none in a transaction, for which PostgreSQL would keep dead rows."""
    url = settings.get("COUNTERMARK_DATABASE_URL")
    engine = db.open_engine(url) if url else None
    while not all((world.data / "run" / f"{station}.json").exists() for station in STATIONS):
        time.sleep(0.1)  # the last of them start later than the doors open
    while True:
        for station in STATIONS:
            world.pause(station)
        if engine is None:
            return
        time.sleep(0.2)  # the log and the web process end theirs
        with db.read(engine) as connection:
            if not connection.execute(_OPEN).scalar():
                break
        for station in STATIONS:
            world.resume(station)
        time.sleep(0.2)
    engine.dispose()


def _settings(world: World) -> Settings:
    return load(world.data, {**world.settings})


@contextlib.contextmanager
def _served(world: World, server: str, settings: dict[str, str]) -> Iterator[Served]:
    """The address and the process of the application as this server serves it; `up` serves it by gunicorn."""
    if server == "gunicorn":
        yield Served(world.port, world.pid("web"), 2_000)
        return
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("granian")), "--interface", "wsgi", "--no-ws", "--http", "1",
        "--workers", str(WORKERS), "--blocking-threads", str(THREADS), "--port", str(port), "--no-access-log",
        "--log-level", "warning", "countermark_server.wsgi:app",
    ]  # fmt: skip
    env = world.env("operator", COUNTERMARK_DATA=str(world.data), **settings)
    process = subprocess.Popen(command, env=env, cwd=world.root)
    try:
        registry.wait_for(port)
        yield Served(port, process.pid, 3_500)
    finally:
        process.terminate()
        process.wait(20)


def _cpu(world: World, web: int) -> dict[str, float]:
    """CPU seconds so far: of the web server with its workers, of the log, and of this process, which asks."""
    return {
        "web": registry.spent(web),
        "log": registry.spent(world.pid("log")),
        "load generator": time.process_time(),
    }
