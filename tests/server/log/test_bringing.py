"""`import --files`: bytes of imported files from a folder; what is wrong with one is told, the rest is done."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countermark.errors import PolicyError, UsageError
from countermark.manifest import Line
from countermark_server import cli_log, closing, db, submission
from countermark_server.moderation.decisions import Decision, Desk
from countermark_server.operate import bringing, imported, importing
from countermark_server.operate.bringing import Bringer, Brought
from countermark_server.operate.importing import Importer, Read, Summary
from countermark_server.published import Published
from countermark_server.settings import Upload
from countermark_server.stores import places
from countermark_server.stores.blobs import Blobs
from tests.archives import Zip, ZipMember, sdist, wheel, wheel_files
from tests.doors import DoorWorld
from tests.log_world import NOW, ORIGIN
from tests.server.log.test_rebuild import empty_database, rebuild

FILES = {
    "demo-1.0.tar.gz": sdist(),
    "demo-1.0-py3-none-any.whl": wheel(),
    "demo-2.0.tar.gz": sdist(version="2.0"),
    "other-1.0.tar.gz": sdist("other"),
}


def line(filename: str, data: bytes) -> Line:
    project, version = filename.removesuffix(".tar.gz").split("-")[:2]
    return Line(project, version, filename, hashlib.sha256(data).hexdigest(), len(data)).check()


LINES = [line(name, data) for name, data in FILES.items()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, either_backend: str) -> Iterator[DoorWorld]:
    yield from begun(tmp_path, monkeypatch)


@pytest.fixture
def forked_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[DoorWorld]:
    """With files on this machine: the client of an object store has threads that a forked child lacks."""
    yield from begun(tmp_path, monkeypatch)


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DoorWorld]:
    monkeypatch.setattr(importing, "LOOK", 0.005)
    world = DoorWorld(tmp_path / "data")
    with world.run():
        imports(world, LINES)
        yield world
    world.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Another registry's files, in folders of its own."""
    folder = tmp_path / "files"
    for name, data in FILES.items():
        path = folder / name[:2] / hashlib.sha256(data).hexdigest()[:8] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return folder


def imports(world: DoorWorld, lines: list[Line]) -> Summary:
    importer = Importer(
        world.engine,
        places.blobs(world.settings),
        Published(world.public, world.clock),
        origin=ORIGIN,
        signer=world.roles["registry"],
        source="old.example",
        say=lambda text: None,
        clock=world.clock,
        wait=20.0,
    )
    return importer.run(Read(lines, list(range(len(lines)))))


def brings(world: DoorWorld, folder: Path, lines: list[Line] | None = None, **options: Any) -> Brought:
    bringer = Bringer(
        options.pop("settings", world.settings),
        options.pop("engine", world.engine),
        places.blobs(world.settings),
        Published(world.public, world.clock),
        say=options.pop("say", lambda text: None),
        clock=world.clock,
        **options,
    )
    return bringer.run(LINES if lines is None else lines, folder)


def path_of(folder: Path, name: str) -> Path:
    (path,) = folder.rglob(name)
    return path


def test_the_bytes_of_a_folder_begin_their_journey(world: DoorWorld, folder: Path) -> None:
    """From any depth; no entry is made, each is held against its leaf, and none is shown as uploaded."""
    size = world.head().tree_size
    found = brings(world, folder)
    assert (found.imported, found.before, found.brought, found.without) == (4, 0, 4, [])
    assert found.bytes == sum(map(len, FILES.values()))
    rows = {row["served_name"]: row for row in world.submissions()}
    assert rows.keys() == FILES.keys()
    for name, row in rows.items():
        assert (row["state"], row["uploader"], row["uploaded"]) == ("logged", None, NOW)
        assert row["import_index"] is not None
        assert places.blobs(world.settings).read(row["sha256"]) == FILES[name]
    assert world.head().tree_size == size
    assert not list((world.settings.data / "incoming").iterdir()), "a second copy stayed behind"
    (said,) = world.client.get("/api/v1/files/other").get_json()["files"]
    assert said["message"].startswith(
        f"imported by entry {said['import']}, not signed; first seen by the log at"
    )
    assert "uploaded" not in json.dumps(said)


def test_a_second_run_reads_no_file(world: DoorWorld, folder: Path, tmp_path: Path) -> None:
    """Bytes that came before, by this command or an owner's upload, are left alone and counted."""
    assert brings(world, folder).brought == 4
    before = world.state()
    (tmp_path / "empty").mkdir()
    again = brings(world, tmp_path / "empty")
    assert (again.imported, again.before, again.brought, again.without) == (4, 4, 0, [])
    assert world.state() == before


