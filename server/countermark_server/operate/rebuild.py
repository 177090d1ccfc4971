"""`rebuild`: what follows from entry bundles, made again: tiles, and the public part of the database.

    rebuilt = rebuild(settings, progress)       # the registry must not run
    rebuilt.to_json()

    tiles        from the entry bundles                                        log/rebuild.py
    rows         rules' state and proposals, from the entries                  log/rebuild.py
    tufrepo      its replay up to `applied`, bins and versions, from public/tuf
    submissions  one for each file, from its publish entry and its metadata blob; for an imported
                 file, where its bytes are in the store                        operate/imported.py
    head         last: until then no log is found here

What follows from nothing public, and only a backup holds: who is behind an account (a placeholder login stands in
its place), tokens, codes, what waited in queues, uploaded attestations, the reasons of moderators and the findings
of scans beyond their digest. docs/operations/deploy.md lists it. Restore such rows first, if there are any: what is
there stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from packaging.metadata import Metadata as CoreMetadata
from sqlalchemy import Connection, Engine, RowMapping, select, update
from tuf.api.metadata import Metadata, Snapshot

from countermark import replay, rules
from countermark.bins import BinsTree, targets_root
from countermark.errors import EvidenceError, UsageError
from countermark.statement import Envelope, Statement
from countermark_server import adopted, db, migrations, signing
from countermark_server.accounts.people import LOST
from countermark_server.journey import State
from countermark_server.log import rebuild as tree
from countermark_server.log.staging import Staging
from countermark_server.log.station import only_sequencer
from countermark_server.operate.imported import Regained, regain
from countermark_server.proposal import PUBLISHED, SEQUENCED
from countermark_server.ruleview import SqlView
from countermark_server.settings import Settings
from countermark_server.stores import heads, places
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import Public
from countermark_server.tufrepo import store
from countermark_server.tufrepo.candidate import OFFLINE, BinRecord, Current, metadata_file
from countermark_server.tufrepo.keys import bins_of, read_index

ROWS = 512  # submissions of one transaction
_VERSIONED = re.compile(r"tuf/([1-9][0-9]*)\.(snapshot|[a-z]+-[0-9a-f]+)\.json")
_UNSETTLED = (State.RECEIVED, State.LOGGED, State.SCANNED)


@dataclass(frozen=True)
class Rebuilt:
    """What was missing and is there again."""

    origin: str
    tree_size: int
    tiles: int
    entries: int
    submissions: int
    imported: Regained
    accounts: tuple[str, ...]  # pseudonyms that no row maps to a person: `account name` does

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rebuild(settings: Settings, progress: tree.Progress) -> Rebuilt:
    """Rebuild what is missing. EvidenceError: the bundles do not lead to what was published; nothing was written."""
    with only_sequencer(settings.data / "staging"):
        public = places.public(settings)
        trust = adopted.trust_file(public)
        signers = signing.log_signers(settings)
        if not set(trust.log_keys) <= {signer.vkey for signer in signers}:
            raise UsageError("the log's keys on this machine are not those of the trust file")
        engine = db.open_engine(settings.database_url)
        try:
            migrations.upgrade(engine)
            with db.read(engine) as connection:
                head = heads.load(connection, trust.origin)
            staging = Staging(places.place(settings, "staging"))
            ground = tree.find_ground(public, staging, head, trust)
            tree.check_bundles(ground, progress)
            # Nothing was written so far, and what follows leads to what was seen.
            tiles = tree.write_tiles(ground, public, progress)
            raw = settings.testing.raw_add
            start = rules.genesis(origin=trust.origin, authority_key=trust.authority_key, raw_add=raw)
            entries = tree.write_rows(ground, engine, start, progress)
            submissions, imported = 0, Regained()
            if not raw:
                _tufrepo(ground, engine, public, start)
                blobs = places.blobs(settings)
                submissions = _submissions(engine, blobs, progress)
                imported = regain(
                    engine, blobs, settings.upload, _regained, progress, public_size=ground.public_size
                )
            tree.put_head(ground, engine, signers)
            accounts = _unnamed(engine)
        finally:
            engine.dispose()
    return Rebuilt(trust.origin, ground.target.size, tiles, entries, submissions, imported, accounts)


# --- tufrepo ----------------------------------------------------------------------------------------------
def _tufrepo(ground: tree.Ground, engine: Engine, public: Public, start: rules.Changes) -> None:
    """tufrepo's own replay, and what it signed last as its files say, held against the `tuf` entry in force."""
    with db.read(engine) as connection:
        log = SqlView(connection, db.rules_state).get(rules.LOG)
        assert log is not None  # write_rows made it
        if log["tuf"] is None:
            return  # no publish yet: tufrepo begins by itself
        row = _entry_row(connection, log["tuf"]["head"])
        known = store.load(connection)
    if known is not None and known.applied == log["applied"] and known.head == log["tuf"]["head"]:
        return
    applied = int(log["applied"])
    with db.write(engine) as connection, SqlView(connection, db.tufrepo_state) as view:
        if view.get(rules.LOG) is None:
            replay.put_all(view, start)
        position = (view.get(rules.LOG) or {})["size"]
    for entries in tree.chunks(ground.tree, applied, position):
        with db.write(engine) as connection, SqlView(connection, db.tufrepo_state) as view:
            replay.replay(entries, view, on_finding=lambda _: None)
        # Committed. If we stop here the next run goes on behind these entries.
    current = _current(public, row, log)
    with db.write(engine) as connection:
        store.save(connection, current, range(len(current.bins)))
        _claimed(connection, public)
        connection.execute(
            update(db.tuf_candidate)
            .where(db.tuf_candidate.c.state.in_(store.OPEN))
            .values(state=store.SUPERSEDED)
        )
        statement = Statement.parse(Envelope.parse(json.loads(row["envelope"])).payload)
        body = {"predicate": dict(statement.predicate), "subject": statement.subject_name}
        candidate = store.add_candidate(connection, applied, body, row["id"])
        # Its timestamp may be public or not: tufrepo takes it from the timestamper either way.
        store.move(connection, candidate, store.LOGGED)


