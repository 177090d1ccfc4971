"""Log, tufrepo and timestamper of one registry in one process: the real rooms, driven step by step.

    world = TufRegistry(tmp_path)
    world.settle()                       # genesis: entries 0 to 3, first checkpoint, first timestamp
    world.list_file(1)                   # upload, verdict, cleared
    world.settle()
    world.check()

Nothing is simulated but HTTP between the rooms: the timestamper reads the public folder through `PublicFiles`,
tufrepo asks the timestamper's own engine. `restart()` forgets everything that is only in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from sqlalchemy import select
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    SuccinctRoles,
    TargetFile,
    Targets,
)
from tuf.api.serialization.json import JSONSerializer

from countermark import bins, rules
from countermark.errors import NetworkError
from countermark.fetch import Answer, StatusError
from countermark.replay import DictView, put_all, replay
from countermark.serving import Request
from countermark.statement import KeySigner, Statement, sign
from countermark.timestamp import Timestamp as Carried
from countermark.tlog.checkpoint import open_checkpoint
from countermark_server import db, submission
from countermark_server.journey import State
from countermark_server.log.fsck import check_log
from countermark_server.log.tree import public_tree
from countermark_server.ruleview import SqlView
from countermark_server.stores import places
from countermark_server.stores.public import CHECKPOINT, TIMESTAMP
from countermark_server.timestamper.fence import Fence, Holder
from countermark_server.timestamper.judge import Judge
from countermark_server.timestamper.service import Service
from countermark_server.timestamper.store import Store
from countermark_server.tufrepo.keys import Keys
from countermark_server.tufrepo.parts import Parts
from countermark_server.tufrepo.publicfiles import PublicFiles
from countermark_server.tufrepo.publish import Repository
from tests.log_world import ORIGIN, LogWorld, key

BIT_LENGTH = 2
MODERATOR = "0d" * 16
ROLES = ("root-a", "root-b", "targets", "trust", "index", "bins", "snapshot", "timestamp")


class EngineFetcher:
    """Asks a serving engine as if over HTTP."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.down = False

    def get(self, url: str, *, missing_ok: bool = False, **_: Any) -> bytes | None:
        if self.down or self.service is None:
            raise NetworkError(f"{url} is down")
        answer = self.service.engine(Request("GET", "/" + url.rpartition("/")[2]))
        if answer.status == 404 and missing_ok:
            return None
        if answer.status != 200:
            raise StatusError(url, Answer(answer.status, "", {}, answer.body))
        return bytes(answer.body)

    def post(self, url: str, body: bytes, **_: Any) -> Answer:
        raise NetworkError(url)


