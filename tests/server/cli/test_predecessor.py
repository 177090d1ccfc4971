"""A successor's first entry, over `init`, ceremony and `adopt`: exactly the log that was verified, or nothing."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from countermark import keyfile
from countermark.errors import CountermarkError
from countermark.predecessor import Predecessor, open_predecessor
from countermark.statement import KeySigner, Signer, pae, sign
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import Note
from countermark_ceremony import assemble
from countermark_ceremony.payloads import describe
from countermark_server import signing
from countermark_server.log import create as create_module
from countermark_server.log.sequence import LogError
from countermark_server.operate import adoption
from countermark_server.settings import Settings
from tests.log_world import ORIGIN as LOG
from tests.log_world import LogWorld, drain
from tests.server.cli.test_init_adopt import ceremony, command, refused, rows, tree
from tests.server.log.test_sequence import entries
from tests.simulator import World

ORIGIN, OLD = "cli.test/successor", "registry.test/log"


@pytest.fixture(scope="module")
def old() -> World:
    """A registry that was frozen."""
    world = World(origin=OLD)
    world.publish("acme-demo")
    world.freeze()
    return world


def final(old: World, folder: Path) -> tuple[Path, Path]:
    """Its final checkpoint and its trust file, as an operator has them."""
    checkpoint, trust = folder / "final-checkpoint", folder / "old-trust.json"
    checkpoint.write_bytes(old.checkpoint)
    trust.write_bytes(old.trust_file.format())
    return checkpoint, trust


def named(old: World) -> Predecessor:
    """What entry 0 must say of it."""
    head = Checkpoint.parse(Note.parse(old.checkpoint).text)
    assert head.size == len(old.entries)
    return Predecessor(OLD, head.size, head.root_hash.hex())


@pytest.fixture(scope="module")
def pristine(old: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    checkpoint, trust = final(old, folder)
    made = command(
        *("init", "--data", folder / "data", "--origin", ORIGIN, "--bit-length", "3"),
        *("--predecessor", checkpoint, "--predecessor-trust", trust),
    )
    assert made.returncode == 0 and f"goes on from {OLD}" in made.stderr, made.stderr
    ceremony(folder / "data", folder / "out")
    return folder


def authority(folder: Path) -> Signer:
    """The authority key that the trial ceremony left behind."""
    keys = folder / "out" / "trial" / "keys"
    private = keyfile.decrypt(
        (keys / "dora-authority.key.json").read_bytes(), (keys / "passphrase").read_bytes().strip()
    )
    return KeySigner(private)


def ceremony_files(folder: Path) -> dict[str, bytes]:
    out = folder / "out"
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


# --- init ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack", ["stripped", "unwitnessed", "altered", "other-trust", "itself", "half", "gone"]
)
def test_init_makes_nothing_for_a_checkpoint_that_does_not_verify(
    old: World, tmp_path: Path, attack: str
) -> None:
    """All keys of the old log signed and its quorum cosigned, or there is no data directory."""
    checkpoint, trust = final(old, tmp_path)
    origin, arguments = ORIGIN, ["--predecessor", checkpoint, "--predecessor-trust", trust]
    world = old.copy()
    if attack == "stripped":
        checkpoint.write_bytes(world.sign_checkpoint(log_keys=old.keys.log[:1]))
    elif attack == "unwitnessed":
        checkpoint.write_bytes(world.sign_checkpoint(witnessed=False))
    elif attack == "altered":
        size = b"\n%d\n" % len(old.entries)
        checkpoint.write_bytes(old.checkpoint.replace(size, b"\n%d\n" % (len(old.entries) + 1)))
    elif attack == "other-trust":
        trust.write_bytes(World(keys="rogue", origin=OLD).trust_file.format())
    elif attack == "itself":
        origin = OLD
    elif attack == "half":
        arguments = arguments[:2]
    else:
        checkpoint.unlink()
    before = tree(tmp_path)
    done = command("init", "--data", tmp_path / "data", "--origin", origin, *arguments)
    assert done.returncode in (2, 5, 7) and "Traceback" not in done.stderr, done.stderr
    assert tree(tmp_path) == before and not (tmp_path / "data").exists()


def test_the_input_names_what_was_verified(old: World, pristine: Path) -> None:
    """Origin, size and root hash of the final checkpoint, and nothing else about the old log."""
    document = json.loads((pristine / "data" / "ceremony-input.json").read_text())
    assert document["predecessor"] == named(old).to_dict()


# --- the ceremony -------------------------------------------------------------------------------------------


def test_the_authority_reads_in_plain_words_what_it_signs(old: World) -> None:
    """The screen says which log ended how, from the payload itself."""
    said = describe("predecessor", pae(named(old).statement(ORIGIN).payload()))
    assert f"{ORIGIN} goes on from the log {OLD}, which ended with {len(old.entries)} entries" in said[0]
    assert named(old).root_hash in said[1]


def test_the_finished_ceremony_names_the_predecessor(old: World, pristine: Path) -> None:
    """`verify` finds it from the output alone, signed by the authority alone."""
    found = assemble.verify_first(ceremony_files(pristine), now=datetime.now(UTC))
    assert found.predecessor == named(old)


@pytest.mark.parametrize("attack", ["dropped", "unsigned", "role", "both", "root", "size", "log", "origin"])
def test_another_predecessor_than_asked_for_is_refused(
    old: World, folder: Path, settings: Settings, attack: str
) -> None:
    """Dropped, unsigned, signed by a role key, or of another log: the log is not created, nothing is written."""
    path, said, origin = folder / "out" / "predecessor.json", named(old), ORIGIN
    signers: list[Signer] = [authority(folder)]
    if attack == "role":
        signers = [signing.role_signer(settings, "registry")]
    elif attack == "both":
        signers.append(signing.role_signer(settings, "registry"))
    elif attack == "root":
        said = Predecessor(said.log, said.tree_size, "00" * 32)
    elif attack == "size":
        said = Predecessor(said.log, said.tree_size - 1, said.root_hash)
    elif attack == "log":
        said = Predecessor("another.example/log", said.tree_size, said.root_hash)
    elif attack == "origin":
        origin = "another.example/log"
    envelope = sign(said.statement(origin), *signers).to_dict()
    if attack == "unsigned":
        envelope["signatures"] = []
    path.write_text(json.dumps(envelope))
    if attack == "dropped":
        path.unlink()
    refused(folder, settings)
    if attack not in ("root", "size", "log"):  # the authority did sign those: only `init` knows better
        with pytest.raises(CountermarkError):
            assemble.verify_first(ceremony_files(folder), now=datetime.now(UTC))


def test_a_predecessor_nobody_asked_for_is_refused(folder: Path, settings: Settings) -> None:
    """`init` named none, the ceremony's output does."""
    path = settings.data / "ceremony-input.json"
    document = json.loads(path.read_text())
    del document["predecessor"]
    path.write_text(json.dumps(document))
    refused(folder, settings, "asked for nobody")