def _entry_row(connection: Connection, leaf: str) -> RowMapping:
    table = db.proposal
    where = (table.c.type == "tuf", table.c.leaf_hash == leaf)
    return connection.execute(select(table).where(*where)).mappings().one()


def _current(public: Public, row: RowMapping, log: Mapping[str, Any]) -> Current:
    """What the snapshot in force names, read from its files; EvidenceError unless the bins root is the logged one."""
    version = log["tuf"]["versions"]["snapshot"]
    raw = _read(public, f"tuf/{version}.snapshot.json")
    snapshot = Metadata[Snapshot].from_bytes(raw).signed
    versions = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
    offline = {role: versions.pop(role) for role in OFFLINE}
    bit_length = bins_of(read_index(public, offline["index"])).bit_length
    empty = Current(bit_length, offline, (), None, None, 0, 0, None)
    records = []
    for index in range(1 << bit_length):
        role = empty.role(index)
        body = _read(public, f"tuf/{versions[role]}.{role}.json")
        signed = json.loads(body)["signed"]
        expires = int(Metadata.from_bytes(body).signed.expires.timestamp())
        sha256 = str(metadata_file(body, 1)["sha256"])
        records.append(BinRecord(versions[role], sha256, targets_root(signed["targets"]), expires))
    bins = BinsTree.build([record.leaf(empty.role(i)).leaf_hash for i, record in enumerate(records)])
    found, said, at = bins.root.hex(), log["tuf"]["bins"], row["leaf_index"]
    if found != said:
        raise EvidenceError(f"the bins in public/tuf have the root {found}, entry {at} says {said}")
    expires = int(snapshot.expires.timestamp())
    named = metadata_file(raw, version)
    return Current(
        bit_length,
        offline,
        tuple(records),
        bins,
        named,
        expires,
        int(log["applied"]),
        log["tuf"]["head"],
        {
            role: v
            for role, v in versions.items()
            if role not in {empty.role(i) for i in range(1 << bit_length)}
        },
    )


def _read(public: Public, name: str) -> bytes:
    raw = public.read(name)
    if raw is None:
        raise EvidenceError(
            f"{name} is missing: TUF metadata follows from no entry",
            hint="restore public/tuf from a mirror or a backup",
        )
    return raw


def _claimed(connection: Connection, public: Public) -> None:
    """No version that was ever signed is signed again: the newest of each role among all files counts."""
    newest: dict[str, int] = {}
    for name in public.names("tuf"):
        if (match := _VERSIONED.fullmatch(name)) is not None:
            newest[match[2]] = max(newest.get(match[2], 0), int(match[1]))
    table = db.tuf_version
    known = {row.role: row.version for row in connection.execute(select(table))}
    for role, version in newest.items():
        if role not in known:
            connection.execute(table.insert().values(role=role, version=version))
        elif known[role] < version:
            connection.execute(update(table).where(table.c.role == role).values(version=version))


# --- submissions ------------------------------------------------------------------------------------------
def _submissions(engine: Engine, blobs: Blobs, progress: tree.Progress) -> int:
    """A submission for every publish entry of the default namespace; how many were missing."""
    made, after = 0, 0
    while True:
        with db.write(engine) as connection:
            rows = list(_publishes(connection, after))
            for row in rows:
                made += _submission(connection, row, blobs)
        # Committed. If we stop here these have their submission, and the next run goes on behind them.
        if not rows:
            return made
        after = rows[-1]["id"]
        progress("submissions made", made, made)


def _publishes(connection: Connection, after: int) -> Iterator[RowMapping]:
    table = db.proposal
    logged = (table.c.type == "publish", table.c.state.in_((SEQUENCED, PUBLISHED)), table.c.id > after)
    signed = table.c.envelope.is_not(None)  # a line of an import has its bytes elsewhere
    rows = connection.execute(select(table).where(*logged, signed).order_by(table.c.id).limit(ROWS))
    yield from rows.mappings().all()