class TufRegistry(LogWorld):
    """One registry in `folder`."""

    def __init__(self, folder: Path, *, min_interval: float = 0.0, bit_length: int = BIT_LENGTH) -> None:
        super().__init__(folder)
        self.min_interval, self.bit_length = min_interval, bit_length
        self.tuf_keys = {role: CryptoSigner(key(f"tuf {role}")) for role in ROLES}
        self.online = {role: [self.tuf_keys[role]] for role in ("bins", "snapshot", "timestamp")}
        self.timestamper = EngineFetcher(None)
        self.create()
        with db.write(self.engine) as connection:
            connection.execute(db.account.insert().values(id="a1" * 16, login="ada", created=0))
        self.write_offline()
        self.store: Store | None = None
        self.restart()

    # --- the processes --------------------------------------------------------------------------------
    def restart(self) -> None:
        """Every process anew, from what is on disk."""
        if self.store is not None:
            self.store.close()
        self.logs = self.station()
        self.logs.sequencer.load()
        self.store = Store(self.settings.data / "timestamper" / "timestamper.sqlite")
        web = PublicFiles(self.public)
        fence = Fence(places.fence(self.settings), Holder("0a" * 8, "host-0a"), shared=False)
        judge = Judge(self.store, self.online["timestamp"], web, "public:", fence)
        judge.adopt_root(self.public.read("tuf/1.root.json") or b"")
        self.service = Service(self.store, judge, web, "public:", clock=self.clock, retry_interval=2.0)
        self.judge = judge
        self.timestamper.service = self.service
        self.repository = Repository(self.parts())

    def parts(self) -> Parts:
        return Parts(
            engine=self.engine,
            public=self.public,
            keys=Keys(self.online["bins"], self.online["snapshot"]),
            registry=self.roles["registry"],
            trust_file=self.trust,
            timestamper=self.timestamper,
            timestamper_url="http://timestamper.test",
            clock=self.clock,
            min_interval=self.min_interval,
            heartbeat=3600.0,
            retention=7 * 86_400.0,
        )

    def work_log(self) -> bool:
        """Sequence and publish whatever waits."""
        if not self.logs.sequencer.round():
            return False
        self.logs.publisher.publish(self.logs.sequencer.checkpoint)
        return True

    def settle(self, limit: int = 60) -> None:
        """Let every room work until none has anything to do."""
        for _ in range(limit):
            busy = [self.repository.step(), self.work_log(), self.service.step()]
            if not any(busy):
                return
        raise AssertionError("the rooms never come to rest")

    # --- what people do -------------------------------------------------------------------------------
    def list_file(self, number: int, *, tier: str = "none") -> int:
        """An upload, its verdict, and the scan station's moves; returns the submission's id."""
        proposal_id = self.upload(number)
        self.work_log()
        with db.read(self.engine) as connection:
            row = connection.execute(
                select(db.proposal.c.submission_id).where(db.proposal.c.id == proposal_id)
            ).one()
        self.decide("verdict", number, {"tier": tier})
        self.work_log()
        with db.write(self.engine) as connection:
            for old, new in ((State.LOGGED, State.SCANNED), (State.SCANNED, State.CLEARED)):
                submission.finish(connection, row[0], old, new, now=int(self.clock()))
        return int(row[0])

    def list_files(self, numbers: Iterable[int]) -> None:
        """As many uploads with their verdicts and moves, each kind of entry in as few rounds as the log takes."""
        wanted = list(numbers)
        asked = [self.upload(number) for number in wanted]
        self.drain_log()
        with db.read(self.engine) as connection:
            query = select(db.proposal.c.submission_id).where(db.proposal.c.id >= asked[0])
            cleared = [int(row[0]) for row in connection.execute(query)]
        for number in wanted:
            self.decide("verdict", number)
        self.drain_log()
        with db.write(self.engine) as connection:
            for submission_id in cleared:
                for old, new in ((State.LOGGED, State.SCANNED), (State.SCANNED, State.CLEARED)):
                    submission.finish(connection, submission_id, old, new, now=int(self.clock()))

    def drain_log(self) -> None:
        """Sequence and publish until nothing waits."""
        while self.work_log():
            pass

    def decide(self, kind: str, number: int, members: Mapping[str, Any] | None = None) -> int:
        """A verdict, hold, clear or takedown about the file of that number."""
        filename = f"acme-{number}.tar.gz"
        with db.read(self.engine) as connection:
            state = SqlView(connection, db.rules_state).get(rules.file_key("", "acme", filename))
        assert state is not None
        binding = {"origin": ORIGIN, "namespace": "", "project": "acme", "prev": state["registry_head"]}
        if kind == "verdict":
            said: dict[str, Any] = {
                "analyzers": [],
                "classification": "no-findings",
                "confidence": "high",
                "findings_sha256": None,
                "ruleset_sha256": "22" * 32,
                "tier": "none",
            }
            signer, registry = self.roles["scanner"], {}
        else:
            said = {"about": None, "evidence_sha256": None, "reason": "malware"}
            signer, registry = self.roles["moderation"], {"case": None, "moderator": MODERATOR}
        statement = Statement(filename, state["sha256"], kind, binding | said | dict(members or {}))
        return self.propose(kind, sign(statement, signer).to_dict(), registry)

    def state_of(self, submission_id: int) -> str:
        with db.read(self.engine) as connection:
            query = select(db.submission.c.state).where(db.submission.c.id == submission_id)
            return str(connection.execute(query).scalar_one())

    # --- TUF ------------------------------------------------------------------------------------------
    def timestamp(self) -> Carried:
        return Carried.parse(self.public.read(TIMESTAMP) or b"")

    def targets(self) -> dict[str, Any]:
        """What the public timestamp lists, read through snapshot and bins."""
        signed = json.loads(self.public.read(TIMESTAMP) or b"")["signed"]
        version = signed["meta"]["snapshot.json"]["version"]
        snapshot = json.loads(self.public.read(f"tuf/{version}.snapshot.json") or b"")["signed"]["meta"]
        leaves, found = [], {}
        for number in range(1 << self.bit_length):
            role = bins.role_name(number, self.bit_length)
            version = snapshot[f"{role}.json"]["version"]
            raw = self.public.read(f"tuf/{version}.{role}.json") or b""
            targets = json.loads(raw)["signed"]["targets"]
            digest = hashlib.sha256(raw).hexdigest()
            leaves.append(bins.BinLeaf(role, version, digest, bins.targets_root(targets)).leaf_hash)
            found |= targets
        tree = bins.BinsTree.build(leaves)
        assert tree.root.hex() == signed["x-countermark-bins"]["root"]
        for name, raw in tree.tiles().items():
            assert self.public.read(f"tuf/bins/{name}") == raw
        return found

    def entries(self) -> list[bytes]:
        raw = self.public.read(CHECKPOINT) or b""
        checkpoint = open_checkpoint(raw, self.trust.policy, now=None)
        tree = public_tree(self.public)
        read = tree.reader(checkpoint.size, checkpoint.root_hash)
        return tree.entries(0, checkpoint.size, read)

    def check(self) -> None:
        """The log is whole, and the public TUF metadata lists exactly what its first A entries demand."""
        assert check_log(self.public, self.engine, self.trust) == []
        carried = self.timestamp()
        open_checkpoint(carried.checkpoint, self.trust.policy, now=None)
        view = DictView()
        put_all(view, rules.genesis(origin=ORIGIN, authority_key=self.authority.public_key))
        findings: list[Any] = []
        replay(self.entries()[: carried.applied], view, on_finding=findings.append)
        assert not findings, findings
        demanded = {
            rules.target_path(state): rules.target_custom(state)
            for key_, state in view.items()
            if key_[0] == "file" and rules.is_listed(view, key_)
        }
        assert {path: target["custom"] for path, target in self.targets().items()} == demanded

    def write_offline(self) -> None:
        """What a ceremony would have left in public/tuf."""
        serializer, now = JSONSerializer(compact=True), datetime.fromtimestamp(self.clock(), UTC)
        year = now + timedelta(days=365)
        keys = {role: signer.public_key for role, signer in self.tuf_keys.items()}
        raw = self.trust.format()
        root = Root(
            1,
            expires=year,
            consistent_snapshot=True,
            unrecognized_fields={"x-countermark-trust": [self.trust.digest]},
        )
        for role in ("root-a", "root-b"):
            root.add_key(keys[role], "root")
        root.roles["root"].threshold = 2
        for role in ("targets", "snapshot", "timestamp"):
            root.add_key(keys[role], role)
        delegated = {
            "trust": DelegatedRole("trust", [keys["trust"].keyid], 1, True, ["trust/*"]),
            "index": DelegatedRole("index", [keys["index"].keyid], 1, True, ["files/*/*"]),
        }
        known = {keys[role].keyid: keys[role] for role in delegated}
        succinct = SuccinctRoles([keys["bins"].keyid], 1, self.bit_length, "bins")
        below = Delegations({keys["bins"].keyid: keys["bins"]}, succinct_roles=succinct)
        file = TargetFile.from_data("trust/trust.json", raw, ["sha256"])
        documents: dict[str, tuple[Any, tuple[str, ...]]] = {
            "root": (root, ("root-a", "root-b")),
            "targets": (
                Targets(1, expires=year, delegations=Delegations(known, roles=delegated)),
                ("targets",),
            ),
            "trust": (Targets(1, expires=year, targets={"trust/trust.json": file}), ("trust",)),
            "index": (Targets(1, expires=year, delegations=below), ("index",)),
        }
        files = {f"tuf/targets/trust/{self.trust.digest}.trust.json": raw}
        for name, (signed, signers) in documents.items():
            metadata = Metadata(signed)
            for signer in signers:
                metadata.sign(self.tuf_keys[signer], append=True)
            files[f"tuf/1.{name}.json"] = metadata.to_bytes(serializer)
        self.public.put_all(files)