def _missing(path: Path) -> None:
    path.unlink()


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _other(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (_missing, "missing", "no file of this name"),
        (_longer, "changed", "bytes, entry"),
        (_other, "changed", "has SHA-256"),
        (_pipe, "missing", "no file of this name"),
        (_folder, "missing", "no file of this name"),
    ],
)
def test_a_file_that_is_not_the_line_s_is_told_and_the_rest_is_done(
    world: DoorWorld, folder: Path, fault: Callable[[Path], None], code: str, words: str
) -> None:
    """Missing or changed: by name and reason, nothing of it is stored; put right, the next run completes."""
    name = "demo-1.0-py3-none-any.whl"
    path = path_of(folder, name)
    fault(path)
    told: list[str] = []
    found = brings(world, folder, say=told.append)
    assert (found.brought, [(each.filename, each.code) for each in found.without]) == (3, [(name, code)])
    (said,) = told
    assert said.startswith(f"{name}: ") and words in said
    assert name not in {row["served_name"] for row in world.submissions()}
    place = folder / "again"
    place.mkdir()
    (place / name).write_bytes(FILES[name])
    done = brings(world, folder)
    assert (done.before, done.brought, done.without) == (3, 1, [])


def test_of_several_files_of_a_name_the_right_one_is_taken(world: DoorWorld, folder: Path) -> None:
    """A name says little: whichever has the leaf's bytes is the file."""
    for place in ("aa", "zz"):
        (folder / place).mkdir()
        (folder / place / "demo-1.0.tar.gz").write_bytes(b"x" * len(FILES["demo-1.0.tar.gz"]))
    assert brings(world, folder).brought == 4


