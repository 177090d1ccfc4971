"""What each standard of the simple index asks for, one test a standard. (Names of tests say the PEP.)"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from countermark_server import fulcio
from countermark_server.index.provenance import provenance
from tests.archives import metadata, sdist, wheel
from tests.attestations import ABSENT, attestations
from tests.doors import DoorWorld
from tests.server.index.test_html_pages import Links

V1 = "application/vnd.pypi.simple.v1+json"
WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
EXTRA = "Requires-Python: >=3.9\n"
DECISION = {"about": None, "evidence_sha256": None}
FULCIO = "1.3.6.1.4.1.57264.1."


def attestation(data: bytes, *, says: dict[str, str] | None = None) -> dict[str, Any]:
    """A PEP 740 object about these bytes, by somebody's pipeline; nobody here looks at its signature."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, day = x509.Name([]), datetime.datetime(2026, 9, 21, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(day).not_valid_after(day + datetime.timedelta(minutes=10))
    for part, text in (says or {}).items():
        raw = text.encode()
        head = b"\x0c" + (bytes([len(raw)]) if len(raw) < 128 else bytes([0x81, len(raw)]))
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(FULCIO + part), head + raw)
        made = made.add_extension(extension, critical=False)
    certificate = made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": WHEEL, "digest": {"sha256": digest.finalize().hex()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": None,
    }
    return {
        "version": 1,
        "verification_material": {
            "certificate": base64.b64encode(certificate).decode(),
            "transparency_entries": [{"logIndex": "1"}],
        },
        "envelope": {
            "statement": base64.b64encode(json.dumps(statement).encode()).decode(),
            "signature": base64.b64encode(b"some signature").decode(),
        },
    }


