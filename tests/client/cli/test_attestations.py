"""`verify --attestations`: what the log says of PEP 740 objects is told, and decides nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.cli.test_bundle_commands import Desk, desk  # noqa: F401  (a fixture)


def said(desk: Desk) -> Any:  # noqa: F811
    (artifact,) = desk.json("verify", "--attestations", desk.wheel)["artifacts"]
    return artifact["attestations"]


def test_the_newest_word_on_each_is_told(desk: Desk) -> None:  # noqa: F811
    """By its entry, in text and JSON, of files and of a lock; without the option nothing is asked."""
    world, file = desk.world, desk.published
    world.attest(file, "not-checked")
    newer = world.attest(file, "yes")
    other = world.attest(file, "no", object_sha256="b8" * 32)
    world.heartbeat()
    assert said(desk) == [
        {"index": newer, "sha256": "a7" * 32, "verified": "yes"},
        {"index": other, "sha256": "b8" * 32, "verified": "no"},
    ]
    desk.run("verify", "--attestations", desk.wheel)
    assert f"PEP 740 attestation: the registry verified it (entry #{newer}); nothing here depends" in desk.err
    assert f"PEP 740 attestation: the registry found it false (entry #{other})" in desk.err
    (desk.folder / "requirements.txt").write_text(f"acme-demo==1.0 --hash=sha256:{file.sha256}\n")
    document = desk.json("verify", "--attestations", "requirements.txt")
    assert [each["verified"] for each in document["artifacts"][0]["attestations"]] == ["yes", "no"]
    world.asked.clear()
    assert "attestations" not in desk.json("verify", desk.wheel)["artifacts"][0]
    assert not any("/api/" in path for path in world.asked)


@pytest.mark.parametrize("verified", ["yes", "no", "not-checked"])
@pytest.mark.parametrize("signed", [True, False])
def test_no_outcome_changes_a_verdict(desk: Desk, verified: str, signed: bool) -> None:  # noqa: F811
    """An unsigned file stays refused where policy wants a signature, and a signed one verified, whatever is found."""
    file = desk.world.publish("other", signed=signed)
    path = desk.folder / file.filename
    path.write_bytes(file.data)
    code = 0 if signed else 5
    before = desk.json("verify", path, expect=code)
    desk.world.attest(file, verified)
    desk.world.heartbeat()
    after = desk.json("verify", "--attestations", path, expect=code)
    assert before["verified"] == after["verified"] is signed
    assert ("attestations" in after["artifacts"][0]) is signed


def test_what_the_registrys_answer_claims_is_read_from_the_log(desk: Desk) -> None:  # noqa: F811
    """Entries of other files and other types, past the end, and nonsense: nothing is told, and nothing is wrong."""
    stranger = desk.world.publish("other")
    theirs = desk.world.attest(stranger, "yes")
    desk.world.heartbeat()
    name = desk.published.filename
    desk.world.attested[name] = [theirs, desk.published.index, 10**6, -1, "x", None, True]
    assert said(desk) == []
    desk.world.down = lambda path: path.startswith("/api/")
    assert said(desk) == []


def test_it_is_of_files_that_are_listed(desk: Desk) -> None:  # noqa: F811
    desk.run("verify", "--attestations", "--environment", desk.folder, expect=2)
    desk.run("verify", "--attestations", "--log-only", "--namespace", "corp", desk.wheel, expect=2)
