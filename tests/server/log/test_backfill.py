"""Backfill: the sequencer appends an import's lines, and nothing that happens meanwhile loses or repeats one."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from countermark import rules
from countermark.entry import Entry
from countermark.errors import MalformedError, NetworkError, PolicyError, UsageError
from countermark.manifest import ZERO_NONCE, Line, format_manifest, parse_manifest, predicate
from countermark.statement import Statement, sign
from countermark_server import cli_log, db
from countermark_server.log import backfill
from countermark_server.log.fsck import check_log, read_tree
from countermark_server.log.station import Station
from countermark_server.operate import importing
from countermark_server.operate.giving import give
from countermark_server.operate.importing import Importer, Summary, read_file, read_list
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.stores import heads, places
from countermark_server.stores.folder import Folder
from countermark_server.stores.public import Public
from tests.log_world import NOW, ORIGIN, LogWorld, drain

GENESIS = 4  # entries


def line(number: int, project: str = "old", content: bytes = b"") -> Line:
    name = f"{project}-{number}.tar.gz"
    return Line(project, str(number), name, hashlib.sha256(content or name.encode()).hexdigest(), 10)


@pytest.fixture
def world(database: str, tmp_path: Path):
    world = LogWorld(tmp_path)
    world.begin()
    station = opened(world)
    drain(station)
    station.engine.dispose()
    yield world
    world.close()


def opened(world: LogWorld) -> Station:
    station = world.station()
    station.sequencer.load()
    return station


def begin(world: LogWorld, lines: list[Line], *, keep: bool = True, **said: Any) -> int:
    """Propose an import the way the command does; its manifest is kept, or lost."""
    if keep:
        places.blobs(world.settings).put(ZERO_NONCE + format_manifest(lines))
    before = state(world).get("import")
    prev = before["head"] if before else None
    statement = predicate(lines, origin=ORIGIN, prev=prev, source="old.example") | said
    subject = f"import:{statement['manifest_sha256']}"
    envelope = sign(Statement.about(subject, "import", statement), world.roles["registry"])
    return world.propose("import", envelope.to_dict())


def state(world: LogWorld) -> Any:
    with db.read(world.engine) as connection:
        return SqlView(connection, db.rules_state).get(rules.LOG)


def entries(world: LogWorld) -> list[Entry]:
    """All entries, from the public tree, which fsck finds sound."""
    station = opened(world)
    checkpoint = station.sequencer.checkpoint
    found = read_tree(world.public, checkpoint, world.trust, raw_add=False)
    assert found.findings == []
    tree = Station(
        world.settings, world.trust.policy, world.signers, fetcher=world.fetcher
    ).publisher._tree  # the public one
    read = tree.reader(checkpoint.size, checkpoint.root_hash)
    station.engine.dispose()
    return [Entry.parse(raw) for raw in tree.entries(0, checkpoint.size, read)]


def check(world: LogWorld, lines: list[Line]) -> list[Entry]:
    """Sound storage, and exactly these lines, once each and in order."""
    assert check_log(world.public, world.engine, world.trust) == []
    world.check_signatures()
    log = entries(world)
    found = [entry.imported for entry in log if entry.imported is not None]
    assert [each.line for each in found] == lines
    assert [each.number for each in found] == list(range(1, len(lines) + 1))
    return log


def importer(world: LogWorld, **options: Any) -> Importer:
    return Importer(
        world.engine,
        places.blobs(world.settings),
        Published(_Adopted(world), lambda: NOW),
        origin=ORIGIN,
        signer=world.roles["registry"],
        source="old.example",
        say=options.pop("say", lambda text: None),
        clock=world.clock,
        **({"wait": 20.0} | options),
    )


class _Adopted(Public):
    """The public tree of a world, with the trust file that `adopt` would have put there."""

    def __init__(self, world: LogWorld) -> None:
        super().__init__(Folder(world.settings.data / "public"))


class Running:
    """The log's process, as a thread."""

    def __init__(self, world: LogWorld) -> None:
        self.station = opened(world)
        self.stop = threading.Event()
        work = lambda: self.station.work(self.stop, poll_interval=0.001)  # noqa: E731
        self.thread = threading.Thread(target=work)

    def __enter__(self) -> Station:
        self.thread.start()
        return self.station

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.station.engine.dispose()


def run(world: LogWorld, lines: list[Line], **options: Any) -> Summary:
    """The command, beside a running log."""
    return importer(world, **options).run(read_list(format_manifest(lines).splitlines(keepends=True)))