GITHUB = {
    "8": "https://token.actions.githubusercontent.com",
    "12": "https://github.com/acme/demo",
    "18": "https://github.com/acme/demo/.github/workflows/release.yml@refs/tags/v1.0-of-a-name-that-is-long-enough"
    "-for-a-length-of-two-bytes-in-the-certificate",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """A listed wheel that brought a PEP 740 object along, which nobody here can check; and an sdist of 1.10."""
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    grace, data = made.person("grace"), wheel(extra=EXTRA)
    uploaded = [{"some": "word"}, attestation(data, says=GITHUB)]
    with made.run():
        assert grace.upload(WHEEL, data, attestations=json.dumps(uploaded)).status_code == 200
        for version in ("1.10", "1.9"):
            name = f"demo-{version}.tar.gz"
            assert grace.upload(name, sdist(version=version)).status_code == 200, name
            made.set_state(name, state="listed")
        made.set_state(WHEEL, state="listed")
        checks = attestations(made, ABSENT)
        while checks.round():
            made.quiet()
            made.clock.now += 1
        yield made
    made.close()


def page(world: DoorWorld, path: str = "/simple/demo/") -> dict[str, Any]:
    answer = world.client.get(path, headers={"Accept": V1})
    assert answer.status_code == 200, answer.get_data()
    found: dict[str, Any] = answer.get_json(force=True)
    return found


def file(world: DoorWorld, name: str = WHEEL) -> dict[str, Any]:
    (found,) = [each for each in page(world)["files"] if each["filename"] == name]
    return dict(found)


def test_pep_503_names_are_normalised_and_links_carry_hashes(world: DoorWorld) -> None:
    """One redirect for other spellings; anchors with the file's name and a hash in the fragment."""
    assert world.client.get("/simple/De.Mo/").headers["Location"] == "/simple/de-mo/"
    html = Links(world.client.get("/simple/demo/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert all("#sha256=" in str(link["href"]) for link in html.links) and len(html.links) == 3


def test_pep_592_a_yank_is_told_with_its_reason(world: DoorWorld) -> None:
    """A string in JSON, `data-yanked` in HTML, false and nothing before and after."""
    assert file(world)["yanked"] is False
    index = world.decide("yank", WHEEL, reason="broken")
    assert file(world)["yanked"] == f"yanked by entry {index} of the log (broken)"
    html = Links(world.client.get("/simple/demo/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert [f"entry {index}" in link.get("data-yanked", "") for link in html.links].count(True) == 1  # type: ignore[operator]
    world.decide("unyank", WHEEL, reason="fixed")
    assert file(world)["yanked"] is False


def test_pep_629_and_691_the_version_the_types_and_the_negotiation(world: DoorWorld) -> None:
    """`api-version` 1.4; each form under its media type; `latest` is v1; caches are told what decides."""
    assert page(world)["meta"]["api-version"] == "1.4" == page(world, "/simple/")["meta"]["api-version"]
    for accept, type_ in (
        (V1, V1),
        ("application/vnd.pypi.simple.latest+json", V1),
        ("application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.v1+html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
    ):
        answer = world.client.get("/simple/demo/", headers={"Accept": accept})
        assert (answer.content_type, answer.headers["Vary"]) == (type_, "Accept")
        assert answer.headers["Cache-Control"] == "public, max-age=60" and answer.headers["ETag"]
    html = Links(world.client.get("/simple/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert html.meta["pypi:repository-version"] == "1.4"


def test_pep_658_and_714_metadata_beside_the_file(world: DoorWorld) -> None:
    """`core-metadata` with the digest of what `<url>.metadata` serves; never the old name in JSON."""
    found = file(world)
    assert "dist-info-metadata" not in found and "data-dist-info-metadata" not in found
    served = world.client.get(f"/packages/demo/{WHEEL}.metadata")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(served.get_data())
    assert found["core-metadata"] == {"sha256": digest.finalize().hex()}
    assert served.get_data() == metadata("demo", "1.0", EXTRA)


def test_pep_700_versions_sizes_and_times(world: DoorWorld) -> None:
    """Every version with a file in PEP 440's order, each file's size in bytes and its upload time in UTC."""
    found = page(world)
    assert found["versions"] == ["1.0", "1.9", "1.10"]
    assert file(world)["size"] == len(wheel(extra=EXTRA))
    assert {each["upload-time"] for each in found["files"]} == {"2026-09-21T14:13:20Z"}


def test_pep_740_genuine_objects_are_served_as_they_came(world: DoorWorld) -> None:
    """At the address that the page names; none about other bytes; who signed is repeated, not vouched for."""
    url = file(world)["provenance"]
    assert url == f"http://registry.test/integrity/demo/1.0/{WHEEL}/provenance"
    answer = world.client.get(url)
    assert answer.content_type == "application/vnd.pypi.integrity.v1+json"
    again = world.client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    body = answer.get_json(force=True)
    ((bundle,), version) = body["attestation_bundles"], body["version"]
    assert version == 1 and bundle["publisher"] == {
        "kind": "GitHub", "repository": "acme/demo", "workflow": "release.yml", "environment": None,
        "claims": {"checked": False, "entry": bundle["publisher"]["claims"]["entry"]},
    }  # fmt: skip
    (row,) = [row for row in world.submissions() if row["served_name"] == WHEEL]
    assert bundle["attestations"] == [json.loads(row["attestations"])[1]]
    html = Links(world.client.get("/simple/demo/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert [link.get("data-provenance") for link in html.links] == [url, None, None]
    assert file(world, "demo-1.9.tar.gz")["provenance"] is None
    for missing in (
        "/integrity/demo/1.9/demo-1.9.tar.gz/provenance",
        f"/integrity/demo/2.0/{WHEEL}/provenance",
    ):
        assert world.client.get(missing).get_json()["code"] == "not-found"


def test_pep_740_no_certificate_breaks_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever byte of it is another, and wherever it ends: a publisher is named, or is unknown."""
    data = wheel()
    item = attestation(data, says=GITHUB)
    rows: Any = [{"number": 0, "verified": "not-checked", "leaf_index": 31}]
    good = base64.b64decode(item["verification_material"]["certificate"])
    first = good.index(b"\x0c")  # the first of Fulcio's texts
    spoilt = [good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :] for at in range(len(good))]
    spoilt += [
        good[:first] + bytes([tag, length]) + good[first + 2 :]
        for tag in (0, 0x0C)
        for length in (0, 0x80, 0xFF)
    ]
    for raw in [b"", *spoilt, *(good[:end] for end in range(0, len(good), 7))]:
        item["verification_material"]["certificate"] = base64.b64encode(raw).decode()
        (bundle,) = provenance(json.dumps([item]), rows)["attestation_bundles"]
        assert bundle["publisher"]["kind"] in {"GitHub", "Unknown"}
    for short in ("", "0c", "0c01", "0c8141", "0cff41"):
        assert fulcio.text(bytes.fromhex(short)) in {"", "A"}

    def broken(_: bytes) -> None:
        raise RuntimeError  # as parsers of certificates do of what nobody thought of

    monkeypatch.setattr(x509, "load_der_x509_certificate", broken)
    (bundle,) = provenance(json.dumps([item]), rows)["attestation_bundles"]
    assert bundle["publisher"] == {"kind": "Unknown", "claims": {"checked": False, "entry": 31}}


def test_pep_740_of_a_held_file_nothing_is_served(world: DoorWorld) -> None:
    """As the file, so its provenance."""
    world.decide("hold", WHEEL, reason="report", **DECISION)
    assert world.client.get(f"/integrity/demo/1.0/{WHEEL}/provenance").get_json()["code"] == "file-held"
    world.decide("clear", WHEEL, reason="reviewed", **DECISION)


def test_pep_792_a_project_is_active_or_quarantined_with_a_reason(tmp_path: Path) -> None:
    """Empty with status and reason while the registry withholds every file; an owner's removal is no quarantine."""
    world = DoorWorld(tmp_path)
    with world.run():
        grace = world.person("grace")
        for name, data in ((WHEEL, wheel()), (SDIST, sdist())):
            assert grace.upload(name, data).status_code == 200
            world.set_state(name, state="listed")
        assert page(world)["project-status"] == {"status": "active"}
        world.decide("hold", WHEEL, reason="malware", **DECISION)
        assert page(world)["project-status"] == {"status": "active"}  # there is another file to choose
        index = world.decide("takedown", SDIST, reason="malware", **DECISION)
        found = page(world)
        reason = f"{SDIST} is removed by entry {index} of the log (malware)"
        assert found["files"] == [] and found["versions"] == []
        assert found["project-status"] == {"status": "quarantined", "reason": reason}
        html = Links(
            world.client.get("/simple/demo/", headers={"Accept": "text/html"}).get_data(as_text=True)
        )
        assert html.meta["pypi:project-status"] == "quarantined" and html.links == []
        assert html.meta["pypi:project-status-reason"] == reason
        world.decide("clear", SDIST, reason="appeal-upheld", **DECISION)
        world.decide("clear", WHEEL, reason="reviewed", **DECISION)
        for name in (WHEEL, SDIST):
            world.decide("remove", name, reason="mistake")
        assert page(world)["files"] == [] and page(world)["project-status"] == {"status": "active"}
    world.close()
