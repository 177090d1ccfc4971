"""trust.py, pins.py and timeline.py where an attack test would not reach."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, TargetFile, Targets

from countermark.clientpolicy import ClientPolicy, Mode, Policies, Rule
from countermark.errors import MalformedError, NetworkError, UsageError
from countermark.freshness import Level
from countermark.pins import Home, RootInfo, normalise_url
from countermark.timeline import SeenTimestamp, Timeline
from countermark.trust import opened
from countermark.tufclient import set_reference_time, tuf_fetcher
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.simulator import HOUR, World


def test_the_reference_time_is_where_we_set_it(tmp_path: Path) -> None:
    """Fails when tuf moves it: expiry must be judged by our time, backwards and forwards."""
    from tuf.api.exceptions import ExpiredMetadataError
    from tuf.ngclient import Updater

    world = World()
    for number, (now, expired) in enumerate([(world.now, False), (world.now + 25 * HOUR, True)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        updater = Updater(
            metadata_dir=str(folder), metadata_base_url=f"{world.base}/tuf", fetcher=tuf_fetcher(world),
            bootstrap=world.root,
        )  # fmt: skip
        set_reference_time(updater, now)
        if expired:
            with pytest.raises(ExpiredMetadataError):
                updater.refresh()
        else:
            updater.refresh()
    updater._trusted_set = object()
    with pytest.raises(RuntimeError, match="reference time"):
        set_reference_time(updater, world.now)


def test_stock_ngclient_reads_the_simulator(tmp_path: Path) -> None:
    """The world is a TUF repository to anybody, our members aside."""
    from tuf.ngclient import Updater

    world = World()
    file = world.publish("acme-demo")
    updater = Updater(
        metadata_dir=str(tmp_path), metadata_base_url=f"{world.base}/tuf", fetcher=tuf_fetcher(world),
        bootstrap=world.root,
    )  # fmt: skip
    set_reference_time(updater, world.now)
    info = updater.get_targetinfo(file.target)
    assert info is not None and info.hashes["sha256"] == file.sha256


def test_freshness_names_the_level_and_who_is_late(tmp_path: Path) -> None:
    """Fresh within 75 min of signing, then ok with the operator named."""
    world = World()
    machine = Machine(tmp_path, world)
    for minutes, level, late in ((0, Level.FRESH, None), (74, Level.FRESH, None), (76, Level.OK, "operator")):
        world.now += minutes * 60
        with opened(machine.registry, world, now=world.now) as view:
            assert view.freshness.level is level
            assert (late or "") in (view.freshness.late or "") and bool(late) == bool(view.freshness.late)
        world.now -= minutes * 60


def test_nothing_is_kept_when_the_block_fails(tmp_path: Path) -> None:
    """The view's metadata and the timeline are kept only after a good end."""
    world = World()
    machine = Machine(tmp_path, world)
    before = machine.snapshot()
    with pytest.raises(ZeroDivisionError), opened(machine.registry, world, now=world.now):
        raise ZeroDivisionError
    assert machine.snapshot() == before
    with opened(machine.registry, world, now=world.now):
        pass
    assert machine.snapshot() != before


def test_two_runs_take_turns(tmp_path: Path) -> None:
    """Threads on one registry: all verify, and the timeline ends at the newest head."""
    world = World()
    file = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(machine.verify(file).exit_code)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
    timeline = Timeline.load(machine.registry.folder / "timeline.json")
    assert timeline.timestamp is not None and timeline.timestamp.size == len(world.entries)


def test_the_timeline_is_written_only_over_what_was_read(tmp_path: Path) -> None:
    """Compare-and-swap: a second writer from the same past is refused."""
    path = tmp_path / "timeline.json"
    seen = SeenTimestamp(1, "aa", 3)
    first, second = Timeline.load(path), Timeline.load(path)
    Timeline(timestamp=seen, loaded=first.loaded).save(path)
    kept = path.read_bytes()
    with pytest.raises(NetworkError, match="another process"):
        Timeline(timestamp=seen, loaded=second.loaded).save(path)
    assert path.read_bytes() == kept
    assert Timeline.load(path).timestamp == seen