def test_a_file_that_vanishes_under_us_is_told(
    world: DoorWorld, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found and gone, as on a network's file system: unreadable, and no other file is concerned."""
    monkeypatch.setattr(bringing, "find", lambda *_: {LINES[0].filename: [folder / "gone"]})
    found = brings(world, folder, LINES[:1])
    assert [(each.code, "gone: No such file" in each.detail) for each in found.without] == [
        ("unreadable", True)
    ]


def test_an_archive_that_no_upload_could_be_is_refused_alike(world: DoorWorld, folder: Path) -> None:
    """The leaf's very bytes, and no archive; or longer than this registry takes: told with the door's own code."""
    data = b"no archive"
    imports(world, [line("bad-1.0.tar.gz", data)])
    (folder / "bad-1.0.tar.gz").write_bytes(data)
    found = brings(world, folder, [line("bad-1.0.tar.gz", data)])
    assert [each.code for each in found.without] == ["archive-malformed"]
    small = replace(world.settings, upload=Upload(max_bytes=100))
    assert {each.code for each in brings(world, folder, settings=small).without} == {"too-large"}
    assert world.submissions() == []
    assert not list(world.settings.data.glob("blobs/*/" + hashlib.sha256(data).hexdigest()))


def test_what_was_taken_down_is_not_brought(world: DoorWorld, folder: Path) -> None:
    """Its bytes are wanted no more: counted, and not missed."""
    desk = Desk(world.engine, origin=ORIGIN, signer=world.roles["moderation"], wait=10.0, clock=world.clock)
    desk.decide(Decision("takedown", "other", "other-1.0.tar.gz", "malware", moderator="ee" * 16))
    world.quiet()
    found = brings(world, folder)
    assert (found.imported, found.brought, found.removed, found.without) == (3, 3, 1, [])
    assert "other" not in {row["project"] for row in world.submissions()}


def test_what_the_log_does_not_know_or_somebody_uploaded_is_left_alone(
    world: DoorWorld, folder: Path
) -> None:
    """A line that was never imported, one whose hash is another than the leaf's: no business of this command."""
    lines = [line("new-1.0.tar.gz", b"new"), replace(LINES[0], sha256="ab" * 32)]
    found = brings(world, folder, lines)
    assert (found.imported, found.brought, found.without) == (0, 0, [])


def test_a_frozen_registry_takes_no_bytes(world: DoorWorld, folder: Path) -> None:
    """Nobody could scan or list them any more; nothing is left behind but a blob that no row names."""
    with db.write(world.engine) as connection:
        closing.begin(connection, ORIGIN, "retired", now=NOW)
    rows = world.rows()
    with pytest.raises(PolicyError, match="the log is frozen"):
        brings(world, folder)
    assert world.rows() == rows


def test_a_folder_that_is_none_is_a_usage_error(world: DoorWorld, folder: Path) -> None:
    """Mistyped: said at once, and not as so many missing files."""
    with pytest.raises(UsageError, match="is not a folder"):
        brings(world, folder / "none")


def test_how_far_it_is_and_how_long_it_will_take(world: DoorWorld, folder: Path) -> None:
    """By bytes, once a second: a line for each of these slow files."""
    seconds = iter(range(100))
    told: list[str] = []
    brings(world, folder, say=told.append, monotonic=lambda: float(next(seconds)))
    assert [text.split(",")[0] for text in told] == [f"bytes: file {n} of 4" for n in (1, 2, 3, 4)]
    assert told[-1].endswith(" 0 s to go")


def test_memory_does_not_grow_with_a_file(world: DoorWorld, tmp_path: Path) -> None:
    """A wheel of 48 MB goes through in pieces."""
    members = wheel_files("big", files={"big/data.bin": bytes(48 << 20)})
    data = Zip([ZipMember(name.encode(), raw, method=0) for name, raw in members.items()]).build()
    large = line("big-1.0-py3-none-any.whl", data)
    imports(world, [large])
    (tmp_path / large.filename).write_bytes(data)
    del members, data
    tracemalloc.start()
    try:
        assert brings(world, tmp_path, [large]).brought == 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


STEPS = ((Blobs, "keep"), (submission, "bring"))


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize("step", STEPS, ids=["blob", "row"])
@pytest.mark.parametrize("at", [1, 3])
def test_killed_at_any_durable_step_the_same_command_completes_it(
    forked_world: DoorWorld, folder: Path, step: tuple[Any, str], when: str, at: int
) -> None:
    """A real SIGKILL around the blob and the row of one file: nothing is lost, doubled or left behind."""
    world = forked_world
    size = world.head().tree_size
    child = os.fork()
    if child == 0:
        where, name = step
        real, calls = getattr(where, name), [0]

        def dies(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == at and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*args, **kwargs)
            if calls[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(where, name, dies)
        engine = db.open_engine(world.settings.database_url)
        brings(world, folder, engine=engine)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert len(world.submissions()) == at - 1  # a row that was not committed is none
    found = brings(world, folder)
    assert (found.imported, found.before, found.brought, found.without) == (4, at - 1, 5 - at, [])
    assert {row["served_name"] for row in world.submissions()} == FILES.keys()
    assert world.head().tree_size == size
    assert not list((world.settings.data / "incoming").iterdir())
    assert brings(world, folder).before == 4


@pytest.mark.usefixtures("either_backend")
def test_after_a_rebuild_bytes_that_the_store_kept_are_taken_up_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each blob is read and held against its leaf; a lost one and a false one stay without, and can be brought."""
    monkeypatch.setattr(imported, "ROWS", 2)
    world = DoorWorld(tmp_path / "data")
    with world.run():
        world.person("ada").upload("aaa-1.0.tar.gz", sdist("aaa"))  # rows of other files between
        imports(world, LINES)
        brings(world, folder)
        world.quiet()
    before = [{**row, "id": 0} for row in world.submissions() if row["import_index"] is not None]
    store = places.place(world.settings, "blobs")
    lost, false = (f"{each.sha256[:2]}/{each.sha256}" for each in LINES[:2])
    for name in (lost, false):
        store.remove(name)
    store.write({false: b"x" * LINES[1].length})
    empty_database(world)
    rebuild(world)
    told: list[Any] = []

    def settle(connection: Any, number: int, key: Any, made: bool) -> None:
        told.append((key[3], made))

    def regains(public_size: int) -> tuple[int, int]:
        found = imported.regain(
            world.engine,
            places.blobs(world.settings),
            world.settings.upload,
            settle,
            lambda *_: None,
            public_size=public_size,
        )
        return found.brought, found.without

    assert regains(0) == (0, 4)
    assert regains(world.published_size()) == (2, 2)
    assert told == [(each.name.normalised, True) for each in LINES[2:]]
    assert regains(world.published_size()) == (0, 2)
    store.remove(false)
    assert brings(world, folder).brought == 2
    after = [{**row, "id": 0} for row in world.submissions()]
    assert sorted(after, key=str) == sorted(before, key=str)
    world.close()


def test_the_command_says_what_is_without_bytes_and_how_many(
    world: DoorWorld,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 5 with the summary on stdout as ever; then the file is there, and the same command ends well."""
    monkeypatch.setattr(cli_log, "settings_of", lambda data: world.settings)
    monkeypatch.setattr("countermark_server.signing.role_signer", lambda *_: world.roles["registry"])
    history = tmp_path / "history.txt"
    history.write_bytes(b"".join(each.row for each in LINES))
    path = path_of(folder, "other-1.0.tar.gz")
    data = path.read_bytes()
    path.unlink()
    command = ["--data", ".", "--source", "old.example", str(history), "--files", str(folder)]
    with pytest.raises(PolicyError, match="1 of 4 imported files are still without bytes") as caught:
        cli_log.import_.main([*command, "--json"], standalone_mode=False)
    assert caught.value.exit_code == 5
    out = capsys.readouterr().out
    files = json.loads(out[out.index("{\n") : out.rindex("\n}") + 2])["files"]
    assert (files["brought"], files["without_bytes"]) == (3, 1)
    assert [each["filename"] for each in files["without"]] == ["other-1.0.tar.gz"]
    path.write_bytes(data)
    cli_log.import_.main(command, standalone_mode=False)
    assert "files brought        1\n" in capsys.readouterr().out
    missing = [*command[:-1], str(folder / "none")]
    with pytest.raises(UsageError, match="is not a folder"):
        cli_log.import_.main(missing, standalone_mode=False)