def test_an_import_that_a_freeze_overtakes_has_no_lines(world: LogWorld) -> None:
    """Both were proposed at once: the log ends with the entry that froze it, instead of dying over a line."""
    begin(world, [line(1), line(2)])
    predicate = {
        "origin": ORIGIN,
        "namespace": "",
        "project": "",
        "prev": state(world)["tuf"]["head"],
        "reason": "successor",
    }
    about = Statement.about(f"log:{ORIGIN}", "log-freeze", predicate)
    frozen = world.propose("log-freeze", sign(about, world.roles["moderation"]).to_dict(), {"case": None})
    station = opened(world)
    drain(station)
    station.engine.dispose()
    assert world.outcome(frozen).index == GENESIS + 1
    last = opened(world)
    assert last.sequencer.round() == 0 and not last.sequencer.importing
    last.engine.dispose()
    check(world, [])


# --- the sequencer --------------------------------------------------------------------------------------
def test_an_import_is_its_entry_and_every_line(world: LogWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across several rounds, in order, without a proposal of their own."""
    monkeypatch.setattr("countermark_server.log.sequence.LINES_PER_ROUND", 300)
    lines = [line(number) for number in range(1, 1001)]
    begin(world, lines)
    station = opened(world)
    rounds = 0
    while station.sequencer.round():
        rounds += 1
    station.publisher.publish(station.sequencer.checkpoint)
    station.engine.dispose()
    assert rounds == 4
    log = check(world, lines)
    assert len(log) == GENESIS + 1 + 1000
    assert (state(world)["import"]["left"], state(world)["import"]["index"]) == (0, GENESIS)


def test_uploads_come_between_the_rounds(world: LogWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proposals of a round come first, so an import delays nobody by more than a round."""
    monkeypatch.setattr("countermark_server.log.sequence.LINES_PER_ROUND", 10)
    lines = [line(number) for number in range(1, 31)]
    begin(world, lines)
    station = opened(world)
    station.sequencer.round()
    live = world.upload(7, project="live")
    station.sequencer.round()
    assert world.outcome(live).index == GENESIS + 1 + 10
    drain(station)
    station.engine.dispose()
    check(world, lines)


def test_a_live_upload_of_a_listed_name_wins_and_stops_nothing(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race: the name is taken while the import runs. The line is passed over in the open."""
    monkeypatch.setattr("countermark_server.log.sequence.LINES_PER_ROUND", 1)
    lines = [line(1, "one"), line(7, "acme"), line(3, "three")]
    begin(world, lines)
    station = opened(world)
    station.sequencer.round()
    live = world.upload(7)
    drain(station)
    station.engine.dispose()
    log = check(world, lines)
    assert world.outcome(live).state == "published"
    assert [entry.imported.passed for entry in log if entry.imported] == [None, "file-exists", None]
    with db.read(world.engine) as connection:
        file = SqlView(connection, db.rules_state).get(rules.file_key("", "acme", "acme-7.tar.gz"))
    assert file is not None
    assert (file["uploader"], file.get("import")) == ("a1" * 16, None)


@pytest.mark.parametrize("how", ["missing", "changed", "private", "another"])
def test_a_manifest_that_cannot_be_had_stops_the_import_and_not_the_log(world: LogWorld, how: str) -> None:
    """Uploads go on; once the blob is back, so does the import."""
    lines = [line(1), line(2)]
    blobs = places.blobs(world.settings)
    raw = ZERO_NONCE + format_manifest(lines)
    path = Folder(world.settings.data / "blobs").root
    name = hashlib.sha256(raw).hexdigest()
    if how == "changed":
        (path / name[:2]).mkdir(parents=True)
        (path / name[:2] / name).write_bytes(raw.replace(b"old-1", b"old-9"))
        begin(world, lines, keep=False)
    elif how == "missing":
        begin(world, lines, keep=False)
    elif how == "private":
        begin(world, lines, manifest_sha256=blobs.put(b"\1" * 32 + format_manifest(lines)))
    else:
        begin(world, lines, manifest_sha256=blobs.put(ZERO_NONCE + format_manifest(lines[::-1])))
    station = opened(world)
    drain(station)
    live = world.upload(7)
    drain(station)
    assert world.outcome(live).index == GENESIS + 1
    assert state(world)["import"]["left"] == 2
    station.engine.dispose()
    if how == "missing":
        blobs.put(raw)
        station = opened(world)
        drain(station)
        station.engine.dispose()
        check(world, lines)
    else:  # the way out: the next import ends it
        begin(world, [line(3)])
        station = opened(world)
        drain(station)
        station.engine.dispose()
        assert state(world)["import"]["left"] == 0
        assert check_log(world.public, world.engine, world.trust) == []


def test_a_blob_that_is_asked_for_again_after_a_while(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was away is not asked in every round, and not given up either."""
    lines = [line(1)]
    begin(world, lines, keep=False)
    monkeypatch.setattr(backfill, "RETRY_SECONDS", 60.0)
    station = opened(world)
    seconds = [0.0]
    station.sequencer._backfill._monotonic = lambda: seconds[0]  # type: ignore[union-attr]
    drain(station)
    assert not station.sequencer.importing
    places.blobs(world.settings).put(ZERO_NONCE + format_manifest(lines))
    assert station.sequencer.round() == 0
    seconds[0] = 61.0
    assert station.sequencer.importing
    drain(station)
    station.engine.dispose()
    check(world, lines)


@pytest.mark.parametrize("at", range(1, 9))
def test_killed_at_any_durable_step_the_import_goes_on_where_it_was(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A real SIGKILL in the log's process; after the restart exactly the manifest's lines, once each."""
    monkeypatch.setattr("countermark_server.log.sequence.LINES_PER_ROUND", 40)
    lines = [line(number) for number in range(1, 201)]
    begin(world, lines)
    world.engine.dispose()
    child = os.fork()
    if child == 0:
        steps = [0]

        def counted(real: Any) -> Any:
            def step(*args: Any, **kwargs: Any) -> Any:
                steps[0] += 1
                if steps[0] == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return step

        for where, name in ((heads, "swap"), (Public, "put_all"), (Station, "_round")):
            setattr(where, name, counted(getattr(where, name)))
        station = opened(world)
        while True:
            station._round()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    station = opened(world)
    drain(station)
    station.engine.dispose()
    check(world, lines)


# --- the command ----------------------------------------------------------------------------------------
@pytest.fixture
def adopted(world: LogWorld, monkeypatch: pytest.MonkeyPatch) -> LogWorld:
    monkeypatch.setattr("countermark_server.adopted.trust_file", lambda public: world.trust)
    monkeypatch.setattr(importing, "LOOK", 0.005)
    return world


def test_a_second_run_appends_nothing(adopted: LogWorld) -> None:
    """Idempotent: the same list again, and again in another spelling and order."""
    lines = [line(number) for number in range(1, 51)]
    with Running(adopted):
        first = run(adopted, lines)
        size = adopted.published_size()
        again = run(adopted, lines)
        loose = [b"# comment\n", b"\n"] + [each.row.replace(b"old ", b"OLD\t", 1) for each in reversed(lines)]
        third = importer(adopted).run(read_list(loose))
    assert (first.recorded, first.imports, first.passed) == (50, [GENESIS], {})
    assert (again.recorded, again.known, again.imports) == (0, 50, [])
    assert (third.recorded, third.known, third.imports) == (0, 50, [])
    assert adopted.published_size() == size == GENESIS + 51
    check(adopted, lines)


def test_a_longer_list_adds_what_is_new(adopted: LogWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second import of its own; and a list longer than a manifest may be is several."""
    monkeypatch.setattr("countermark.manifest.MANIFEST_MAX_LINES", 20)
    lines = [line(number) for number in range(1, 31)]
    with Running(adopted):
        assert run(adopted, lines[:10]).imports == [GENESIS]
        summary = run(adopted, lines)
    assert (summary.known, summary.recorded, len(summary.imports)) == (10, 20, 1)
    with Running(adopted):
        more = run(adopted, [line(number) for number in range(1, 72)])
    assert (more.recorded, len(more.imports)) == (41, 3)


def test_a_run_that_comes_after_a_killed_one_waits_for_its_import(adopted: LogWorld) -> None:
    """The command died behind its proposal: the log goes on alone, and the next run finds nothing left to do."""
    lines = [line(number) for number in range(1, 101)]
    begin(adopted, lines)
    told: list[str] = []
    station = opened(adopted)
    station.sequencer.round()
    station.engine.dispose()
    with Running(adopted):
        summary = run(adopted, lines, say=told.append)
    assert (summary.known, summary.imports) == (100, [])
    assert told == ["nothing to import: the log knows these files"]
    check(adopted, lines)


def test_without_a_log_the_command_says_so_and_loses_nothing(adopted: LogWorld) -> None:
    """The proposal waits; the run after the next start finds everything done."""
    lines = [line(1), line(2)]
    with pytest.raises(NetworkError, match="not in the log yet") as caught:
        run(adopted, lines, wait=0.05)
    assert caught.value.hint == "is `work log` running?"
    with Running(adopted):
        begun = run(adopted, lines)
    assert begun.recorded + begun.known == 2
    assert len([entry for entry in entries(adopted) if entry.imported]) == 2


def test_an_import_that_stands_still_is_said_and_can_be_ended(adopted: LogWorld) -> None:
    """Its manifest is lost: the command does not wait for ever, and --abandon-open ends it in the open."""
    begin(adopted, [line(1), line(2)], keep=False)
    with Running(adopted):
        station_size = GENESIS + 1
        while adopted.published_size() < station_size:
            pass
        with pytest.raises(NetworkError, match=f"import #{GENESIS} stands still at line 1, 2 are left"):
            run(adopted, [line(2)], wait=0.2)
        read = read_list([line(2).row])
        summary = importer(adopted).run(read, abandon=True)
    assert summary.recorded == 1


def test_unfit_lines_stop_an_import_before_it_begins(adopted: LogWorld) -> None:
    """Other bytes under a known name, two hashes in one list, no file name: nothing is imported unless asked."""
    adopted.upload(7)
    station = opened(adopted)
    drain(station)
    station.engine.dispose()
    size = adopted.published_size()
    rows = [
        line(1).row,
        line(7, "acme", b"other bytes").row,
        line(1, content=b"again").row,
        b"old 2 old-2.exe " + b"0" * 64 + b" 5\n",
        line(1).row,
    ]
    told: list[str] = []
    with pytest.raises(PolicyError, match="3 lines can't be imported; nothing was"):
        importer(adopted, say=told.append).run(read_list(rows))
    assert [text.partition(":")[0] for text in told] == ["line 2", "line 3", "line 4"]
    assert adopted.published_size() == size
    with Running(adopted):
        summary = importer(adopted).run(read_list(rows), skip_unfit=True)
    assert (summary.recorded, summary.unfit, summary.repeated) == (1, 3, 1)


def test_a_project_that_signs_is_unfit(adopted: LogWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rules would pass over is found before anything is signed."""
    monkeypatch.setattr(importing, "why_passed_over", lambda *_: "signature-required")
    with pytest.raises(PolicyError, match="1 lines"):
        importer(adopted).run(read_list([line(1).row]))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=30) | st.sampled_from([line(1).row, line(2).row]), max_size=6))
def test_any_bytes_are_a_list_or_unfit(rows: list[bytes]) -> None:
    """Hostile lists: what is read is well-formed, everything else has a reason."""
    read = read_list(rows)
    assert len(read.lines) == len(read.numbers)
    if read.lines:
        assert parse_manifest(format_manifest(read.lines)) == read.lines
    for each in read.unfit:
        assert each.reason


def test_a_list_that_holds_nothing_is_a_usage_error(tmp_path: Path) -> None:
    """Missing, empty, or comments only; and a line without end is not read whole."""
    with pytest.raises(UsageError, match="cannot read"):
        read_file(tmp_path / "none")
    (tmp_path / "empty").write_text("# nothing\n\n")
    with pytest.raises(UsageError, match="names no file"):
        read_file(tmp_path / "empty")
    (tmp_path / "endless").write_bytes(b"x" * 100_000)
    assert len(read_file(tmp_path / "endless").unfit) > 1


def test_every_row_of_the_state_is_written(world: LogWorld) -> None:
    """What prefetch and the bulk write leave is what a replay of the log makes."""
    lines = [line(number, project) for project in ("a", "b", "c") for number in range(1, 400)]
    begin(world, lines)
    station = opened(world)
    drain(station)
    station.engine.dispose()
    check(world, lines)
    with db.read(world.engine) as connection:
        keys = set(connection.execute(select(db.rules_state.c.key)).scalars())
    assert sum(key.startswith('["file",') for key in keys) == len(lines)
    with pytest.raises(MalformedError):
        parse_manifest(b"")


def test_the_registry_gives_an_imported_project_its_owner(adopted: LogWorld) -> None:
    """Once, to one account; a project that somebody owns, or that nobody knows, is not given away."""
    with Running(adopted):
        run(adopted, [line(1)])
        told = {"origin": ORIGIN, "signer": adopted.roles["registry"], "wait": 20.0, "now": NOW}
        with pytest.raises(PolicyError, match="no entry yet"):
            give(adopted.engine, "unknown", "b0" * 16, **told)
        index = give(adopted.engine, "Old", "b0" * 16, **told)
        size = adopted.head().tree_size
        for project in ("old", "OLD"):
            with pytest.raises(PolicyError, match="may not act"):
                give(adopted.engine, project, "c0" * 16, **told)
        assert adopted.head().tree_size == size
    with db.read(adopted.engine) as connection:
        holder = SqlView(connection, db.rules_state).get(rules.project_key("", "old"))
    assert holder is not None
    assert (index, holder["owners"]) == (GENESIS + 2, {"b0" * 16: "owner"})


def test_a_project_is_not_given_to_an_account_that_nobody_made(
    adopted: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped login would own the name for ever: no account is made for it, and nothing is proposed."""
    monkeypatch.setattr(cli_log, "settings_of", lambda data: adopted.settings)
    before = adopted.rows()
    with pytest.raises(UsageError, match="there is no account adda; old stays without an owner"):
        cli_log.give_project.main(["--data", ".", "old", "adda"], standalone_mode=False)
    assert adopted.rows() == before