def test_a_smaller_head_that_is_a_prefix_is_fine(tmp_path: Path) -> None:
    """One timeline whatever the door: a bundle's older head is checked against the largest, not refused."""
    from countermark.logreader import LogReader
    from countermark.tlog.checkpoint import open_checkpoint

    world = World()
    older = open_checkpoint(world.checkpoint, world.policy, now=world.now)
    world.publish("acme-demo")
    timeline = Timeline(largest=world.checkpoint)
    assert "prefix" in timeline.check_head(LogReader(f"{world.base}/log", older, world))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"null", b"[]", b"\xff", b'{"signed":{},"signatures":[]}', b"x" * 600_000]
)
def test_what_is_no_root_cannot_be_pinned(tmp_path: Path, raw: bytes) -> None:
    """Empty, foreign, oversized: refused, and nothing is written."""
    with pytest.raises(MalformedError):
        Home(tmp_path).add("https://x.test", raw)
    assert not list(tmp_path.rglob("*"))


def test_other_metadata_and_unsigned_roots_cannot_be_pinned(tmp_path: Path) -> None:
    """Targets metadata, and a root below its own threshold."""
    world = World()
    with pytest.raises(MalformedError):
        RootInfo.parse(world.tuf["1.targets.json"])
    import json

    root = json.loads(world.root)
    root["signatures"] = root["signatures"][:1]
    with pytest.raises(MalformedError, match="not a root signed"):
        Home(tmp_path).add("https://x.test", json.dumps(root).encode())
    assert not list(tmp_path.rglob("*"))


def test_urls_have_one_spelling() -> None:
    """Case, slash and /simple/ do not make another registry; passwords and queries do not belong."""
    for url in ("HTTPS://Registry.Test", "https://registry.test/", "https://registry.test/simple/"):
        assert normalise_url(url) == "https://registry.test"
    for url in ("registry.test", "ftp://x", "https://u:p@x.test", "https://x.test/?a=b", ""):
        with pytest.raises(UsageError):
            normalise_url(url)


def test_a_timestamp_signed_for_longer_than_a_day_is_refused(tmp_path: Path) -> None:
    """Its key could freeze the registry for years; our clock is named only as the other possibility."""
    world = World()
    machine = Machine(tmp_path, world)
    world.timestamp_expires_in = 365 * 24 * HOUR
    world.heartbeat()
    machine.refuse(4, "is good for another 8760 h", world.publish("acme-demo"))


def test_a_clock_that_went_back_is_not_fresh(tmp_path: Path) -> None:
    """What was fetched in the future, by `--at` or a wrong clock, was not fetched within five minutes."""
    world = World()
    machine = Machine(tmp_path, world)
    with opened(machine.registry, world, now=world.now + HOUR):
        pass
    world.down = lambda path: True
    with opened(machine.registry, world, now=world.now) as view:
        assert view.freshness.level is Level.OK


def test_a_file_listed_by_another_role_than_its_bin_is_not_listed(tmp_path: Path) -> None:
    """The targets role itself names a file: our index is the bins, and nothing else counts."""
    world = World()
    file = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    ghost = file.target.replace("1.0", "6.6")
    targets = Metadata[Targets].from_bytes(world.tuf["1.targets.json"])
    targets.signed.targets[ghost] = TargetFile.from_data(ghost, b"x", ["sha256"])
    targets.sign(world.keys.tuf["targets"])
    world.tuf["1.targets.json"] = targets.to_bytes()
    with opened(machine.registry, world, now=world.now) as view:
        assert view.target(file.target) is not None
        assert view.target(ghost) is None


def test_offline_claims_only_what_was_checked_and_no_pin(tmp_path: Path) -> None:
    """No step says the bins root was read; a pin that cannot be checked is not taken as met."""
    world = World()
    file = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(file)
    world.down = lambda path: True
    (outcome,) = machine.verify(file).to_json()["artifacts"]
    assert [step["step"] for step in outcome["steps"]] == [1, 3, 10]
    pinned = ClientPolicy(rules=(Rule("acme-*", Mode.ENFORCE, frozenset({"ab" * 32})),))
    report = verify([artifact(file)], machine.registry, world, now=world.now, policies=Policies(local=pinned))
    assert report.exit_code == 3


def test_many_files_ask_for_each_tile_once(tmp_path: Path) -> None:
    """Ten projects in as many bins: a warm machine asks for the moment and the log, and not for each."""
    world = World(bit_length=8)
    files = [world.publish(f"acme-{number}") for number in range(10)]
    machine = Machine(tmp_path, world)
    machine.accept(*files)
    assert len([path for path in world.asked if path.startswith("/tuf/bins/")]) == 1
    assert len(world.asked) < 40, "cold: a bin for each file, and little else"
    world.asked.clear()
    machine.accept(*files)
    assert len(world.asked) == len(set(world.asked)), "nothing is asked for twice"
    assert not [path for path in world.asked if path.startswith("/tuf/bins/")]
    assert len(world.asked) < 11, world.asked
