"""A registry at whose doors CI jobs knock: tests/doors.py, an issuer on loopback, a project that trusts a job."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.test import TestResponse

from countermark.machine import TRUSTED, publisher_id
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark_server.app import create_app
from countermark_server.settings import Ci
from tests.doors import DoorWorld, Person
from tests.jobissuer import JobIssuer
from tests.log_world import ORIGIN

TRUSTS = {
    "ref": "refs/tags/*",
    "repository": "acme/widgets",
    "repository_id": "4711",
    "workflow": "release.yml",
}


class JobWorld(DoorWorld):
    """Its clock is the true one, since tokens are of this moment."""

    def __init__(self, folder: Path, issuer: JobIssuer, *, kind: str = "github", **more: Any) -> None:
        super().__init__(folder, **more)
        self.issuer = issuer
        self.clock.now = int(time.time())
        self.settings = replace(self.settings, ci=Ci(issuers=f"{kind}={issuer.url}"))
        self.app = self.another_worker()
        self.client = self.app.test_client()

    def another_worker(self) -> Any:
        """The same registry in a web process of its own."""
        return create_app(
            self.settings, clock=self.clock, engine=self.engine, registry=self.roles["registry"]
        )

    def job(self, **changes: Any) -> str:
        """A token of the job that `trusted` trusts."""
        return self.issuer.sign(self.issuer.github(ORIGIN, self.clock(), **changes))

    def mint(self, token: Any, client: Any = None) -> TestResponse:
        answer: TestResponse = (client or self.client).post("/_/oidc/mint-token", json={"token": token})
        return answer

    def say(
        self, person: Person, project: str, *, action: str = "add", key: KeySigner | None = None, **said: Any
    ) -> Any:
        """Ask for a trusted publisher, or for its end."""
        trusts = {"issuer": self.issuer.url, **TRUSTS, **said}
        answer = self.client.get(f"/api/v1/projects/{project}").get_json()
        predicate = {
            **{name: trusts[name] for name in TRUSTED},
            **{
                "action": action,
                "namespace": "",
                "origin": ORIGIN,
                "prev": answer["prev"],
                "project": project,
            },
        }
        statement = Statement.about(f"publisher:{publisher_id(trusts)}", "trusted-publisher", predicate)
        envelope = sign(statement, key or person.key)
        return self.client.post(
            "/api/v1/entries",
            json={"envelope": envelope.to_dict()},
            headers={"Authorization": f"Bearer {person.session}"},
        )

    def trusted(self, project: str = "demo") -> Person:
        """Somebody whose project has a key and trusts the job."""
        ada = self.person("ada")
        assert ada.enrol(project).status_code == 200
        done = self.say(ada, project)
        assert done.status_code == 200, done.get_json()
        return ada

    def enrolment(self, project: str, run: KeySigner, **changes: Any) -> Envelope:
        """What a job signs with its key of one run."""
        publishers = self.client.get(f"/api/v1/projects/{project}").get_json()["publishers"]
        predicate: Mapping[str, Any] = {
            "key": base64.b64encode(run.public_key).decode(),
            "namespace": "",
            "origin": ORIGIN,
            "prev": publishers[-1]["leaf_hash"] if publishers else None,
            "project": project,
            "scope": "ci",
            "threshold": 1,
            "valid_for": 900,
            **changes,
        }
        return sign(Statement.about(f"key:{run.keyid}", "key-enroll", predicate), run)

    def enrol_job(self, token: str, *envelopes: Envelope) -> TestResponse:
        body = {"token": token, "envelopes": [each.to_dict() for each in envelopes]}
        answer: TestResponse = self.client.post("/_/oidc/enrol-keys", json=body)
        return answer


def one_run() -> KeySigner:
    """A key that nobody has seen."""
    return KeySigner(Ed25519PrivateKey.generate())