def rotate_registry_key(world: TufRegistry, signer: KeySigner) -> None:
    """The authority enrols a new registry key and revokes the old one, ahead of whatever waits."""
    with db.read(world.engine) as connection:
        head = SqlView(connection, db.rules_state).get(("role", "authority"))
        waiting = connection.execute(
            select(db.proposal.c.id).where(db.proposal.c.state == "pending").order_by(db.proposal.c.id)
        ).scalars()
        later = list(waiting)
    assert head is not None
    with db.write(world.engine) as connection:
        connection.execute(db.proposal.update().where(db.proposal.c.id.in_(later)).values(state="later"))
    binding = {"origin": ORIGIN, "namespace": "", "project": ""}
    key_ = base64.b64encode(signer.public_key).decode()
    said = {"prev": head["head"], "key": key_, "scope": "registry", "valid_for": None, "threshold": 1}
    statement = Statement.about(f"key:{signer.keyid}", "key-enroll", binding | said)
    registry = {"account": None, "authorised_by": "authority", "identity": None}
    asked = world.propose("key-enroll", sign(statement, signer, world.authority).to_dict(), registry)
    world.work_log()
    old = world.roles["registry"].keyid
    said = {
        "prev": world.outcome(asked).leaf_hash,
        "keyid": old,
        "reason": "superseded",
        "compromised_since": None,
    }
    statement = Statement.about(f"key:{old}", "key-revoke", binding | said)
    world.propose("key-revoke", sign(statement, world.authority).to_dict(), {"actor": None})
    world.work_log()
    world.roles["registry"] = signer
    with db.write(world.engine) as connection:
        connection.execute(db.proposal.update().where(db.proposal.c.id.in_(later)).values(state="pending"))
