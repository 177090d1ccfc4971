"""A log with everything around it, in one folder and one process: keys, a real witness, proposals.

The witness is the client's own engine behind a fetcher, so what it saw and signed can be asked; clock and
faults are handed in. `check()` is the whole-world assertion that every test ends in.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from sqlalchemy import select

from countermark.errors import NetworkError
from countermark.fetch import Answer, Fetcher
from countermark.serving import Request
from countermark.statement import KeySigner, Statement, sign
from countermark.tlog.checkpoint import open_checkpoint, open_log_checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner
from countermark.trustfile import CentralPolicy, TrustFile
from countermark.witness import Witness
from countermark.witness_store import WitnessStore
from countermark_server import db, migrations, proposal, submission
from countermark_server.log.create import GENESIS_ROLES, create
from countermark_server.log.fsck import check_log
from countermark_server.log.station import Station
from countermark_server.settings import Log, Registry, Settings, Testing, load
from countermark_server.stores import heads, places
from countermark_server.stores.folder import Folder
from countermark_server.stores.public import CHECKPOINT
from tests import postgres, s3

ORIGIN = "log.example.com/registry"
NOW = 1_790_000_000
ACCOUNT = "a1" * 16
REPLACED_FILES = {CHECKPOINT, "cleaned"}


def key(seed: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())


class Clock:
    """Seconds, set by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class WitnessFetcher:
    """Carries add-checkpoint requests to the witness engine, and remembers every note that left the log."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.seen: list[bytes] = []  # checkpoints as they were sent
        self.down = False
        self.answers: list[Answer] = []  # answered instead of the witness, while there are any

    def get(self, url: str, **_: Any) -> bytes | None:
        raise NetworkError(f"nothing at {url}")

    def post(self, url: str, body: bytes, **_: Any) -> Answer:
        if self.down:
            raise NetworkError("witness is down")
        self.seen.append(body.partition(b"\n\n")[2])
        if self.answers:
            return self.answers.pop(0)
        response = self.witness(Request("POST", "/add-checkpoint", {}, body))
        return Answer(response.status, "", dict(response.headers), response.body)


class LogWorld:
    """One log in `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        raw_add: bool = False,
        fetcher: Fetcher | None = None,
        witness_url: str = "http://witness.test",
    ) -> None:
        """`fetcher`: the witness is somebody else's, at `witness_url`; otherwise it is one of our own."""
        self.clock = clock or Clock()
        self.elapsed = self.clock  # who sets the clock moves time itself, unless a test parts the two
        self.settings = Settings(
            folder,
            database=load(folder).database,  # from the environment, which tests/server/conftest.py sets
            storage=load(folder).storage,
            registry=Registry(origin=ORIGIN),
            log=Log(witness_urls=f"w1={witness_url}", witness_timeout=5.0),
            testing=Testing(raw_add=raw_add),
        )
        self.public = places.public(self.settings)
        self.signers = (
            Ed25519NoteSigner(ORIGIN, key("log")),
            MlDsaSigner(ORIGIN, MLDSA44PrivateKey.from_seed_bytes(b"\1" * 32)),
        )
        cosigner = Ed25519CosignatureSigner("witness.test/w1", key("witness"))
        lines = [f"log {signer.vkey.format()}" for signer in self.signers]
        lines += [f"witness w1 {cosigner.vkey.format()}", "quorum w1", ""]
        self.authority = KeySigner(key("authority"))
        self.trust = TrustFile(
            version=1,
            origin=ORIGIN,
            authority_key=self.authority.public_key,
            witness_policy="\n".join(lines),
            client_policy=CentralPolicy(0, "enforce"),
            valid_from=NOW,
        )
        self.roles = {role: KeySigner(key(role)) for role in GENESIS_ROLES}
        self.fetcher: Any = fetcher or self._own_witness(folder / "witness.sqlite", cosigner)
        self.engine = db.open_engine(self.settings.database_url)

    def _own_witness(self, state: Path, cosigner: Ed25519CosignatureSigner) -> WitnessFetcher:
        store = WitnessStore.load(state) if state.exists() else WitnessStore.create(state)
        if store.log(ORIGIN) is None:
            store.add_log([signer.vkey for signer in self.signers])
        return WitnessFetcher(Witness(store, cosigner, lambda: int(self.clock())))

    # --- its database, saved and lost -----------------------------------------------------------------
    def save_database(self, to: Path) -> None:
        """Yesterday's backup."""
        self.engine.dispose()
        if self.settings.database.url:
            postgres.server().copy(self.settings.database.url, postgres.backup_of(self.settings.database.url))
        else:
            to.mkdir(exist_ok=True)
            shutil.copy(self.settings.data / "registry.sqlite", to)

    def restore_database(self, backup: Path) -> None:
        """The backup in the place of what there is."""
        self.lose_database()
        if self.settings.database.url:
            postgres.server().copy(postgres.backup_of(self.settings.database.url), self.settings.database.url)
        else:
            shutil.copy(backup / "registry.sqlite", self.settings.data)

    def save_store(self, name: str) -> dict[str, bytes]:
        """Yesterday's copy of one store (`public`, `staging`)."""
        place = places.place(self.settings, name)
        if isinstance(place, Folder):
            found = [path for path in place.root.rglob("*") if path.is_file() and path.suffix != ".lock"]
            return {path.relative_to(place.root).as_posix(): path.read_bytes() for path in found}
        return s3.server().contents(f"{self.settings.storage.prefix}/{name}")

    def restore_store(self, name: str, backup: Mapping[str, bytes]) -> None:
        """The copy in the place of what there is."""
        place = places.place(self.settings, name)
        for there in self.save_store(name).keys() - backup.keys():
            place.remove(there)
        for there in sorted(backup.keys() & REPLACED_FILES):
            place.replace(there, backup[there])
        place.write({there: raw for there, raw in backup.items() if there not in REPLACED_FILES})

    def lose_database(self) -> None:
        """Nothing is left of it."""
        self.engine.dispose()
        if self.settings.database.url:
            postgres.server().create(self.settings.database.url)
        for path in self.settings.data.glob("registry.sqlite*"):
            path.unlink()

    # --- making it ------------------------------------------------------------------------------------
    def create(self, *, predecessor: Mapping[str, Any] | None = None) -> None:
        """What `adopt` does for the log."""
        migrations.upgrade(self.engine)
        with db.write(self.engine) as connection:
            envelopes = {role: self._enrolment(role) for role in GENESIS_ROLES}
            raw_add = self.settings.testing.raw_add
            create(
                connection,
                self.trust,
                self.signers,
                envelopes,
                now=int(self.clock()),
                raw_add=raw_add,
                predecessor=predecessor,
            )

    def begin(self) -> None:
        """Create, and propose the first `tuf` entry: all that the first round waits for."""
        self.create()
        self.propose("tuf", self.tuf())
        with db.write(self.engine) as connection:
            connection.execute(db.account.insert().values(id=ACCOUNT, login="ada", created=NOW))

    def station(self, **options: Any) -> Station:
        """A sequencer process's insides, not loaded yet."""
        return Station(
            self.settings,
            self.trust.policy,
            self.signers,
            fetcher=self.fetcher,
            clock=self.clock,
            elapsed=self.elapsed,
            **options,
        )

    # --- proposals ------------------------------------------------------------------------------------
    def propose(
        self,
        kind: str,
        envelope: Mapping[str, Any],
        registry: Mapping[str, Any] | None = None,
        submission_id: int | None = None,
    ) -> int:
        with db.write(self.engine) as connection:
            return proposal.propose(
                connection, kind, envelope, registry or {}, now=NOW, submission_id=submission_id
            )

    def upload(self, number: int, *, project: str = "acme", submitted: bool = True) -> int:
        """A publish proposal for `<project>-<number>.tar.gz`, signed by the registry; returns its id."""
        filename, sha256 = f"{project}-{number}.tar.gz", hashlib.sha256(b"%d" % number).hexdigest()
        sid = None
        if submitted:
            with db.write(self.engine) as connection:
                sid = submission.receive(
                    connection,
                    now=NOW,
                    project=project,
                    version=str(number),
                    filename=filename,
                    served_name=filename,
                    display_name=project,
                    sha256=sha256,
                    length=10,
                    filetype="sdist",
                    uploader=ACCOUNT,
                )
        predicate = {
            "origin": ORIGIN,
            "namespace": "",
            "project": project,
            "prev": None,
            "version": str(number),
            "length": 10,
            "metadata_sha256": sha256,
            "record_sha256": None,
        }
        envelope = sign(Statement(filename, sha256, "publish", predicate), self.roles["registry"])
        registry = {"uploader": ACCOUNT, "key_index": None, "identity": None}
        return self.propose("publish", envelope.to_dict(), registry, sid)

    def tuf(self) -> dict[str, Any]:
        """The first `tuf` statement."""
        digest = hashlib.sha256(b"metadata").hexdigest()
        file = {"version": 1, "length": 10, "sha256": digest}
        predicate = {
            "origin": ORIGIN,
            "namespace": "",
            "project": "",
            "prev": None,
            **dict.fromkeys(("root", "trust", "index", "targets", "snapshot"), file),
            "timestamps": [],
            "bins_old": None,
            "bins_new": digest,
            "changed_sha256": digest,
            "applied": 3,
        }
        return sign(Statement.about("tuf:1", "tuf", predicate), self.roles["registry"]).to_dict()

    def _enrolment(self, role: str) -> dict[str, Any]:
        signer = self.roles[role]
        predicate = {
            "origin": ORIGIN,
            "namespace": "",
            "project": "",
            "prev": None,
            "key": base64.b64encode(signer.public_key).decode(),
            "scope": role,
            "valid_for": None,
            "threshold": 1,
        }
        statement = Statement.about(f"key:{signer.keyid}", "key-enroll", predicate)
        return sign(statement, signer, self.authority).to_dict()

    # --- asking ---------------------------------------------------------------------------------------
    def outcome(self, proposal_id: int) -> proposal.Outcome:
        with db.read(self.engine) as connection:
            return proposal.outcome(connection, proposal_id)

    def head(self) -> heads.Head:
        with db.read(self.engine) as connection:
            head = heads.load(connection, ORIGIN)
        assert head is not None
        return head

    def published_size(self) -> int:
        raw = self.public.read(CHECKPOINT)
        return 0 if raw is None else open_checkpoint(raw, self.trust.policy, now=None).size

    def files(self) -> dict[str, bytes]:
        """Everything in the data directory but the databases, to assert that nothing changed."""
        root, prefix = self.settings.data, self.settings.storage.prefix
        objects = s3.server().contents(prefix) if prefix else {}
        return objects | {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".sqlite" not in path.name and not path.name.endswith(".lock")
        }

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        with db.read(self.engine) as connection:
            return {
                name: sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
                for name, table in db.metadata.tables.items()
            }

    # --- the whole world ------------------------------------------------------------------------------
    def check(self) -> None:
        """Storage is sound, nothing acknowledged is lost, no size was signed twice."""
        raw_add = self.settings.testing.raw_add
        findings = check_log(self.public, self.engine, self.trust, raw_add=raw_add)
        assert findings == [], findings
        size = self.published_size()
        with db.read(self.engine) as connection:
            rows = connection.execute(select(db.proposal)).mappings().all()
            states = {row["id"]: row["state"] for row in connection.execute(select(db.submission)).mappings()}
        taken = [row["leaf_index"] for row in rows if row["leaf_index"] is not None]
        assert sorted(taken) == list(range(self.head().tree_size)), "an index was lost or given twice"
        for row in rows:
            if row["state"] == "published":
                assert row["leaf_index"] < size, "acknowledged without a public checkpoint"
            if row["submission_id"] is not None:
                assert states[row["submission_id"]] == (
                    "logged" if row["state"] == "published" else "received"
                )
        self.check_signatures()

    def check_signatures(self) -> None:
        """Over everything that ever left the log's process: one size, one set of signed bytes."""
        notes = [*self.fetcher.seen, self.head().body.encode()]
        if (raw := self.public.read(CHECKPOINT)) is not None:
            notes.append(raw)
        keys = [signer.vkey for signer in self.signers]
        signed: dict[int, set[bytes]] = {}
        for note in notes:
            opened = open_log_checkpoint(note, keys)
            signed.setdefault(opened.size, set()).add(opened.log_note())
        twice = {size: len(found) for size, found in signed.items() if len(found) > 1}
        assert not twice, f"sizes signed more than once: {twice}"

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def begun(folder: Path) -> Iterator[LogWorld]:
    """A log with its genesis published, and nobody at work on it."""
    world = LogWorld(folder)
    try:
        world.begin()
        station = world.station()
        station.check_start()
        drain(station)
        station.engine.dispose()
        yield world
    finally:
        world.close()


def drain(station: Station) -> None:
    """Round after round until nothing waits, then publish what there is."""
    while station.sequencer.round():
        pass
    if station.sequencer.checkpoint.size:
        station.publisher.publish(station.sequencer.checkpoint)
