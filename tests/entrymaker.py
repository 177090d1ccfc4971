"""A small registry for tests of the rules: keys from seeds, statements with the right `prev`, one view.

    world = World()                                   # genesis and the three role keys: entries 0 to 2
    world.accept(world.enroll("acme", alice, ALICE))  # the sequencer's way: apply, keep what it says
    world.refuse("file-exists", world.publish("acme-1.0.tar.gz", by=alice))

Every maker reads `prev` and indexes from the view, so a test changes only what it is about:
`world.publish(..., predicate={"prev": "00" * 32})` or `registry={"uploader": BOB}`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from countermark import manifest, rules
from countermark.entry import Entry, make_entry, make_imported
from countermark.filelist import files_digest
from countermark.imported import Imported
from countermark.manifest import Line, links
from countermark.names import parse_filename
from countermark.replay import DictView, Finding, replay
from countermark.rules import Broken, Changes, Key
from countermark.rules_import import why_passed_over
from countermark.rules_state import AUTHORITY
from countermark.statement import KeySigner, Signer, Statement, sign
from countermark.values import replace

ORIGIN = "rules.example/registry"
ALICE, BOB, CAROL = "a1" * 16, "b0" * 16, "ca" * 16
MODERATOR, OTHER_MODERATOR = "0d" * 16, "0e" * 16
WEEK = 7 * 24 * 3600
START = 1_763_800_000
VECTORS = Path(__file__).resolve().parent / "vectors" / "rules"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ed25519_signer(name: str) -> KeySigner:
    """The same key for the same name, so that vectors and failures can be reproduced."""
    return KeySigner(ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def p256_signer(name: str) -> KeySigner:
    secret = int.from_bytes(hashlib.sha256(name.encode()).digest()) % (2**255)
    return KeySigner(ec.derive_private_key(secret, ec.SECP256R1()))


AUTHORITY_KEY = ed25519_signer("authority")
REGISTRY_KEY = ed25519_signer("registry")
SCANNER_KEY = ed25519_signer("scanner")
MODERATION_KEY = ed25519_signer("moderation")
ROLE_KEYS = {"registry": REGISTRY_KEY, "scanner": SCANNER_KEY, "moderation": MODERATION_KEY}


class World:
    """One log's state and the entries that led to it."""

    def __init__(self, *, roles: bool = True, view: Any = None) -> None:
        self.view = DictView() if view is None else view
        self.entries: list[Entry] = []
        self.manifests: dict[str, list[Line]] = {}  # by the leaf hash of their import entry
        self.time = START
        self.put(rules.genesis(origin=ORIGIN, authority_key=AUTHORITY_KEY.public_key))
        if roles:
            for scope, signer in ROLE_KEYS.items():
                self.accept(self.enroll_role(scope, signer))

    # --- the sequencer's part ---
    def put(self, changes: Changes) -> None:
        for key, value in changes.writes.items():
            self.view.put(key, value)

    def accept(self, entry: Entry) -> Changes:
        """Apply an entry that must be allowed."""
        result = rules.apply(self.view, entry)
        assert isinstance(result, Changes), result
        self.put(result)
        self.entries.append(entry)
        return result

    def refuse(self, code: str, entry: Entry, party: str = "signer") -> Broken:
        """Apply an entry that must be refused for this reason, and see that nothing has changed."""
        before = self.view.digest()
        result = rules.apply(self.view, entry)
        assert isinstance(result, Broken), "an entry that must be refused was allowed"
        assert (result.code, result.party) == (code, party), result
        assert self.view.digest() == before
        return result

    def later(self, seconds: int) -> None:
        self.time += seconds

    # --- what the log knows ---
    @property
    def size(self) -> int:
        return self.view.get(rules.LOG)["size"]

    def file(self, filename: str, namespace: str = "") -> dict[str, Any]:
        return self.view.get(self.key(filename, namespace))

    def key(self, filename: str, namespace: str = "") -> Key:
        return rules.file_key(namespace, parse_filename(filename).project, filename)

    def project(self, name: str, namespace: str = "") -> dict[str, Any]:
        return self.view.get(rules.holder_key(namespace, name))

    def standing(self, filename: str, namespace: str = "") -> str | None:
        return rules.standing_of(self.view, self.key(filename, namespace))

    def listed(self, filename: str, namespace: str = "") -> bool:
        return rules.is_listed(self.view, self.key(filename, namespace))

    def key_index(self, signer: Signer, project: str, namespace: str = "") -> int | None:
        for level in (project, "") if namespace else (project,):
            holder = self.view.get(rules.holder_key(namespace, level))
            if holder is not None:
                holder = rules.settled(holder, self.time)
                if (item := holder["keys"].get(signer.keyid)) is not None:
                    return item["index"]
        return None

    # --- makers ---
    def entry(
        self,
        kind: str,
        subject: str,
        predicate: Mapping[str, Any],
        registry: Mapping[str, Any],
        *signers: Signer,
        sha256: str | None = None,
    ) -> Entry:
        binding = {"origin": ORIGIN, "namespace": "", "project": "", "prev": None}
        statement = Statement(subject, sha256 or digest(subject), kind, binding | dict(predicate))
        return make_entry(type=kind, envelope=sign(statement, *signers), registry=registry, time=self.time)

    def publish(
        self,
        filename: str,
        *,
        by: Signer = REGISTRY_KEY,
        uploader: str = ALICE,
        namespace: str = "",
        content: str | None = None,
        predicate: Mapping[str, Any] | None = None,
        registry: Mapping[str, Any] | None = None,
    ) -> Entry:
        name = parse_filename(filename)
        said = {
            "namespace": namespace,
            "project": name.project,
            "version": name.version,
            "length": 1000 + len(filename),
            "metadata_sha256": digest("metadata of " + filename),
            "record_sha256": digest("record of " + filename) if name.is_wheel else None,
        }
        index = self.key_index(by, name.project, namespace)
        added = {"uploader": uploader, "key_index": index, "identity": None}
        return self.entry(
            "publish",
            filename,
            said | dict(predicate or {}),
            added | dict(registry or {}),
            by,
            sha256=digest(content or filename),
        )

    def about(
        self,
        kind: str,
        filename: str,
        *signers: Signer,
        side: str,
        says: Mapping[str, Any],
        adds: Mapping[str, Any],
        namespace: str = "",
        predicate: Mapping[str, Any] | None = None,
        registry: Mapping[str, Any] | None = None,
        subject: str | None = None,
        content: str | None = None,
    ) -> Entry:
        """An entry about a file, at the head of the owner's or the registry's side."""
        file = self.file(filename, namespace)
        said = {
            "namespace": namespace,
            "project": parse_filename(filename).project,
            "prev": file[f"{side}_head"] if file else "00" * 32,
        }
        return self.entry(
            kind,
            subject or filename,
            said | dict(says) | dict(predicate or {}),
            dict(adds) | dict(registry or {}),
            *signers,
            sha256=digest(content or filename),
        )

    def attest(self, filename: str, *, by: Signer = REGISTRY_KEY, **more: Any) -> Entry:
        file = self.file(filename, more.get("namespace", ""))
        says = {"about": file["lh"] if file else "00" * 32, "statement_sha256": digest("x"), "kind": "pep740"}
        return self.about("attest", filename, by, side="owner", says=says, adds={"verified": "yes"}, **more)

    def owner_act(
        self,
        kind: str,
        filename: str,
        *,
        by: Signer = REGISTRY_KEY,
        actor: str | None = ALICE,
        reason: str = "other",
        **more: Any,
    ) -> Entry:
        """yank, unyank, remove"""
        says, adds = {"reason": reason}, {"actor": actor}
        return self.about(kind, filename, by, side="owner", says=says, adds=adds, **more)

    def verdict(self, filename: str, tier: str = "none", *, by: Signer = SCANNER_KEY, **more: Any) -> Entry:
        says = {
            "tier": tier,
            "classification": "no-findings" if tier == "none" else "threat",
            "confidence": "high",
            "ruleset_sha256": digest("rules"),
            "analyzers": [{"name": "archive", "version": "1"}],
            "findings_sha256": None,
        }
        return self.about("verdict", filename, by, side="registry", says=says, adds={}, **more)

    def decision(
        self,
        kind: str,
        filename: str,
        *,
        by: Signer = MODERATION_KEY,
        moderator: str | None = MODERATOR,
        **more: Any,
    ) -> Entry:
        """hold, clear, takedown"""
        reason = {"hold": "report", "clear": "reviewed", "takedown": "malware"}[kind]
        says = {"reason": reason, "about": None, "evidence_sha256": None}
        adds = {"case": None, "moderator": moderator}
        return self.about(kind, filename, by, side="registry", says=says, adds=adds, **more)

    def enroll_role(self, scope: str, signer: Signer, *signers: Signer, **more: Any) -> Entry:
        head = self.view.get(AUTHORITY)["head"] if self.view.get(("role", scope)) else None
        return self._enroll(
            signer,
            *(signers or (signer, AUTHORITY_KEY)),
            says={"prev": head, "scope": scope},
            adds={"authorised_by": "authority", "account": None},
            **more,
        )

    def enroll(
        self,
        project: str,
        signer: Signer,
        account: str,
        *authorised: Signer,
        namespace: str = "",
        threshold: int = 1,
        valid_for: int | None = None,
        **more: Any,
    ) -> Entry:
        """First or recovered (nobody else signs), or rotated by the keys in `authorised`."""
        holder = self.project(project, namespace)
        by: str | int | None = "registry"
        if authorised:
            by = self.key_index(authorised[0], project, namespace)
        return self._enroll(
            signer,
            *(signer, *authorised),
            says={
                "namespace": namespace,
                "project": project,
                "prev": holder["head"] if holder else None,
                "scope": "project" if project else "namespace",
                "threshold": threshold,
                "valid_for": valid_for,
            },
            adds={"authorised_by": "registry" if by is None else by, "account": account},
            **more,
        )

    def _enroll(
        self,
        signer: Signer,
        *signers: Signer,
        says: Mapping[str, Any],
        adds: Mapping[str, Any],
        predicate: Mapping[str, Any] | None = None,
        registry: Mapping[str, Any] | None = None,
    ) -> Entry:
        key = base64.b64encode(signer.public_key).decode()
        said = {"key": key, "threshold": 1, "valid_for": None} | dict(says) | dict(predicate or {})
        added = {"identity": None} | dict(adds) | dict(registry or {})
        return self.entry("key-enroll", f"key:{signer.keyid}", said, added, *signers)

    def revoke(
        self,
        project: str,
        signer: Signer,
        by: Signer,
        *,
        namespace: str = "",
        since: int | None = None,
        actor: str | None = ALICE,
        **predicate: Any,
    ) -> Entry:
        role = not project and not namespace
        head = self.view.get(AUTHORITY) if role else self.project(project, namespace)
        said = {
            "namespace": namespace,
            "project": project,
            "prev": head["head"] if head else None,
            "keyid": signer.keyid,
            "reason": "retired" if since is None else "compromised",
            "compromised_since": since,
        }
        return self.entry("key-revoke", f"key:{signer.keyid}", said | predicate, {"actor": actor}, by)

    def owner(
        self,
        project: str,
        action: str,
        *signers: Signer,
        account: str | None = None,
        role: str | None = None,
        actor: str | None = ALICE,
        second: str | None = None,
        namespace: str = "",
        **predicate: Any,
    ) -> Entry:
        holder = self.project(project, namespace)
        said = {
            "namespace": namespace,
            "project": project,
            "prev": holder["head"] if holder else None,
            "action": action,
            "account": account,
            "role": role,
        }
        subject = f"project:{project}" if project else f"namespace:{namespace}"
        return self.entry("owner", subject, said | predicate, {"actor": actor, "second": second}, *signers)

    def approve(
        self,
        project: str,
        version: str,
        by: Signer,
        approver: str | None = ALICE,
        *,
        decision: str = "approve",
        namespace: str = "",
        files: Mapping[str, str] | None = None,
        **predicate: Any,
    ) -> Entry:
        """A decision about the files of a release that wait, or about these (by name, their SHA-256)."""
        release = self.view.get(("release", namespace, project, version)) or {"files": {}, "head": None}
        listed = files.items() if files is not None else map(tuple, release["files"].values())
        said = {
            "namespace": namespace,
            "project": project,
            "prev": release["head"],
            "version": version,
            "files_sha256": files_digest(listed),
            "decision": decision,
        }
        return self.entry("approve", f"project:{project}", said | predicate, {"approver": approver}, by)

    def require(
        self,
        project: str,
        needed: int,
        *signers: Signer,
        actor: str | None = ALICE,
        namespace: str = "",
        **predicate: Any,
    ) -> Entry:
        """How many people must approve a release from now on."""
        holder = self.project(project, namespace)
        prev = holder["head"] if holder else None
        said = {"namespace": namespace, "project": project, "prev": prev, "needed": needed}
        subject = f"project:{project}" if project else f"namespace:{namespace}"
        return self.entry("require-approvals", subject, said | predicate, {"actor": actor}, *signers)

    def trust(self, project: str, *signers: Signer, **more: Any) -> Entry:
        """trusted-publisher; its makers stand in tests/cimaker.py."""
        from tests.cimaker import trust

        return trust(self, project, *signers, **more)

    def tuf(
        self, *, by: Signer = REGISTRY_KEY, publish: bool = True, subject: str | None = None, **predicate: Any
    ) -> Entry:
        """The next publish of metadata, or (publish=False) a heartbeat; the first one has every role."""
        log = self.view.get(rules.LOG)
        tuf = log["tuf"]
        snapshot = (tuf["versions"]["snapshot"] if tuf else 0) + publish
        said: dict[str, Any] = dict.fromkeys(("root", "trust", "index", "targets", "snapshot"))
        if tuf is None:
            said = {role: metadata(role, 1) for role in said}
        elif publish:
            said["snapshot"] = metadata("snapshot", snapshot)
        said |= {
            "prev": tuf["head"] if tuf else None,
            "timestamps": [] if publish else [digest(f"timestamp {self.size}")],
            "bins_old": tuf["bins"] if tuf else None,
            "bins_new": digest(f"bins {self.size}") if publish else tuf["bins"],
            "changed_sha256": digest(f"changed {self.size}") if publish else None,
            "applied": self.size,
        }
        said |= predicate
        if subject is None:
            subject = f"tuf:{said['snapshot']['version'] if said['snapshot'] else snapshot}"
        return self.entry("tuf", subject, said, {}, by)

    def freeze(self, *, by: Signer = MODERATION_KEY, **predicate: Any) -> Entry:
        """The log's last entry."""
        tuf = self.view.get(rules.LOG)["tuf"]
        says = {"reason": "successor", "prev": tuf["head"] if tuf else None} | predicate
        return self.entry("log-freeze", f"log:{ORIGIN}", says, {"case": None}, by)

    def predecessor(
        self, *, by: Signer = AUTHORITY_KEY, log: str = "old.example/log", **predicate: Any
    ) -> Entry:
        """A successor's first entry."""
        says = {"log": log, "tree_size": 7, "root_hash": digest("old")} | predicate
        return self.entry("predecessor", f"log:{log}", says, {}, by)

    def import_(self, *filenames: str, by: Signer = REGISTRY_KEY, **predicate: Any) -> Entry:
        """The import of these files, in this order."""
        lines = [line_of(name) for name in filenames]
        before = self.view.get(rules.LOG).get("import")
        prev = before["head"] if before else None
        said = manifest.predicate(lines, origin=ORIGIN, prev=prev, source="old.example") | predicate
        entry = self.entry("import", f"import:{said['manifest_sha256']}", said, {}, by)
        self.manifests[entry.leaf_hash.hex()] = lines
        return entry

    def line(self, at: int | None = None, **changes: Any) -> Entry:
        """The leaf of a line of the open import, the next one unless told; `changes` replace what it says."""
        opened = self.view.get(rules.LOG)["import"]
        lines = self.manifests[opened["head"]]
        number = at or opened["line"]
        rest = links([line.row for line in lines])[number]
        imported = Imported(lines[number - 1], opened["index"], number, rest, None)
        passed = why_passed_over(self.view, imported.line, self.time)
        return make_imported(replace(imported, **({"passed": passed} | changes)), time=self.time)


