"""What an audit saves as replayable convinces a stranger who has the log; an honest registry can't be accused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from countermark import cli
from countermark.audit_report import CHECKS
from countermark.errors import CountermarkError, EvidenceError, NetworkError
from countermark.evidence import Evidence, EvidenceClass, parse
from countermark.evidence_check import Checked, check
from countermark.evidence_replay import FolderFetcher, check_by_replay
from countermark.serving import in_background
from countermark.tlog.tile import WIDTH, new_tiles
from countermark.tufjson import Root
from tests.attacks.test_audit_finds import FAULTS, Scene
from tests.machine import Machine
from tests.mutations import sampled
from tests.simulator import World

REPLAYABLE = sorted(
    name for name, fault in FAULTS.items() if CHECKS[fault.code].evidence is EvidenceClass.REPLAYABLE
)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    world = World()
    wheel = world.publish("acme-demo")
    world.publish("beta", signed=False)
    scene = Scene(world, wheel, Machine(tmp_path / "home", world))
    scene.settle()
    return scene


def accused(scene: Scene, name: str) -> tuple[Evidence, int, Path]:
    """The evidence file that the audit wrote of this fault."""
    fault = FAULTS[name]
    if fault.audited_before:
        scene.audit()
    fault.plant(scene)
    found = [found for found in scene.audit().findings if found.code == fault.code]
    assert found and found[0].evidence is not None, found
    path = Path(found[0].evidence)
    return *parse(path.read_bytes()), path


def replayed(evidence: Evidence, time: int, world: World) -> Checked:
    return check_by_replay(evidence, time, Root.parse(world.root), fetcher=world, log=f"{world.base}/log")


@pytest.mark.parametrize("name", REPLAYABLE)
def test_what_is_saved_as_replayable_convinces_with_the_log(scene: Scene, name: str) -> None:
    """Every such finding: without the log it is only claimed, with the log it is proved, and says the same."""
    evidence, time, _ = accused(scene, name)
    assert evidence.kind is EvidenceClass.REPLAYABLE
    before = check(evidence, time, Root.parse(scene.world.root))
    assert not before.proved and "--replay" in before.sentences[2]
    found = replayed(evidence, time, scene.world)
    assert found.proved and found.kind is EvidenceClass.REPLAYABLE and found.replayed
    assert found.to_json()["replayed"] == found.replayed <= len(scene.world.entries)
    assert scene.world.origin in found.sentences[0] and "w1" in found.sentences[1]


@pytest.mark.parametrize("name", REPLAYABLE)
def test_altered_evidence_accuses_nobody(scene: Scene, name: str) -> None:
    """A lie in any object is refused, or the very same contradiction is still shown; never a crash, never another."""
    evidence, time, _ = accused(scene, name)
    honest = replayed(evidence, time, scene.world)
    for part, raw in evidence.objects.items():
        others = [(other, evidence.objects[other]) for other in evidence.objects if other != part]
        for mutant in sampled(raw, others, count=12, seed=f"{name} {part}"):
            altered = replace(evidence, objects={**evidence.objects, part: mutant.raw})
            try:
                found = replayed(altered, time, scene.world)
            except CountermarkError as error:
                assert error.exit_code in (5, 7), (part, str(mutant), error)  # 5: a trust file nobody accepts
                continue
            assert found.sentences[:1] == honest.sentences[:1], (part, str(mutant))


def test_an_honest_registry_can_not_be_accused(scene: Scene) -> None:
    """True objects of a true registry, however they are put together: the replay finds nothing."""
    world = scene.world
    world.yank(scene.wheel)
    world.release()
    scene.settle()
    trust = world.trust_file.format()
    keys = {"root": world.root, "trust-file": trust, "checkpoint": world.checkpoint}
    claims = [{"timestamp": world.tuf["timestamp.json"]}]
    claims += [{f"entry-{index}": raw} for index, raw in enumerate(world.entries)]
    for number, leaf in enumerate(world.bin_leaves):
        shown = {"bin": world.tuf[f"{leaf.version}.{leaf.role}.json"], "bin-leaf": leaf.format()}
        proof = b"".join(bins_tree(world).prove(number))
        claims.append({"timestamp": world.tuf["timestamp.json"], "bin-proof": proof, **shown})
    for claim in claims:
        evidence = Evidence(EvidenceClass.REPLAYABLE, ["they cheat"], {**keys, **claim}, world.base)
        with pytest.raises(EvidenceError, match="none of them contradicts"):
            replayed(evidence, 1, world)
    strange = Evidence(EvidenceClass.REPLAYABLE, [], {**keys, "entry-3": world.entries[4]}, world.base)
    with pytest.raises(EvidenceError, match="is not the entry in this file"):
        replayed(strange, 1, world)


def bins_tree(world: World):  # type: ignore[no-untyped-def]
    from countermark.bins import BinsTree

    return BinsTree.build([leaf.leaf_hash for leaf in world.bin_leaves])


def test_a_log_that_was_rewritten_since_convinces_nobody_else(scene: Scene) -> None:
    """The bad entry is gone from the log that is served: its tiles no longer lead to what the quorum signed."""
    evidence, time, _ = accused(scene, "the_log_takes_what_is_no_entry")
    rewritten = World()
    for name in ("acme-demo", "beta", "gamma", "delta"):
        rewritten.publish(name)
    rewritten.log_size = scene.world.log_size
    with pytest.raises(EvidenceError, match="lead"):
        replayed(evidence, time, rewritten)
    scene.world.down = lambda path: path.startswith("/log/tile/")
    with pytest.raises(NetworkError):
        replayed(evidence, time, scene.world)


def test_by_command_from_the_registry_and_from_a_copy(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`evidence check --replay`: over HTTP, and from a folder with a copy and a root, where nothing is pinned."""
    evidence, _, path = accused(scene, "the_log_takes_what_is_no_entry")
    assert len(scene.world.entries) < WIDTH
    copy, root = tmp_path / "copy", tmp_path / "root.json"
    for tile in new_tiles(0, scene.world.log_size):
        for each in (tile, *([tile.bundle()] if tile.level == 0 else [])):
            file = copy / each.path()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(scene.world._tile(each) or b"")
    root.write_bytes(scene.world.root)
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "empty"))
    argv = ["evidence", "check", str(path), "--replay", "--root", str(root)]
    assert cli.main([*argv, "--log", str(copy), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proved"] and told["replayed"] == scene.world.log_size and told["class"] == "replayable"
    with in_background(scene.world.answer) as url:
        assert cli.main([*argv, "--log", f"{url}/log"]) == 0
    out = capsys.readouterr().out
    assert "breaks a rule" in out and len(out.splitlines()) == 3
    assert cli.main(argv) == 5, "the address in the file is not asked unless it is pinned"
    assert cli.main([*argv, "--log", str(tmp_path / "nowhere")]) == 3
    (copy / f"tile/entries/000.p/{scene.world.log_size}").write_bytes(b"junk")
    assert cli.main([*argv, "--log", str(copy)]) == 7
    with pytest.raises(NetworkError):
        FolderFetcher().post("x", b"")
    assert evidence.registry == scene.world.base
