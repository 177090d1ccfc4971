"""Rules about imports: order, the chain, lines passed over, one open import, and whose an imported project is."""

from __future__ import annotations

from typing import Any

import pytest

from countermark import rules
from countermark.canonical import encode_canonical, parse_canonical
from countermark.entry import Entry
from countermark.errors import MalformedError
from tests.entrymaker import (
    ALICE,
    BOB,
    MODERATION_KEY,
    MODERATOR,
    OTHER_MODERATOR,
    REGISTRY_KEY,
    SCANNER_KEY,
    WEEK,
    World,
    digest,
    ed25519_signer,
    line_of,
    replay_pinned,
)

ONE, TWO, THREE = "old-1.0.tar.gz", "old-2.0-py3-none-any.whl", "past-1.0.tar.gz"
alice = ed25519_signer("alice")


@pytest.fixture
def world() -> World:
    world = World()
    world.accept(world.import_(ONE, TWO, THREE))
    return world


def opened(world: World) -> dict[str, Any]:
    return world.view.get(rules.LOG)["import"]


def test_lines_are_published_in_the_order_of_the_manifest(world: World) -> None:
    """Each line is a file that nobody signed, and the last one closes the import."""
    for name in (ONE, TWO, THREE):
        world.accept(world.line())
        file = world.file(name)
        assert (file["import"], file["keyid"], file["uploader"], file["level"]) == (3, None, None, "registry")
        assert (file["sha256"], file["time"]) == (digest(name), world.time)
        assert (world.standing(name), world.listed(name)) == ("ok", False)
    assert (opened(world)["left"], opened(world)["line"]) == (0, 4)
    assert opened(world)["chain"] == "0" * 64
    world.accept(world.verdict(ONE))
    assert world.listed(ONE)


def test_without_an_open_import_nothing_is_unsigned() -> None:
    """A publish without an envelope: not before an import, and not behind its last line."""
    world = World()
    world.accept(world.import_(ONE))
    line = world.line()
    world.accept(line)
    world.refuse("import-closed", line, "log")
    World().refuse("import-closed", line, "log")


def test_lines_come_in_order_and_once(world: World) -> None:
    """Not the next but one, not the same again, not another import's."""
    first = world.line()
    world.refuse("import-order", world.line(2), "log")
    world.refuse("import-order", world.line(3), "log")
    world.accept(first)
    world.refuse("import-order", first, "log")
    world.refuse("import-order", world.line(index=2), "log")
    world.accept(world.line())


def test_a_line_is_the_manifests_line(world: World) -> None:
    """Another hash, length, file, or another line under this number: its link is not the chain's."""
    for line in (line_of(ONE, "other bytes"), line_of(TWO), line_of("evil-1.0.tar.gz")):
        world.refuse("import-line", world.line(line=line), "log")
    world.refuse("import-line", world.line(rest="00" * 32), "log")
    swapped = world.line(2, number=1)
    world.refuse("import-line", swapped, "log")
    world.accept(world.line())


def test_anything_may_come_between_the_lines(world: World) -> None:
    """An import stops nobody else."""
    world.accept(world.publish("live-1.0.tar.gz"))
    world.accept(world.line())
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(world.tuf())
    world.accept(world.line())
    world.accept(world.line())
    assert opened(world)["left"] == 0


def test_a_taken_name_is_passed_over(world: World) -> None:
    """Whoever was faster keeps the name; the line's leaf says so, changes nothing, and the import goes on."""
    world.accept(world.publish(ONE, uploader=BOB, content="live bytes"))
    live = world.file(ONE)
    world.refuse("import-passed", world.line(passed=None), "log")
    world.refuse("import-passed", world.line(passed="project-frozen"), "log")
    line = world.line()
    assert line.imported is not None
    assert line.imported.passed == "file-exists"
    changes = world.accept(line)
    assert changes.writes.keys() == {rules.LOG}
    assert world.file(ONE) == live
    world.accept(world.line())
    world.refuse("import-passed", world.line(passed="file-exists"), "log")
    world.accept(world.line())


