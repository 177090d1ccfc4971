"""What a rehearsal made is refused everywhere: its root says so, whoever carries it where."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from countermark.errors import PolicyError, UsageError
from countermark.pins import Home
from countermark_ceremony import console, history
from countermark_ceremony.files import write_folder
from countermark_server.operate import adoption, renewal
from countermark_server.operate.initialise import initialise
from countermark_server.operate.trustpackage import trust_package
from countermark_server.stores.public import Public
from tests import ceremony_world as world

REHEARSAL, REAL = "rehearsal.invalid", "registry.example"
URL = "https://registry.example"
SAYS = "made in a rehearsal"
NOW = int(world.NOW.timestamp())


@pytest.fixture(scope="module", params=[REHEARSAL, REAL])
def made(request: pytest.FixtureRequest) -> tuple[bool, dict[str, bytes], dict[str, bytes]]:
    """Whether it was a rehearsal; the files of a first ceremony, and of a later one on top of it."""
    registry, holders = world.Registry(origin=request.param), world.Holders()
    first = world.finished(registry, holders, trial=True)
    base = history.verify(first)[-1]
    prepared = world.next_prepared(base, world.next_document(base, holders))
    return request.param == REHEARSAL, first, world.next_finished(first, prepared, holders)


def test_the_mark_is_in_every_root_of_a_rehearsal_and_in_no_other(
    made: tuple[bool, dict[str, bytes], dict[str, bytes]],
) -> None:
    """Signed with the root, from the first to the last."""
    rehearsed, first, later = made
    for raw in (first["1.root.json"], later["2.root.json"]):
        fields = Metadata[Root].from_bytes(raw).signed.unrecognized_fields
        assert fields.get("x-countermark-rehearsal", False) is rehearsed


def test_clients_registries_and_fleets_refuse_it(
    made: tuple[bool, dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    """`trust add`, `adopt` of a first and of a later ceremony, `trust-package`: refused, and nothing is pinned."""
    rehearsed, first, later = made
    write_folder(tmp_path / "out", first)
    public = Public(tmp_path / "public")
    public.put("tuf/1.root.json", first["1.root.json"])
    old, new = (renewal._found(dict(_raw(files)), files.__getitem__) for files in (first, later))
    doors = {
        PolicyError: [
            lambda: Home(tmp_path / "home").add(URL, first["1.root.json"]),
            lambda: Home(tmp_path / "home-2").add(URL, later["2.root.json"]),
        ],
        UsageError: [
            lambda: adoption.read_ceremony(tmp_path / "out", now=NOW),
            lambda: renewal.check_follows(old, new),
            lambda: trust_package(public, REAL, URL),
        ],
    }
    for kind, refused in doors.items():
        for door in refused:
            if rehearsed:
                with pytest.raises(kind, match=SAYS):
                    door()
            else:
                door()
    assert rehearsed is not any((tmp_path / "home").rglob("root*"))


def _raw(files: dict[str, bytes]) -> dict[str, bytes]:
    names = {name.split(".")[1]: name for name in files if name[0].isdigit()}
    return {role: files[names[role]] for role in adoption.ROLES}


def test_holders_see_that_it_is_one() -> None:
    """The request shows it, read from the payload."""
    prepared = world.prepared(world.Registry(origin=REHEARSAL), world.Holders(), trial=True)
    assert "REHEARSAL: every program" in "\n".join(console.show_request(prepared.request("ada")))


def test_no_registry_takes_its_name(tmp_path: Path) -> None:
    """`init` refuses the stand-in's origin; nothing is made."""
    with pytest.raises(UsageError, match="stand-in registry"):
        initialise(tmp_path / "data", REHEARSAL)
    assert list(tmp_path.iterdir()) == []
