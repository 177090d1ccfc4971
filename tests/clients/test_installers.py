"""Installers as they are: what each says where our proxy refuses, held against docs/reference/installers.md.

`make test` takes uv in every case, and a few of the others; `make test-matrix` all, on plain HTTP and on TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from countermark.proxyanswers import REASON_MAX
from tests.clients.installing import CASES, CLIENTS, DOORS, Room, beside, block
from tests.clients.pinned import LATEST, version

ALWAYS = {("pip", name, "http") for name in ("held", "wrong bytes", "cool-down")}
ALWAYS |= {("uv", name, "http") for name in CASES} | {("uv", "wrong bytes", "tls")}
ALWAYS |= {("poetry", "wrong bytes", "http")}
RUNS = [
    pytest.param(client, name, door, marks=() if (client, name, door) in ALWAYS else (pytest.mark.matrix,))
    for client in CLIENTS
    for name in CASES
    for door in DOORS
]
NEXT_STEPS = {
    "not pinned": "commit this line, under [pins] in countermark.toml",
    "cool-down": "it is old enough; until then take an older release",
    "wrong bytes": "countermark evidence check FILE",
    "not logged": "countermark evidence check FILE",
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    yield Room(tmp_path_factory.mktemp("room"))


@pytest.mark.parametrize(("client", "name", "door"), RUNS)
def test_a_refusal_reads_as_the_page_has_it(room: Room, client: str, name: str, door: str) -> None:
    """The reason, the code, the exit status; nothing is installed unless everything held."""
    told, case = room.told(client, name, door), CASES[name]
    assert told.installed == case.installed, told
    if case.code == 0:
        assert told.code == 0
        return
    assert told.code != 0 and told.beside.startswith("refused: "), told
    if not LATEST:  # newer versions say it in other words
        assert (told.code, told.said) == block(name, client), f"{version(client)}: {told.said}"
    if client == "uv":
        assert told.beside == beside(name), told.beside


@pytest.mark.parametrize(
    "client",
    [pytest.param(each, marks=() if each in ("pip", "uv") else pytest.mark.matrix) for each in CLIENTS],
)
def test_a_hold_reaches_a_cache_and_a_lock(room: Room, client: str) -> None:
    """Nothing is installed from a cache that was filled before, nor by a lock, and the reason is said."""
    before, after = room.held_meanwhile(client, f"{client}-kept-demo")
    assert (before.code, before.installed) == (0, "1.0"), before
    assert after.code != 0 and after.installed == "", after
    assert "hold by entry #N (malware), not applied by the registry yet exit-6 https://" in after.said, after


@pytest.mark.parametrize(("name", "step"), NEXT_STEPS.items())
def test_the_next_step_is_named(name: str, step: str) -> None:
    """What can be done about it stands beside the installer's own words."""
    assert step in beside(name)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.code > 3])
def test_every_installer_says_the_reason_the_code_and_where_to_go(name: str, client: str) -> None:
    """Each refusal is made at a name that can be asked for, but where nobody can name one (3)."""
    code, said = block(name, client)
    assert (
        code in (1, 2) and f" exit-{CASES[name].code} https://registry.test/h/exit-{CASES[name].code}" in said
    )
    reason = beside(name).splitlines()[0].removeprefix("refused: ")
    for word in re.sub(r"HASH.*", "", reason[: REASON_MAX - 3]).split():
        assert word in said, (word, said)
