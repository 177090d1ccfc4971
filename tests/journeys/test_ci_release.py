"""A release from a CI job without a stored secret: real programs, real uv, TLS by nginx under a private authority."""

from __future__ import annotations

import json
import re
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients.pinned import executable
from tests.deploy.front import Front
from tests.deploy.privateca import make_certificate
from tests.jobissuer import JobIssuer, running
from tests.sigstoreworld import GITHUB, Change, SigstoreWorld, b64
from tests.world.typist import Page, Typist
from tests.world.world import World, as_json, free_port

DOCS = Path(__file__).parents[2] / "docs"
PROJECT = "hello-countermark"
WHEEL = "hello_countermark-1.0.0-py3-none-any.whl"
SIGSTORE = SigstoreWorld()
SAID_SECONDS = 60  # for the scan to load a large library, look, and for the log to say it


@dataclass
class JobWorld(World):
    """A registry that knows an issuer, and a job that has nothing but what its CI system gives it."""

    issuer: JobIssuer | None = None  # GitLab
    github: JobIssuer | None = None
    job: dict[str, str] = field(default_factory=dict)  # the variables of the job that runs now

    def env(self, home: str = "home", **extra: str) -> dict[str, str]:
        return super().env(home, **self.job, **extra)

    def token(self, **changes: str) -> str:  # type: ignore[override]
        """A fresh token for a job of acme/widgets on GitLab."""
        assert self.issuer is not None
        return self.issuer.sign(self.issuer.gitlab(self.origin, **changes))

    def begin_job(self, **changes: str) -> None:
        """What GitLab puts into a job's environment: two tokens, one to sign with and one to upload with."""
        named = re.sub(r"[^A-Z0-9]", "_", self.origin.upper()) + "_ID_TOKEN"
        self.job = {
            "CI": "true",
            "GITLAB_CI": "true",
            "COUNTERMARK_SIGN_ID_TOKEN": self.token(**changes),
            named: self.token(**changes),
        }

    def begin_github_job(self, **changes: str) -> None:
        """What GitHub puts there: where the job asks for as many tokens as it wants, and its secret for that."""
        assert self.github is not None
        github = self.github
        self.job = {"CI": "true", **github.begin_job(lambda audience: github.github(audience, **changes))}

    def end_job(self) -> None:
        self.job = {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobWorld]:
    """One registry for both; each releases a project of its own."""
    tmp_path = tmp_path_factory.mktemp("ci-release")
    with running() as issuer, running() as github:
        issuers = f"gitlab={issuer.url} github={github.url}"
        root = tmp_path / "trusted_root.json"
        root.write_bytes(SIGSTORE.trusted_root())
        settings = {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2", "COUNTERMARK_CI_ISSUERS": issuers}
        settings["COUNTERMARK_SCAN_SIGSTORE_ROOT"] = str(root)
        with JobWorld(
            tmp_path / "world", origin="registry.test/trial", settings=settings, issuer=issuer, github=github
        ) as world:
            world.up("--trial")
            yield world


def words(world: World) -> str:
    return world.words(world.data / "ceremony")


def add_publisher(world: JobWorld, project: str) -> None:
    """What an owner does once, on a machine of their own."""
    assert world.github is not None
    options = {
        "issuer": world.github.url,
        "repository": "acme/widgets",
        "repository-id": "4711",
        "workflow": "release.yml",
        "ref": "refs/tags/*",
    }
    named = [word for name, value in options.items() for word in (f"--{name}", value)]
    world.run("countermark", "trusted-publisher", "add", project, *named, "--yes")


def test_uv_publishes_from_a_job_over_tls(world: JobWorld, tmp_path: Path) -> None:
    """On GitHub: `sign --ci`, then `uv publish --trusted-publishing always`, each with a token that it asked for.

    Listed, verified, and the job stands in clear; nothing is left on its machine. Beside each file uv sends a
    Sigstore attestation of the same job: one holds, and the signature of the other is false.
    """
    authority, chain, key = make_certificate(tmp_path)
    port = free_port()
    web = f"127.0.0.1:{world.port}"
    front = Front(tmp_path / "nginx", port, world.data / "public", web, certificate=(chain, key))
    world.login("carol", words(world))
    world.run("countermark", "key", "new")
    add_publisher(world, "released-by-uv")
    files = sorted(
        path for path in world.project("released-by-uv", "1.0.0").iterdir() if path.suffix in (".whl", ".gz")
    )
    world.run("countermark", "trust", "add", world.url, "--root-words", words(world), home="job")
    uv = ("publish", "--no-config", "--trusted-publishing", "always", "--publish-url")
    door = f"https://localhost:{port}/legacy/"
    with front.running():
        world.begin_github_job(ref="refs/pull/1/merge")
        refused = world.run(
            executable("uv"), *uv, door, *files, home="job", expect=None, SSL_CERT_FILE=str(authority)
        )
        assert refused.code != 0 and "job-pull-request" in refused.said, refused.said
        world.begin_github_job()
        world.run("countermark", "sign", "--ci", "--allow-trial", *files, home="job")
        attest(world, files[1])
        attest(world, files[0], item=lambda made: made["envelope"].update(signature=b64(b"false" * 14)))
        sent = sorted(files[0].parent.iterdir())  # with the attestations: `dist/*`
        done = world.run(executable("uv"), *uv, door, *sent, home="job", SSL_CERT_FILE=str(authority))
        assert "could not be invalidated" not in done.said, done.said
    assert not list((world.root / "job" / "countermark").glob("keys/*"))  # nothing is left on that machine
    assert not list((world.root / "job" / "countermark").glob("registries/*/session.json"))
    world.end_job()
    world.run("countermark", "status", "--wait", *files)
    for result in as_json(world.run("countermark", "verify", "--json", *files))["artifacts"]:  # type: ignore[attr-defined]
        assert result["verified"] is True
        assert "by a job of acme/widgets, release.yml at refs/tags/v1.0" in result["signed_by"]["sentence"]
        assert "identity as checked by the registry" in result["signed_by"]["sentence"]
    false, true = (said_of(world, path) for path in files)
    assert (true["verified"], true["reason"]) == ("yes", None)
    assert true["identity"]["repository"] == "acme/widgets"
    assert true["publisher_index"] is not None  # the entry of `trusted-publisher add`
    assert false["verified"] == "no"
    assert "signature" in false["reason"]
    handed = json.loads(world.get(provenance_of(files[1])))
    assert [each["publisher"]["claims"]["checked"] for each in handed["attestation_bundles"]] == [True]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        world.get(provenance_of(files[0]))
    world.run("countermark", "audit", world.url)


def attest(world: JobWorld, file: Path, item: Change | None = None) -> None:
    """Lay a Sigstore attestation of the job beside a file, where upload tools look for it."""
    assert world.github is not None
    job = {**GITHUB, "issuer": world.github.url, "repository": "acme/widgets"}
    made = SIGSTORE.attest(file.name, file.read_bytes(), identity=job, item=item)
    file.with_name(f"{file.name}.slsa.attestation").write_text(json.dumps(made), encoding="utf-8")


def said_of(world: JobWorld, file: Path) -> Any:
    """What the registry says of a file's one attestation, once the log says it."""
    deadline = time.monotonic() + SAID_SECONDS
    while True:
        (said,) = json.loads(world.get(f"/api/v1/files/released-by-uv/{file.name}"))["attestations"]
        if said["verified"] != "pending":
            return said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def provenance_of(file: Path) -> str:
    return f"/integrity/released-by-uv/1.0.0/{file.name}/provenance"


def test_the_tutorial_as_a_new_user_types_it(world: JobWorld) -> None:
    """Trust once, publish from a job, be refused from a merge request, look at it, take it back."""
    assert world.issuer is not None
    text = (
        (DOCS / "tutorials" / "ci-release.md")
        .read_text("utf-8")
        .replace("https://gitlab.com", world.issuer.url)
    )
    work = world.root / "work"
    work.mkdir()
    world.project(PROJECT, "1.0.0").rename(work / "dist")

    def at_a_job(**changes: str) -> None:
        world.begin_job(**changes)
        del world.job["CI"]  # a trial registry, which CI refuses
        typist.home = "job"

    def over() -> None:
        world.end_job()
        typist.home = "alice-home"

    def at_a_merge_request() -> None:
        files = sorted((work / "dist").glob("*.whl"))
        again = world.run("countermark", "sign", "--ci", *files, home="job", expect=5)
        assert "was used before" in again.said  # GitLab gives a job its token once
        at_a_job(ref_path="refs/merge-requests/1/head")

    elsewhere = {
        "a job for the tag v1.0": at_a_job,
        "a job for a merge request": at_a_merge_request,
        "the job is over": over,
    }
    typist = Typist(world, Page.parse("ci-release", text), words(world), "alice-home", work, elsewhere)
    typist.type()
    assert not list((world.root / "job" / "countermark").glob("keys/*"))
