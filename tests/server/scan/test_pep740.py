"""PEP 740 attestations: verified in a sandboxed child, said by an entry of the log, not believed by presence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countermark.entry import Entry
from countermark_server.published import Published
from countermark_server.scan.pep740 import ABSENT as NO_CHECKER
from countermark_server.scan.pep740 import ATTEMPTS_MAX, TROUBLE_SECONDS, Checker
from countermark_server.settings import Scan
from tests.archives import wheel
from tests.attestations import ABSENT, BrokenChecker, attestations
from tests.doors import DoorWorld, Person
from tests.sigstoreworld import GITHUB, SigstoreWorld, T, b64

WHEEL = "demo-{}-py3-none-any.whl"
SIGSTORE = SigstoreWorld()
# What is false about it, and a word of the reason.
FALSE: dict[str, tuple[dict[str, Any], str]] = {
    "signature": ({"item": lambda i: i["envelope"].update(signature=b64(b"x" * 70))}, "invalid signature"),
    "expired chain": ({"begins": T - 3600}, "not valid at validation time"),
    "no inclusion proof": ({"entry": lambda e: e.pop("inclusionProof")}, "inclusionProof"),
    "no time": ({"entry": lambda e: e.pop("inclusionPromise")}, "inclusion promise"),
    "another tree": ({"entry": lambda e: e["inclusionProof"].update(hashes=[b64(bytes(32))])}, "root hash"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    (made.settings.data / "sigstore.json").write_bytes(SIGSTORE.trusted_root())
    made.settings = replace(made.settings, scan=Scan(sigstore_root="sigstore.json"))
    with made.run():
        yield made
    made.close()


@pytest.fixture(scope="module")
def checker(world: DoorWorld) -> Iterator[Checker]:
    made = Checker(world.settings)
    yield made
    made.close()


PEOPLE: dict[int, Person] = {}


def grace(world: DoorWorld) -> Person:
    """Whose project it is."""
    if id(world) not in PEOPLE:
        PEOPLE[id(world)] = world.person("grace")
    return PEOPLE[id(world)]


def upload(
    world: DoorWorld, version: str, items: list[Any] | None = None, **changes: Any
) -> tuple[str, bytes]:
    name, data = WHEEL.format(version), wheel(version=version)
    sent = items if items is not None else [SIGSTORE.attest(name, data, **changes)]
    assert grace(world).upload(name, data, attestations=json.dumps(sent)).status_code == 200
    return name, data


def work(world: DoorWorld, checker: Checker) -> None:
    checks = attestations(world, checker)
    checks.begin()
    while checks.round():
        world.quiet()
        world.clock.now += 1


def told(world: DoorWorld, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.client.get(f"/api/v1/files/demo/{name}").get_json()["attestations"]
    return found


def attests(world: DoorWorld) -> list[tuple[str, str]]:
    published = Published(world.public, world.clock)
    found = [Entry.parse(published.entry(index)) for index in range(published.checkpoint().size)]
    return [
        (e.statement.subject_name, e.registry["verified"])
        for e in found
        if e.type == "attest" and e.statement
    ]


def test_a_true_one_is_verified_and_the_log_says_so(world: DoorWorld, checker: Checker) -> None:
    """`attest` with verified yes, signed by the registry; the doors name its entry and whom it is by."""
    name, _ = upload(world, "1.0")
    assert told(world, name)[0]["verified"] == "pending"
    work(world, checker)
    (said,) = told(world, name)
    assert (said["verified"], said["identity"], said["reason"]) == ("yes", GITHUB, None)
    assert attests(world) == [(name, "yes")]
    blob = world.client.get(f"/blobs/{said['blob_sha256']}").get_data()
    assert json.loads(blob[32:])["version"] == 1
    world.set_state(name, state="listed")
    served = world.client.get(f"/integrity/demo/1.0/{name}/provenance").get_json(force=True)
    (bundle,) = served["attestation_bundles"]
    assert bundle["publisher"]["claims"] == {"checked": True, "entry": said["entry"]}
    work(world, checker)
    assert attests(world) == [(name, "yes")], "an outcome is said once"


def test_a_present_but_false_one_is_never_handed_out(world: DoorWorld, checker: Checker) -> None:
    """Whatever is false, the log says no, with a reason for people, and `provenance` knows nothing."""
    for number, (what, (changes, word)) in enumerate(FALSE.items()):
        name, _ = upload(world, f"2.{number}", **changes)
        work(world, checker)
        (said,) = told(world, name)
        assert said["verified"] == "no" and word in said["reason"], (what, said)
        assert attests(world)[-1] == (name, "no")
        world.set_state(name, state="listed")
        assert world.client.get(f"/integrity/demo/2.{number}/{name}/provenance").status_code == 404


def test_one_of_another_sigstore_is_false(world: DoorWorld, checker: Checker) -> None:
    """Everything in it holds together, and leads to a root that nobody here trusts."""
    data = wheel(version="3.0")
    name, _ = upload(world, "3.0", [SigstoreWorld().attest(WHEEL.format("3.0"), data)])
    work(world, checker)
    assert told(world, name)[0]["verified"] == "no"


def test_without_the_extra_it_is_said_and_later_checked(world: DoorWorld, checker: Checker) -> None:
    """not-checked, by an entry; with the extra it is looked at again, and a second entry says what was found."""
    name, _ = upload(world, "4.0")
    assert ABSENT.name == NO_CHECKER
    checks = attestations(world, ABSENT)
    while checks.round():
        world.quiet()
        world.clock.now += 1
    (said,) = told(world, name)
    assert said["verified"] == "not-checked" and "[sigstore]" in said["reason"]
    work(world, checker)
    assert told(world, name)[0]["verified"] == "yes"
    assert [verified for subject, verified in attests(world) if subject == name] == ["not-checked", "yes"]


def test_a_check_that_never_ends_is_false_after_three(world: DoorWorld) -> None:
    """What cannot be checked is not believed."""
    name, _ = upload(world, "5.0")
    work(world, BrokenChecker(world.settings))
    (said,) = told(world, name)
    assert said["verified"] == "no" and said["reason"].startswith("3 checks")


def test_an_unreadable_root_holds_them_back(world: DoorWorld, checker: Checker) -> None:
    """No checker starts, which says nothing of any object: they wait, and are verified when it is back."""
    name, _ = upload(world, "5.1")
    blind = Checker(replace(world.settings, scan=Scan(sigstore_root="nowhere.json")))
    assert "no root: No such file" in blind.name
    checks = attestations(world, blind)
    before = attests(world)
    for _ in range(ATTEMPTS_MAX):  # after as many, an object that breaks its checker is false
        checks.round()
        world.quiet()
        world.clock.now += TROUBLE_SECONDS + 1
    blind.close()
    assert attests(world) == before
    assert told(world, name)[0]["verified"] == "pending"
    work(world, checker)
    assert told(world, name)[0]["verified"] == "yes"


def test_a_worker_that_died_is_followed_by_another(
    world: DoorWorld, checker: Checker, monkeypatch: Any
) -> None:
    """Dead after the blob, before the entry: the lease runs out, and there is one entry."""
    name, _ = upload(world, "6.0")
    dying = attestations(world, checker)
    monkeypatch.setattr(dying, "_keep", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        dying.round()
    world.clock.now += 121
    work(world, checker)
    assert [verified for subject, verified in attests(world) if subject == name] == ["yes"]


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (
            lambda i: i["verification_material"].update(transparency_entries=[]),
            "statement-invalid",
            "no transparency_entries",
        ),
        (lambda i: i["envelope"].update(signature="*"), "statement-invalid", "attestation 1 is no PEP 740"),
        (lambda i: i.update(version=2), "statement-invalid", "version 1"),
    ],
)
def test_a_malformed_one_is_refused_at_the_door(world: DoorWorld, change: Any, code: str, word: str) -> None:
    """At once, with PyPI's words, and nothing stays."""
    name, data = WHEEL.format("9.0"), wheel(version="9.0")
    before = world.state()
    item = SIGSTORE.attest(name, data, item=change)
    answer = grace(world).upload(name, data, attestations=json.dumps([item]))
    assert (answer.status_code, answer.get_json()["code"]) == (400, code)
    assert "Invalid attestations supplied during upload" in answer.get_data(as_text=True)
    assert word in answer.get_json()["detail"] and world.state()["files"] == before["files"]


def test_one_about_another_file_is_refused_at_the_door(world: DoorWorld) -> None:
    """Another name or other bytes: both values are in the answer."""
    name, data = WHEEL.format("9.1"), wheel(version="9.1")
    for item in (SIGSTORE.attest(name, b"other"), SIGSTORE.attest("demo-9.2.tar.gz", data)):
        answer = grace(world).upload(name, data, attestations=json.dumps([item]))
        assert (answer.status_code, answer.get_json()["code"]) == (400, "statement-mismatch")


def test_a_genuine_one_of_the_public_sigstore_verifies_offline(tmp_path: Path, world: DoorWorld) -> None:
    """A real release, against the root that the library brings."""
    folder = Path(__file__).parent.parent.parent / "vectors/pep740"
    known = json.loads((folder / "file.json").read_text("utf-8"))
    checker = Checker(replace(world.settings, scan=Scan()))
    try:
        found = checker.check((folder / "attestation.json").read_bytes(), known["filename"], known["sha256"])
    finally:
        checker.close()
    assert found is not None and found.verified == "yes", found
    assert found.identity is not None and found.identity["repository"] == known["repository"]