def line_of(filename: str, content: str | None = None) -> Line:
    """The manifest's line of a file, its length and digest those that `publish` gives it."""
    name = parse_filename(filename)
    return Line(name.project, name.version, filename, digest(content or filename), 1000 + len(filename))


def metadata(role: str, version: int) -> dict[str, Any]:
    return {"length": 500 + version, "sha256": digest(f"{role} {version}"), "version": version}


def samples() -> dict[str, tuple[DictView, Entry]]:
    """One allowed entry of every type, each with a copy of the state before it."""
    alice, bob = ed25519_signer("alice"), p256_signer("bob")
    wheel = "acme-1.0-py3-none-any.whl"
    world = World()
    found: dict[str, tuple[DictView, Entry]] = {}

    def keep(entry: Entry) -> None:
        before = DictView()
        for key, value in world.view.items():
            before.put(key, value)
        found[entry.type] = (before, entry)
        world.accept(entry)

    keep(world.tuf())
    world.accept(world.enroll("acme", alice, ALICE))
    keep(world.enroll("acme", bob, ALICE, alice, valid_for=10_000))
    keep(world.publish(wheel, by=bob))
    keep(world.attest(wheel, by=alice))
    keep(world.verdict(wheel))
    keep(world.decision("hold", wheel))
    keep(world.decision("clear", wheel))
    keep(world.owner_act("yank", wheel, by=alice))
    keep(world.owner_act("unyank", wheel, by=alice))
    keep(world.decision("takedown", wheel))
    keep(world.owner_act("remove", wheel, by=alice))
    keep(world.owner("acme", "add", alice, account=BOB, role="maintainer"))
    keep(world.trust("acme", alice))
    keep(world.revoke("acme", bob, alice, since=5))
    keep(world.import_("old-1.0.tar.gz", "old-2.0.tar.gz"))
    keep(world.require("acme", 1, alice))
    world.accept(world.publish("acme-2.0.tar.gz", by=alice))
    keep(world.approve("acme", "2.0", alice))
    keep(world.freeze())
    world = World(roles=False)
    keep(world.predecessor())
    return found


def replay_pinned(name: str) -> tuple[list[bytes], list[list[Any]]]:
    """A pinned log's leaves and what its replay finds, [index, code, party]; size, findings, state are as pinned."""
    expected = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    log = (VECTORS / f"{name}.leaves").read_bytes().splitlines()
    findings: list[Finding] = []
    view = DictView()
    view.apply(rules.genesis(origin=ORIGIN, authority_key=AUTHORITY_KEY.public_key))
    replay(log, view, on_finding=findings.append)
    found = [[finding.index, finding.broken.code, finding.broken.party] for finding in findings]
    pinned = (expected["size"], expected["findings"], expected["state_sha256"])
    assert (len(log), found, view.digest()) == pinned
    return log, found