# --- adopt and genesis --------------------------------------------------------------------------------------


def test_adopt_dies_anywhere_in_its_transaction_and_nothing_began(
    old: World, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each of the four proposals: no log; adopting again makes all four, the predecessor first."""
    real = create_module.proposal.propose
    before = rows(settings)
    for dies_at in range(4):
        left = iter(range(4))

        def propose(*arguments: object, left=left, dies_at=dies_at, **options: object) -> int:
            if next(left) == dies_at:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(create_module.proposal, "propose", propose)
            with pytest.raises(KeyboardInterrupt):
                adoption.adopt(settings, folder / "out", now=int(time.time()))
        assert rows(settings) == before and not adoption.is_adopted(settings)
    adoption.adopt(settings, folder / "out", now=int(time.time()))
    assert [row[1] for row in rows(settings)["proposal"]] == ["predecessor", *["key-enroll"] * 3]


def test_the_predecessor_is_entry_0_of_the_new_log(old: World, tmp_path: Path) -> None:
    """The first checkpoint holds it, the enrolments and the first `tuf`; a second one gets no index."""
    world = LogWorld(tmp_path)
    try:
        envelope = sign(named(old).statement(LOG), world.authority).to_dict()
        world.create(predecessor=envelope)
        station = world.station()
        station.check_start()
        assert station.sequencer.round() == 0  # it waits for the `tuf` entry, as ever
        world.propose("tuf", world.tuf())
        drain(station)
        logged = entries(world)
        assert [entry.type for entry in logged] == ["predecessor", *["key-enroll"] * 3, "tuf"]
        assert logged[0].envelope is not None
        said = open_predecessor(logged[0].envelope, authority_key=world.trust.authority_key, origin=LOG)
        assert said == named(old)
        again = world.propose("predecessor", envelope)
        drain(station)
        assert world.outcome(again).index is None and world.head().tree_size == 5
        world.check()
    finally:
        world.close()


@pytest.mark.parametrize("signer", ["nobody", "registry"])
def test_a_predecessor_without_the_authority_stops_the_log_before_its_first_entry(
    old: World, tmp_path: Path, signer: str
) -> None:
    """Whatever `adopt` let through, the rules ask again: nothing is signed."""
    world = LogWorld(tmp_path)
    try:
        envelope = sign(named(old).statement(LOG), world.roles["registry"]).to_dict()
        if signer == "nobody":
            envelope["signatures"] = []
        world.create(predecessor=envelope)
        world.propose("tuf", world.tuf())
        station = world.station()
        station.check_start()
        before = world.rows(), world.files()
        with pytest.raises(LogError, match="genesis"):
            station.sequencer.round()
        assert (world.rows(), world.files()) == before
    finally:
        world.close()