def _submission(connection: Connection, row: RowMapping, blobs: Blobs) -> bool:
    entry = _statement(row)
    predicate = entry.predicate
    if predicate["namespace"]:
        return False  # its file is served elsewhere
    key = rules.file_key("", predicate["project"], entry.subject_name)
    state = _state(SqlView(connection, db.rules_state), key, published=row["state"] == PUBLISHED)
    leaf = {"leaf_index": row["leaf_index"], "leaf_hash": row["leaf_hash"]}
    table = db.submission
    where = (table.c.namespace == "", table.c.project == predicate["project"], table.c.filename == key[3])
    known = connection.execute(select(table).where(*where)).mappings().first()
    if known is not None:
        if known["state"] in _UNSETTLED:
            connection.execute(update(table).where(*where).values(**leaf, state=state))
        number, made = known["id"], False
    else:
        values = _columns(connection, entry, row, blobs) | {"filename": key[3], "state": state, **leaf}
        number, made = db.inserted_id(connection.execute(table.insert().values(**values))), True
        _verdict(connection, number, key)
    if row["submission_id"] is None:
        connection.execute(
            update(db.proposal).where(db.proposal.c.id == row["id"]).values(submission_id=number)
        )
    return made


def _regained(connection: Connection, number: int, key: rules.Key, made: bool) -> None:
    """The state of an imported file's submission, by its entries; of a new one, the verdict that it got before."""
    state, table = _state(SqlView(connection, db.rules_state), key, published=True), db.submission
    where = (table.c.id == number, table.c.state.in_(_UNSETTLED))
    connection.execute(update(table).where(*where).values(state=state))
    if made:
        _verdict(connection, number, key)


def _statement(row: RowMapping) -> Statement:
    return Statement.parse(Envelope.parse(json.loads(row["envelope"])).payload)


def _state(view: SqlView, key: rules.Key, *, published: bool) -> State:
    """Where the journey of this file goes on, by its entries."""
    file = view.get(key)
    if not published:
        return State.RECEIVED
    if file is None or file["verdict"] is None:
        return State.LOGGED
    if rules.standing_of(view, key) == "removed":
        return State.REJECTED
    return State.CLEARED if rules.is_listable(view, key) else State.HELD


def _columns(connection: Connection, said: Statement, row: RowMapping, blobs: Blobs) -> dict[str, Any]:
    predicate, registry = said.predicate, json.loads(row["registry"])
    account = registry["uploader"]
    if connection.execute(select(db.account.c.id).where(db.account.c.id == account)).first() is None:
        connection.execute(
            db.account.insert().values(id=account, login=LOST + account, created=row["created"])
        )
    name, requires_python = _metadata(blobs, predicate["metadata_sha256"])
    return {
        "namespace": "",
        "project": predicate["project"],
        "version": predicate["version"],
        "served_name": said.subject_name,
        "display_name": name or predicate["project"],
        "sha256": said.subject_sha256,
        "length": predicate["length"],
        "filetype": "bdist_wheel" if said.subject_name.endswith(".whl") else "sdist",
        "requires_python": requires_python,
        "metadata_sha256": predicate["metadata_sha256"],
        "uploader": account,
        "uploaded": row["created"],
        "state_since": row["created"],
    }


def _metadata(blobs: Blobs, sha256: str) -> tuple[str | None, str | None]:
    """Name and Requires-Python as the file's own metadata says, where the blob is there and reads as such."""
    try:
        metadata = CoreMetadata.from_email(blobs.read(sha256), validate=False)
        requires = metadata.requires_python
        return metadata.name, None if requires is None else str(requires)
    except (StoreError, ValueError, LookupError, TypeError, AttributeError, ExceptionGroup):
        return None, None


def _unnamed(engine: Engine) -> tuple[str, ...]:
    table = db.account
    with db.read(engine) as connection:
        query = select(table.c.id).where(table.c.login.startswith(LOST, autoescape=True)).order_by(table.c.id)
        return tuple(connection.execute(query).scalars())


def _verdict(connection: Connection, number: int, key: rules.Key) -> None:
    """The row of the newest verdict: decisions about the file name its entry. Its findings are in a blob, at most."""
    file = SqlView(connection, db.rules_state).get(key)
    if file is None or file["verdict"] is None:
        return
    table = db.proposal
    row = (
        connection.execute(select(table).where(table.c.leaf_index == file["verdict"]["index"]))
        .mappings()
        .one()
    )
    findings = _statement(row).predicate["findings_sha256"]
    body = {"findings": [], "findings_sha256": findings, "hold": None, "reason": None}
    values = {"submission_id": number, "proposal_id": row["id"], "tier": file["verdict"]["tier"]}
    connection.execute(db.verdict.insert().values(**values, body=json.dumps(body, sort_keys=True)))
