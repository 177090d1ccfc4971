"""A registry that serves its own files, as somebody's namespace in a simulated log: its key, its publishes, its acts.

corp = Elsewhere(world, "corp")                # enrols the namespace's key
file = corp.publish("acme-demo", "1.0")        # a signed statement; nobody hands in bytes
corp.revoke(since=file.index)
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from countermark.clientpolicy import ClientPolicy, LogOnly, Policies
from countermark.entry import make_entry
from countermark.errors import CountermarkError
from countermark.logged import Logged
from countermark.logonly import LogOnlyReport, verify_log_only
from countermark.rules import file_key, holder_key
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.verified import Artifact
from tests.machine import Machine
from tests.simulator import Published, World, signing_key

MODERATOR = "0d" * 16


class Elsewhere:
    """One namespace and who owns it."""

    def __init__(
        self, world: World, namespace: str, *, account: str = "", valid_for: int | None = None
    ) -> None:
        self.world, self.namespace = world, namespace
        self.key = KeySigner(signing_key(f"key of {namespace}"))
        self.account = account or hashlib.sha256(namespace.encode()).hexdigest()[:32]
        self.index = self.enrol(self.key, prev=None, valid_for=valid_for)

    def _said(self, project: str = "", **members: Any) -> dict[str, Any]:
        return {"namespace": self.namespace, "origin": self.world.origin, "project": project, **members}

    def enrol(
        self, key: KeySigner, *, prev: str | None, valid_for: int | None = None, raw: bool = False
    ) -> int:
        """A key of the namespace; `raw` puts it past the rules."""
        public = base64.b64encode(key.public_key).decode()
        said = self._said(prev=prev, key=public, scope="namespace", threshold=1, valid_for=valid_for)
        registry = {"account": self.account, "authorised_by": "registry", "identity": None}
        envelope = sign(Statement.about(f"key:{key.keyid}", "key-enroll", said), key)
        return self.put("key-enroll", envelope, registry, raw=raw)

    def publish(
        self,
        project: str = "acme-demo",
        version: str = "1.0",
        *,
        data: bytes | None = None,
        key: KeySigner | None = None,
        key_index: int | None = None,
        raw: bool = False,
    ) -> Published:
        """A wheel's statement; `raw` puts it into the log past the rules."""
        filename = f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        data = data or f"{project} {version} of {self.namespace}".encode()
        said = self._said(
            project,
            prev=None,
            version=version,
            length=len(data),
            metadata_sha256="00" * 32,
            record_sha256="11" * 32,
        )
        statement = Statement(filename, hashlib.sha256(data).hexdigest(), "publish", said)
        registry = {
            "identity": None,
            "key_index": self.index if key_index is None else key_index,
            "uploader": self.account,
        }
        index = self.put("publish", sign(statement, key or self.key), registry, raw=raw)
        return Published(project, version, filename, data, index)

    def revoke(
        self, *, since: int | None, reason: str = "compromised", signer: KeySigner | None = None
    ) -> int:
        """The namespace's key is revoked."""
        state = self.world.view.get(holder_key(self.namespace, ""))
        assert state is not None
        said = self._said(prev=state["head"], keyid=self.key.keyid, reason=reason, compromised_since=since)
        statement = Statement.about(f"key:{self.key.keyid}", "key-revoke", said)
        return self.world.append("key-revoke", sign(statement, signer or self.key), {"actor": self.account})

    def act(self, kind: str, file: Published, reason: str) -> int:
        """The owner yanks, unyanks or removes."""
        said = self._said(file.project, prev=self._state(file)["owner_head"], reason=reason)
        statement = Statement(file.filename, file.sha256, kind, said)
        return self.world.append(kind, sign(statement, self.key), {"actor": self.account})

    def decide(self, kind: str, file: Published, reason: str) -> int:
        """A moderator holds, clears or takes down."""
        said = self._said(
            file.project,
            prev=self._state(file)["registry_head"],
            about=None,
            evidence_sha256=None,
            reason=reason,
        )
        statement = Statement(file.filename, file.sha256, kind, said)
        registry = {"case": None, "moderator": MODERATOR}
        return self.world.append(kind, sign(statement, self.world.keys.moderation), registry)

    def put(self, kind: str, envelope: Envelope, registry: dict[str, Any], *, raw: bool = False) -> int:
        if not raw:
            return self.world.append(kind, envelope, registry)
        entry = make_entry(type=kind, envelope=envelope, registry=registry, time=self.world.now)
        return self.world.append_raw(entry.raw)

    def look_up(self, file: Published) -> str:
        """The path of the door that is asked where this file is."""
        return f"/api/v1/logged/{self.namespace}/{file.project}/{file.filename}"

    def _state(self, file: Published) -> dict[str, Any]:
        state = self.world.view.get(file_key(self.namespace, file.project, file.filename))
        assert state is not None
        return state


class LogOnlyMachine(Machine):
    """A machine whose policy says that the log is enough for the namespace corp."""

    def __init__(
        self, folder: Path, world: World, *, enough: tuple[LogOnly, ...] = (LogOnly("corp"),)
    ) -> None:
        super().__init__(folder, world)
        self.policies = Policies(local=ClientPolicy(log_only=enough))

    def check(
        self, *files: Published | Artifact, namespace: str = "corp", world: World | None = None
    ) -> LogOnlyReport:
        world = world or self.world
        artifacts = [each if isinstance(each, Artifact) else held(each, namespace) for each in files]
        return verify_log_only(
            artifacts, namespace, self.registry, world, now=world.now, policies=self.policies
        )

    def log_only(self, *files: Published | Artifact, world: World | None = None) -> LogOnlyReport:
        """Expect that all are logged and accepted, and that nothing says verified."""
        report = self.check(*files, world=world)
        assert report.exit_code == 0, report.to_json()
        assert all(isinstance(outcome, Logged) for outcome in report.outcomes)
        assert report.to_json()["verified"] is False
        return report

    def refuse_log_only(
        self, code: int, words: str, *files: Published | Artifact, world: World | None = None
    ) -> CountermarkError:
        """Expect this refusal; after evidence nothing was learned."""
        before = self.snapshot()
        try:
            report = self.check(*files, world=world)
        except CountermarkError as found:
            error = found
        else:
            failed = [outcome for outcome in report.outcomes if outcome.exit_code]
            assert failed, report.to_json()
            assert report.exit_code == failed[0].exit_code
            first = failed[0]
            found_error = first.finding if isinstance(first, Logged) else first.error
            assert found_error is not None
            error = found_error
        assert (error.exit_code, words in str(error)) == (code, True), f"{error.exit_code}: {error}"
        if code == 7:
            assert self.evidence(), "no evidence file was written"
            assert self.snapshot() == before, "a refusal changed something"
        return error


def held(file: Published, namespace: str) -> Artifact:
    """The file as somebody holds it who says that it is of this namespace."""
    return Artifact(
        file.project, file.version, file.filename, file.sha256, len(file.data), namespace=namespace
    )