def test_a_project_that_signs_takes_no_imported_file(world: World) -> None:
    """A key enrolled before the line is reached keeps what nobody signed out of the project."""
    world.accept(world.enroll("old", alice, ALICE))
    line = world.line()
    assert line.imported is not None
    assert line.imported.passed == "signature-required"
    world.refuse("import-passed", world.line(passed=None), "log")
    world.accept(line)
    assert world.file(ONE) is None
    world.accept(world.line())
    world.accept(world.line())
    assert world.file(THREE) is not None


def test_a_frozen_project_takes_no_imported_file(world: World) -> None:
    """While moderators decide, nothing comes in; a recovery that nobody vetoed counts as a key."""
    world.accept(world.enroll("old", alice, ALICE))
    world.accept(world.owner("old", "signing-off", alice))
    world.accept(world.enroll("old", ed25519_signer("new"), ALICE))
    world.accept(world.owner("old", "veto", alice))
    line = world.line()
    assert line.imported is not None
    assert line.imported.passed == "project-frozen"
    world.accept(line)
    world.accept(
        world.owner(
            "old",
            "decide",
            MODERATION_KEY,
            account=ALICE,
            role="reject",
            actor=MODERATOR,
            second=OTHER_MODERATOR,
        )
    )
    world.accept(world.line())
    assert world.file(TWO)["import"] == 3


def test_a_recovery_that_took_effect_signs(world: World) -> None:
    """The holder is settled at the line's own time."""
    world.accept(world.enroll("old", alice, ALICE))
    world.accept(world.owner("old", "signing-off", alice))
    world.accept(world.enroll("old", ed25519_signer("new"), ALICE))
    world.accept(world.line())
    world.later(WEEK)
    line = world.line()
    assert line.imported is not None
    assert line.imported.passed == "signature-required"
    world.accept(line)


def test_an_imported_project_has_no_owner_until_the_registry_names_one(world: World) -> None:
    """Nobody becomes the owner of a known name by being the first to upload or to enrol."""
    world.accept(world.line())
    world.refuse("not-an-owner", world.publish("old-9.0.tar.gz", uploader=BOB), "log")
    world.refuse("not-an-owner", world.enroll("old", alice, ALICE), "log")
    for wrong in (
        {"actor": BOB},
        {"role": "maintainer", "actor": None},
        {"action": "transfer", "role": None, "actor": None},
    ):
        said = {"action": "add", "account": BOB, "role": "owner", "actor": BOB} | wrong
        world.refuse("not-an-owner", world.owner("old", said.pop("action"), REGISTRY_KEY, **said), "log")
    world.refuse("key-unknown", world.owner("old", "add", SCANNER_KEY, account=BOB, role="owner", actor=None))
    give = world.owner("old", "add", REGISTRY_KEY, account=BOB, role="owner", actor=None)
    world.accept(give)
    again = world.owner("old", "add", REGISTRY_KEY, account=ALICE, role="owner", actor=None)
    world.refuse("not-an-owner", again, "log")
    world.accept(world.publish("old-9.0.tar.gz", uploader=BOB))
    world.accept(world.enroll("old", ed25519_signer("bob's"), BOB))


def test_an_import_is_signed_by_the_registry_and_follows_the_one_before(world: World) -> None:
    """prev is the newest import entry; an import that is still open ends where the next one starts."""
    world.refuse("key-unknown", world.import_("new-1.0.tar.gz", by=SCANNER_KEY))
    world.refuse("prev-stale", world.import_("new-1.0.tar.gz", prev=None))
    world.refuse("prev-stale", World().import_("new-1.0.tar.gz", prev="00" * 32))
    world.accept(world.line())
    late = world.line()
    world.accept(world.import_("new-1.0.tar.gz"))
    world.refuse("import-order", late, "log")
    world.accept(world.line())
    assert (world.file(TWO), world.file("new-1.0.tar.gz")["import"]) == (None, 5)


