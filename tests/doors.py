"""The registry's doors over a real log: the application of app.py, a sequencer and a witness, in one process.

`DoorWorld.run()` keeps the log working in a thread, so an upload is answered with a real proof. `state()` is
everything a refusal must leave untouched: rows, blobs and the public tree.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient
from sqlalchemy import select, update
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark_server import db, serials
from countermark_server.accounts import codes, people, tokens
from countermark_server.app import create_app
from countermark_server.ruleview import SqlView
from countermark_server.settings import Access, Limits, Registry, Upload, Web
from tests.archives import metadata, record
from tests.log_world import ORIGIN, LogWorld

BASE_URL = "http://registry.test"


class DoorWorld(LogWorld):
    """A registry in `folder` whose log has its genesis published."""

    def __init__(
        self,
        folder: Path,
        *,
        wait: float = 10.0,
        upload: Upload | None = None,
        limits: Limits | None = None,
        access: Access | None = None,
        raw_add: bool = False,
    ) -> None:
        super().__init__(folder, raw_add=raw_add)
        self.is_at_work = False  # the log
        self.settings = replace(
            self.settings,
            registry=Registry(origin=ORIGIN, base_url=BASE_URL),
            web=Web(wait=wait),
            upload=upload or Upload(),
            limits=limits or Limits(),
            access=access or Access(),
        )
        self.create()
        if not raw_add:
            self.propose("tuf", self.tuf())
        self._adopt()
        self.app = create_app(
            self.settings, clock=self.clock, engine=self.engine, registry=self.roles["registry"]
        )
        self.client: FlaskClient = self.app.test_client()

    def _adopt(self) -> None:
        raw = self.trust.format()
        digest = hashlib.sha256(raw).hexdigest()
        named = {"signed": {"targets": {"trust/trust.json": {"hashes": {"sha256": digest}}}}}
        self.public.put(f"tuf/targets/trust/{digest}.trust.json", raw)
        self.public.put("tuf/1.trust.json", json.dumps(named).encode())
        self.public.put("tuf/1.root.json", json.dumps({"signed": {"x-countermark-trial": True}}).encode())

    @contextmanager
    def run(self) -> Iterator[DoorWorld]:
        """The log at work, for the length of the block."""
        stop, log = threading.Event(), self.station()
        log.check_start()
        thread = threading.Thread(target=log.work, args=(stop,), kwargs={"poll_interval": 0.001})
        thread.start()
        self.is_at_work = True
        self.quiet()
        try:
            yield self
        finally:
            self.is_at_work = False
            stop.set()
            thread.join()

    def quiet(self) -> None:
        """Wait until the log has nothing left to do: all told, staging dropped."""
        for _ in range(2000):
            with db.read(self.engine) as connection:
                states = set(connection.execute(select(db.proposal.c.state)).scalars())
            if states <= {"published", "refused"} and self.head().staging is None:
                return
            time.sleep(0.005)
        raise AssertionError(f"the log did not come to rest: proposals are {states}")

    # --- people ---------------------------------------------------------------------------------------
    def person(self, login: str) -> Person:
        """An account, signed in."""
        now = int(self.clock())
        with db.write(self.engine) as connection:
            account = people.add_account(connection, login, now=now)
            session = tokens.issue_token(
                connection, account.id, tokens.SESSION, now=now, expires=now + tokens.SESSION_SECONDS
            )
            upload = tokens.issue_token(connection, account.id, tokens.UPLOAD, now=now, expires=None)
        return Person(self, account.id, login, session, upload)

    def login_code(self, login: str) -> str:
        with db.write(self.engine) as connection:
            return codes.create_login_code(connection, login, now=int(self.clock()))

    # --- asking ---------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Everything that a refusal must leave as it was. When staging is tidied up is the log's own business.

        Statements are answered before the log has written down that they are public, so it is waited for.
        """
        if self.is_at_work:
            self.quiet()
        rows = self.rows()
        rows["head"] = [row[:4] for row in rows["head"]]
        del rows["token_use"]  # that a token was used is noted also when the request is refused
        files = {name: data for name, data in self.files().items() if not name.startswith("staging/")}
        return {"rows": rows, "files": files}

    def set_state(self, filename: str, **columns: Any) -> None:
        """Move a row by hand, as the stations behind the log would."""
        with db.write(self.engine) as connection:
            query = select(db.submission.c.project).where(db.submission.c.served_name == filename)
            serials.touch(connection, connection.execute(query).scalars(), now=int(self.clock()))
            done = connection.execute(
                update(db.submission).where(db.submission.c.served_name == filename).values(**columns)
            )
        assert done.rowcount == 1

    def decide(self, kind: str, filename: str, **predicate: Any) -> int:
        """An entry about a published file, by who may sign it; its index once it is public."""
        (row,) = [row for row in self.submissions() if row["served_name"] == filename]
        with db.read(self.engine) as connection:
            key = ("file", "", row["project"], row["filename"])
            file = SqlView(connection, db.rules_state).get(key)
        assert file is not None
        owners = kind in ("yank", "unyank", "remove")
        binding = {
            "origin": ORIGIN,
            "namespace": "",
            "project": row["project"],
            "prev": file["owner_head" if owners else "registry_head"],
        }
        statement = Statement(filename, row["sha256"], kind, {**binding, **predicate})
        registry: dict[str, Any] = {"actor": row["uploader"]}
        if not owners:
            registry = {"case": None, "moderator": "ff" * 16}
        signer = self.roles["registry" if owners else "moderation"]
        asked = self.propose(kind, sign(statement, signer).to_dict(), registry)
        self.quiet()
        outcome = self.outcome(asked)
        assert outcome.index is not None, outcome
        return outcome.index

    def submissions(self) -> list[dict[str, Any]]:
        with db.read(self.engine) as connection:
            return [dict(row) for row in connection.execute(select(db.submission)).mappings()]


