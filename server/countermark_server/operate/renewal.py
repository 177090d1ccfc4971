"""Renewal: bring a later ceremony's result home, to a registry that is running.

    renew(settings, Path("root-2"), now=now)

Everything is checked before anything is written, against what is in force here: the new root is one version on, and
signed by the threshold of ours and by its own; targets, trust and index are the ones in force or one version on,
signed as their delegators say; the trust file is ours, or its successor that the root accepts; origin, authority key,
log keys, bins and online keys are still ours. A skipped version, another registry's ceremony and one that was
changed on its way are refused with the part that disagrees.

Then the files are written, immutable, the new root under `tuf/ceremony/` where no client looks. Last, one row
tells tufrepo (`store.renew`), which names all of them in its next `tuf` entry and shows the root once the log
has it (tufrepo/renewing.py). So nothing is in force that the log does not hold, and a crash anywhere is repeated
harmlessly. Another witness policy is read by the log at its next start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets, Timestamp

from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError, UsageError
from countermark.tlog.checkpoint import open_log_checkpoint
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark.words import root_words
from countermark_server import db, logkeys, onlinekeys
from countermark_server.operate.adoption import COMPANIONS, ROLES, Adopted, check_real, is_trial, read_file
from countermark_server.settings import Settings
from countermark_server.stores import places
from countermark_server.stores.public import CHECKPOINT, TIMESTAMP, Public
from countermark_server.tufrepo import store
from countermark_server.tufrepo.renewing import newest_root

HISTORY = "history"
Everything = Mapping[str, Metadata[Any]]


@dataclass(frozen=True)
class _Found:
    """The four roles of one moment, and the trust file they lead to."""

    raw: Mapping[str, bytes]
    metadata: Everything
    trust: TrustFile

    @property
    def versions(self) -> dict[str, int]:
        """By role."""
        return {role: metadata.signed.version for role, metadata in self.metadata.items()}


def is_later(output: Path) -> bool:
    """Whether this folder is of a ceremony after the first."""
    return (output / HISTORY).is_dir()


def renew(settings: Settings, output: Path, *, now: int) -> Adopted:
    """Verify a later ceremony against what is in force, write its files, tell tufrepo. Refuses before it writes."""
    public = places.public(settings)
    engine = db.open_engine(settings.database_url)
    try:
        with db.read(engine) as connection:
            current, waiting = store.load(connection), store.renewal(connection)
        if current is None:
            raise UsageError(
                f"{settings.registry.origin} has not published its first TUF metadata yet",
                hint="start the registry, wait for its first timestamp, then adopt the later ceremony",
            )
        old = _in_force(public, {**current.offline, "root": newest_root(public).signed.version})
        new = _read(output, datetime.fromtimestamp(now, UTC))
        if waiting is not None and waiting != new.versions:
            raise UsageError(f"the ceremony adopted before this one is not published yet: {waiting}")
        check_follows(old, new)
        _check_transcript(output, old, new)
        _check_online(settings, public, old, new)
        _check_log_keys(public, old, new)
        public.put_all(_files(output, new))
        # Written, and nobody looks at it. If we stop here the same ceremony is adopted again.
        with db.write(engine) as connection:
            store.renew(connection, new.versions)
            if new.trust.log_keys != old.trust.log_keys:
                logkeys.follow(connection, old.trust.log_keys, now=now)
        # Told. From here on tufrepo publishes it, whenever it runs.
    finally:
        engine.dispose()
    root = cast("Metadata[Root]", new.metadata["root"])
    return Adopted(new.trust, is_trial(root), root_words(root.signed_bytes))


def check_follows(old: _Found, new: _Found) -> None:
    """EvidenceError or SignatureError unless `new` is what may come after `old`."""
    if new.trust.origin != old.trust.origin:
        raise EvidenceError(f"the ceremony is for {new.trust.origin}, this registry is {old.trust.origin}")
    if new.versions == old.versions:
        raise UsageError("this ceremony is in force already", hint="there is nothing to adopt")
    for role in ROLES:
        same = new.raw[role] == old.raw[role]
        before, after = old.versions[role], new.versions[role]
        if not same and after != before + 1:
            raise EvidenceError(
                f"{role} would go from version {before} to {after}",
                hint="adopt every ceremony in its order; the output folder of each is in `history/` of the last",
            )
    old_root, new_root = old.metadata["root"], new.metadata["root"]
    check_real(new_root)
    if new.raw["root"] != old.raw["root"]:
        _verify(old_root, "root", new_root)
    _verify(new_root, "root", new_root)
    _verify(new_root, "targets", new.metadata["targets"])
    for role in ("trust", "index"):
        _verify(new.metadata["targets"], role, new.metadata[role])
    _check_trust_file(old, new)
    if is_trial(old_root) != is_trial(new_root):
        raise EvidenceError("a trial stays a trial, and a registry that was none does not become one")


def _check_transcript(output: Path, old: _Found, new: _Found) -> None:
    """The signed metadata names this transcript, which says that it follows the root in force here.

    Without it, holders who sign twice for one version could move us from one line of ceremonies to another.
    """
    raw = read_file(output, COMPANIONS[0])
    digest = hashlib.sha256(raw).hexdigest()
    top = "root" if new.raw["root"] != old.raw["root"] else "trust"
    stated = new.metadata[top].signed.unrecognized_fields.get("x-countermark-ceremony")
    if stated != {"transcript_sha256": digest}:
        raise EvidenceError(f"{top} names transcript {stated}, the one in {output} is {digest}")
    ours = hashlib.sha256(old.raw["root"]).hexdigest()
    try:
        follows = json.loads(raw.split(b"\n", 1)[0])["previous_root_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"the transcript in {output} does not say what it follows") from error
    if follows != ours:
        raise EvidenceError(
            f"the ceremony follows a root with SHA-256 {follows}, ours is {ours}",
            hint="there were two ceremonies for one version; find out which one the holders meant",
        )


def _check_trust_file(old: _Found, new: _Found) -> None:
    before, after = old.trust, new.trust
    if after.authority_key != before.authority_key:
        raise EvidenceError("the ceremony's trust file has another authority key than ours")
    if after.version != before.version + (after.digest != before.digest):
        raise EvidenceError(f"the trust file would go from version {before.version} to {after.version}")
    if after.client_policy.min_tree_size < before.client_policy.min_tree_size:
        raise EvidenceError("the trust file's min_tree_size falls")
    accepted = new.metadata["root"].signed.unrecognized_fields.get("x-countermark-trust", [])
    if after.digest not in accepted:
        raise EvidenceError(f"root {new.versions['root']} does not accept the trust file {after.digest}")


def _check_log_keys(public: Public, old: _Found, new: _Found) -> None:
    """Other log keys sign already, beside the present ones: no checkpoint lacks what somebody demands."""
    if new.trust.log_keys == old.trust.log_keys:
        return
    raw = public.read(CHECKPOINT) or b""
    try:
        for trust in (old.trust, new.trust):
            open_log_checkpoint(raw, trust.log_keys)
    except CountermarkError as error:
        raise EvidenceError(
            f"the public checkpoint is not signed by the log keys of both trust files: {error}",
            hint="name both sets in log.keys, start the log again, wait for its next checkpoint, then adopt",
        ) from None


def _check_online(settings: Settings, public: Public, old: _Found, new: _Found) -> None:
    """Bins, snapshot and timestamp are delegated to one key each, which is here or signs already."""
    delegations = cast(Targets, new.metadata["index"].signed).delegations
    succinct = delegations and delegations.succinct_roles
    if not succinct:
        raise EvidenceError("the ceremony's index delegates to no bins")
    before = cast(Targets, old.metadata["index"].signed).delegations
    now = before and before.succinct_roles
    if not now or succinct.name_prefix != now.name_prefix or succinct.bit_length < now.bit_length:
        raise EvidenceError(
            f"the ceremony's index delegates to 2^{succinct.bit_length} bins {succinct.name_prefix}-*: "
            "fewer than now, or others"
        )
    roles = new.metadata["root"].signed.roles
    online = {"bins": succinct, "snapshot": roles["snapshot"], "timestamp": roles["timestamp"]}
    for role, keys in online.items():
        if role == "timestamp" and _timestamper_has(public, old, new):
            continue  # wherever it runs
        ours = [key.keyid for key in onlinekeys.public_keys(settings, role)]
        if len(keys.keyids) != 1 or keys.keyids[0] not in ours or keys.threshold != 1:
            raise EvidenceError(
                f"role {role} has keys {keys.keyids} in the ceremony, ours is {' and '.join(ours)}",
                hint=f"name the new key in {onlinekeys.setting_of(role)} beside the present one, start the process "
                "again, then adopt",
            )


def _timestamper_has(public: Public, old: _Found, new: _Found) -> bool:
    """Whether the timestamper, which may be on another machine, has the key that the new root names."""
    before, after = (cast(Root, found.metadata["root"].signed) for found in (old, new))
    raw = public.read(TIMESTAMP)
    if len(after.roles["timestamp"].keyids) != 1 or raw is None:
        return False
    if before.roles["timestamp"] == after.roles["timestamp"]:
        return True
    signed = Metadata[Timestamp].from_bytes(raw)
    return after.get_verification_result("timestamp", signed.signed_bytes, signed.signatures).verified


def _in_force(public: Public, versions: Mapping[str, int]) -> _Found:
    def load(name: str) -> bytes:
        raw = public.read(f"tuf/{name}")
        if raw is None:
            raise EvidenceError(f"{name} is missing from the public tree")
        return raw

    return _found({role: load(f"{versions[role]}.{role}.json") for role in ROLES}, load)


def _read(output: Path, now: datetime) -> _Found:
    names = {role: _newest(output, role) for role in ROLES}
    try:
        raw = {role: read_file(output, name) for role, name in names.items()}
        found = _found(raw, lambda name: read_file(output, name))
    except CountermarkError:
        raise
    except (RepositoryError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise MalformedError(f"the ceremony in {output} is malformed: {error!r}") from error
    for role, metadata in found.metadata.items():
        if names[role] != f"{metadata.signed.version}.{role}.json" or metadata.signed.is_expired(now):
            raise EvidenceError(
                f"{names[role]} has version {metadata.signed.version} and expires {metadata.signed.expires}"
            )
    return found


def _newest(output: Path, role: str) -> str:
    names = [path.name for path in output.glob(f"*.{role}.json")]
    if len(names) != 1:
        raise UsageError(f'"{output}" holds {len(names)} files of the role {role}, one is in force')
    return names[0]


def _found(raw: Mapping[str, bytes], load: Any) -> _Found:
    metadata: dict[str, Metadata[Any]] = {role: Metadata.from_bytes(content) for role, content in raw.items()}
    target = metadata["trust"].signed.targets[TARGET_PATH]
    trust_raw = load(f"targets/trust/{target.hashes['sha256']}.trust.json")
    target.verify_length_and_hashes(trust_raw)
    return _Found(raw, metadata, TrustFile.parse(trust_raw))


def _files(output: Path, new: _Found) -> dict[str, bytes]:
    """What is written: everything under its name but the root, which waits where no client looks."""
    number = len(list((output / HISTORY).iterdir())) + 1
    files = {f"tuf/{new.versions[role]}.{role}.json": new.raw[role] for role in ROLES if role != "root"}
    files[store.waiting_root(new.versions["root"])] = new.raw["root"]
    files[f"tuf/targets/trust/{new.trust.digest}.trust.json"] = new.trust.format()
    return files | {f"tuf/ceremony/{number}/{name}": read_file(output, name) for name in COMPANIONS}


def _verify(delegator: Metadata[Any], role: str, metadata: Metadata[Any]) -> None:
    try:
        delegator.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        signed = delegator.signed
        raise SignatureError(
            f"{role} {metadata.signed.version} is not signed as {signed.type} {signed.version} demands: {error}",
            hint="the ceremony is another registry's, or was changed on its way",
        ) from error