@pytest.mark.parametrize(
    "predicate",
    [
        {"count": 0},
        {"count": 65_537},
        {"count": True},
        {"chain_sha256": None},
        {"manifest_sha256": "x"},
        {"source": "two words"},
        {"source": ""},
        {"project": "old"},
        {"namespace": "corp"},
    ],
)
def test_what_an_import_may_say_is_closed(world: World, predicate: dict[str, Any]) -> None:
    """Counts are bounded, the source is a word, and only the default namespace has imports."""
    with pytest.raises(MalformedError):
        world.import_("new-1.0.tar.gz", **predicate)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "yank"},
        {"type": "import"},
        {"registry": {}},
        {"registry": {"extra": 1}},
        {"registry": {"passed": "because"}},
        {"registry": {"passed": []}},
        {"registry": {"project": "Old"}},
        {"registry": {"project": None}},
        {"registry": {"version": "9"}},
        {"registry": {"filename": "old-1.0.exe"}},
        {"registry": {"sha256": "AA" * 32}},
        {"registry": {"length": 0}},
        {"registry": {"length": True}},
        {"registry": {"length": "9"}},
        {"registry": {"import": None}},
        {"registry": {"import": {"index": 3, "line": 1}}},
        {"registry": {"import": {"index": 3, "line": 0, "rest": "00" * 32}}},
        {"registry": {"import": {"index": True, "line": 1, "rest": "00" * 32}}},
        {"registry": {"import": {"index": 3, "line": 1, "rest": 5}}},
    ],
)
def test_a_line_s_leaf_is_closed(world: World, change: dict[str, Any]) -> None:
    """Members, names, digests and codes: whatever is not the one form is malformed, not judged."""
    leaf = parse_canonical(world.line().raw, max_bytes=65_535)
    change = dict(change)
    if change.get("registry"):
        change["registry"] = leaf["registry"] | change["registry"]
    with pytest.raises(MalformedError):
        Entry.parse(encode_canonical(leaf | change))


def test_every_changed_bit_of_a_line_is_noticed(world: World) -> None:
    """Nobody signed a line, and yet nothing of it can be changed but its time: the chain says what it is."""
    raw, before = world.line().raw, world.view.digest()
    end = raw.index(b',"time"')
    for position in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        try:
            result = rules.apply(world.view, Entry.parse(bytes(flipped)))
        except MalformedError:
            continue
        assert isinstance(result, rules.Broken) or position // 8 > end, bytes(flipped)
    assert world.view.digest() == before


def test_a_publish_with_an_envelope_has_no_import(world: World) -> None:
    """A signed entry can't pass for an imported one, nor the other way round."""
    signed = parse_canonical(world.publish("live-1.0.tar.gz").raw, max_bytes=65_535)
    line = parse_canonical(world.line().raw, max_bytes=65_535)
    for envelope, registry in ((signed["envelope"], line["registry"]), (None, signed["registry"])):
        with pytest.raises(MalformedError):
            Entry.parse(encode_canonical(signed | {"envelope": envelope, "registry": registry}))


# --- pinned replay --------------------------------------------------------------------------------------
def story() -> World:
    """Two imports, everything that a line can meet, and what comes between."""
    world = World()
    world.accept(world.tuf())
    world.accept(world.publish("plain-0.1.tar.gz"))
    world.accept(world.import_(ONE, TWO, "plain-0.1.tar.gz", "acme-1.0.tar.gz", THREE))
    world.accept(world.line())
    world.accept(world.publish(TWO.replace("old", "live")))
    world.accept(world.line())
    world.accept(world.enroll("acme", alice, ALICE))
    world.later(60)
    world.accept(world.line())
    world.accept(world.line())
    world.accept(world.verdict(ONE))
    world.accept(world.owner("old", "add", REGISTRY_KEY, account=BOB, role="owner", actor=None))
    world.accept(world.publish("old-3.0.tar.gz", uploader=BOB))
    world.accept(world.decision("hold", TWO))
    world.accept(world.import_(THREE, "past-2.0.tar.gz"))
    world.accept(world.line())
    world.accept(world.line())
    return world


def test_the_pinned_imports_replay_to_the_pinned_state() -> None:
    """Rule version 1 for ever, with the leaves of `story` and some that must be found."""
    log, found = replay_pinned("v1-import")
    assert {code for _, code, _ in found} >= {"import-closed", "import-order", "import-line", "import-passed"}
    told = [entry.raw for entry in story().entries]
    assert log[: len(told)] == told