class Person:
    """Somebody with an account, a session, an upload token and a key."""

    def __init__(self, world: DoorWorld, account: str, login: str, session: str, token: str) -> None:
        self.world, self.account, self.login = world, account, login
        self.session, self.token = session, token
        self.key = KeySigner(Ed25519PrivateKey.generate())

    def upload(self, filename: str, data: bytes, *, token: str | None = None, **fields: Any) -> TestResponse:
        """What an upload tool sends."""
        token = self.token if token is None else token
        basic = base64.b64encode(f"__token__:{token}".encode()).decode()
        return self.world.client.post(
            "/legacy/",
            data=form(filename, data, **fields),
            headers={"Authorization": f"Basic {basic}"},
        )

    def attest(self, filename: str, data: bytes, *, key: KeySigner | None = None, **changes: Any) -> str:
        """The attestations field with a publish statement of ours."""
        return json.dumps([publish(filename, data, key or self.key, **changes).to_dict()])

    def enrol(
        self,
        project: str,
        *cosigners: KeySigner,
        key: KeySigner | None = None,
        token: str | None = None,
        **changes: Any,
    ) -> TestResponse:
        """Ask for a key to be enrolled."""
        envelope = enrolment(self.world, project, key or self.key, *cosigners, **changes)
        return self.world.client.post(
            "/api/v1/keys",
            json={"envelope": envelope.to_dict()},
            headers={"Authorization": f"Bearer {token or self.session}"},
        )


def form(filename: str, data: bytes, **fields: Any) -> MultiDict[str, Any]:
    """An honest upload form; a field given as None is left out."""
    project, version, filetype = _said(filename)
    values: dict[str, Any] = {
        ":action": "file_upload",
        "protocol_version": "1",
        "name": project,
        "version": version,
        "filetype": filetype,
        "sha256_digest": hashlib.sha256(data).hexdigest(),
        "blake2_256_digest": hashlib.blake2b(data, digest_size=32).hexdigest(),
        "content": (BytesIO(data), filename),
    }
    values.update({name.replace("action", ":action"): value for name, value in fields.items()})
    return MultiDict([(name, value) for name, value in values.items() if value is not None])


def publish(filename: str, data: bytes, key: KeySigner, **changes: Any) -> Envelope:
    """A publish statement about an archive of tests/archives.py; `changes` go into the predicate."""
    project, version, _ = _said(filename)
    inside = metadata(project, version)
    wheel = filename.endswith(".whl")
    files = {
        f"{project}/__init__.py": b"VALUE = 1\n",
        f"{project}-{version}.dist-info/METADATA": inside,
        f"{project}-{version}.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    digest = hashlib.sha256(record(files, f"{project}-{version}.dist-info/RECORD")).hexdigest()
    predicate = {
        "origin": ORIGIN,
        "namespace": "",
        "project": project,
        "prev": None,
        "version": version,
        "length": len(data),
        "metadata_sha256": hashlib.sha256(inside).hexdigest(),
        "record_sha256": digest if wheel else None,
    }
    subject = changes.pop("subject", filename)
    sha256 = changes.pop("sha256", hashlib.sha256(data).hexdigest())
    return sign(Statement(subject, sha256, "publish", {**predicate, **changes}), key)


def enrolment(
    world: DoorWorld, project: str, key: KeySigner, *cosigners: KeySigner, **changes: Any
) -> Envelope:
    """A key-enroll statement that follows what the registry says is the newest."""
    answer = world.client.get(f"/api/v1/projects/{project}").get_json()
    predicate: Mapping[str, Any] = {
        "origin": ORIGIN,
        "namespace": "",
        "project": project,
        "prev": answer["prev"],
        "key": base64.b64encode(key.public_key).decode(),
        "scope": "project",
        "valid_for": None,
        "threshold": 1,
        **changes,
    }
    return sign(Statement.about(f"key:{key.keyid}", "key-enroll", predicate), key, *cosigners)


def _said(filename: str) -> tuple[str, str, str]:
    wheel = filename.endswith(".whl")
    stem = filename if wheel else filename.removesuffix(".tar.gz").removesuffix(".zip")
    parts = stem.split("-")
    return parts[0], parts[1] if len(parts) > 1 else "1.0", "bdist_wheel" if wheel else "sdist"
