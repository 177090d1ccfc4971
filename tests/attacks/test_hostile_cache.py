"""What somebody, a crash, or several processes at once can do to a machine's memory of a registry."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from countermark.errors import CountermarkError
from countermark.pins import Home
from countermark.timeline import Timeline
from tests.machine import Machine
from tests.simulator import Published, World

FORK = multiprocessing.get_context("fork")
PINS = ("registry.json", "root.json")  # who can write these decides what is believed here


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_bytes(b"x")


def _link(path: Path) -> None:
    """To a file of the same content elsewhere, which nobody may then write through."""
    kept = path.parent.parent.parent / "kept"
    kept.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(kept)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent.parent / "nowhere")


def _circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


IN_ITS_PLACE: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a folder": _folder,
    "a link": _link,
    "a link to nowhere": _dangling,
    "a link to itself": _circle,
    "nothing": Path.unlink,
}


@contextmanager
def _seconds(limit: int) -> Iterator[None]:
    """A test that waits for a pipe ends here, and not as the OSError that a timeout is."""

    def ring(*_: object) -> None:
        raise AssertionError("waits for ever")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _outcome(machine: Machine, *files: Published) -> int:
    """The exit code of a verification in a process that has yet to read its pins."""
    try:
        machine.registry = Home(machine.home.path).registry(machine.world.base)
        return machine.verify(*files).exit_code
    except CountermarkError as error:
        return error.exit_code


@pytest.fixture
def older(tmp_path: Path, machine: Machine, wheel: Published) -> Path:
    """A copy of the machine's folder from before the registry's last publish."""
    copy = tmp_path / "older"
    shutil.copytree(machine.registry.folder, copy, symlinks=True)
    machine.world.now += 600
    machine.world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    return copy


@pytest.mark.parametrize("how", IN_ITS_PLACE)
@pytest.mark.usefixtures("older")
def test_something_else_in_a_files_place(
    tmp_path: Path, machine: Machine, wheel: Published, how: str
) -> None:
    """Never followed, waited for or crashed on: mended where it is cache, named where it is memory."""
    folder, good = machine.registry.folder, tmp_path / "good"
    shutil.copytree(folder, good, symlinks=True)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", *PINS)]
    assert len(files) >= 10
    for path in files:
        for down in (False, True):
            IN_ITS_PLACE[how](path)
            machine.world.down = lambda path, down=down: down
            with _seconds(10):
                code = _outcome(machine, wheel)
            cached = "tuf" in path.parts
            expected = {0, 3} if down else {0}
            if not cached:  # in the place of verified.txt a folder is named, all else forgotten
                expected = {0, 2, 3} if path.name == "verified.txt" else {0, 2}
            assert code in expected, (path, down, code)
            assert not (tmp_path / "nowhere").exists() and not (machine.home.path / "nowhere").exists()
            if path.name == "timeline.json" and how not in ("a link", "nothing"):
                assert code == 2, "memory that is not there was taken for an empty one"
            shutil.rmtree(folder)
            shutil.copytree(good, folder, symlinks=True)


@pytest.mark.parametrize("how", IN_ITS_PLACE)
def test_something_else_in_a_pins_place(machine: Machine, wheel: Published, how: str) -> None:
    """A link may lead to a pin that is kept elsewhere; everything else is a refusal that names the file."""
    for name in (*PINS, "lock"):
        path = machine.registry.folder / name
        kept = path.read_bytes()
        IN_ITS_PLACE[how](path)
        with _seconds(10):
            code = _outcome(machine, wheel)
        allowed = {"a link": 2 if name == "lock" else 0, "nothing": 0 if name == "lock" else 5}
        if name != "lock" or how != "a pipe":  # a pipe can be locked as well
            assert code == allowed.get(how, 2), (name, code)
        assert not (machine.home.path / "nowhere").exists()
        shutil.rmtree(path) if how == "a folder" else path.unlink(missing_ok=True)
        path.write_bytes(kept)
        machine.accept(wheel)


def test_a_link_in_the_place_of_the_cache(tmp_path: Path, machine: Machine, wheel: Published) -> None:
    """The folder itself replaced: nothing is read or written where it leads, and a folder stands there again."""
    elsewhere = tmp_path / "elsewhere"
    shutil.move(machine.cache, elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    for place in (lambda: machine.cache.symlink_to(elsewhere), lambda: machine.cache.write_bytes(b"x")):
        place()
        for _ in range(2):  # the second time over what the first has left
            machine.accept(wheel)
        assert machine.cache.is_dir() and not machine.cache.is_symlink()
        shutil.rmtree(machine.cache)
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before


def test_a_cache_that_cannot_be_read(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission a cached file is as good as none: fetched again, or missed offline."""
    copy = shutil.copy2
    for path in sorted(path for path in machine.cache.rglob("*") if path.is_file()):

        def deny(source: Path, *rest: object, unreadable: Path = path, **options: object) -> object:
            if source == unreadable:
                raise PermissionError(13, "Permission denied", str(source))
            return copy(source, *rest, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(shutil, "copy2", deny)
        machine.world.down = lambda path: True
        assert _outcome(machine, wheel) in (0, 3)
        machine.world.down = lambda path: False
        machine.accept(wheel)


def test_every_file_of_the_cache_as_it_was_before(machine: Machine, wheel: Published, older: Path) -> None:
    """An older file beside newer ones: mended online, never a step back; the whole cache of then is a rollback."""
    folder = machine.registry.folder
    for path in sorted(path for path in machine.cache.rglob("*") if path.is_file() and not path.is_symlink()):
        past = older / path.relative_to(folder)
        if past.exists() and past.read_bytes() != path.read_bytes():
            shutil.copy(past, path)
            machine.accept(wheel)
    shutil.rmtree(machine.cache)
    shutil.copytree(older / "tuf", machine.cache, symlinks=True)
    machine.world.down = lambda path: True
    machine.refuse(7, "rollback", wheel)
    machine.world.down = lambda path: False
    machine.accept(wheel)


def test_a_forgotten_timeline_leaves_the_cached_timestamp(machine: Machine, wheel: Published) -> None:
    """Who deletes one of the two memories has the other against them."""
    past = machine.world.copy()
    machine.world.now += 600
    machine.world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    timeline = machine.registry.folder / "timeline.json"
    kept = timeline.read_bytes()
    timeline.unlink()
    machine.refuse(7, "rollback", wheel, world=past)
    timeline.write_bytes(kept)
    shutil.rmtree(machine.cache)
    machine.refuse(7, "rollback", wheel, world=past)


# --- several processes, and processes that die --------------------------------------------------------------


def _moments(world: World, count: int) -> list[World]:
    """The registry at several moments, the oldest first."""
    found = [world.copy()]
    for number in range(1, count):
        world.now += 600
        world.publish("acme-demo", f"{number + 1}.0")
        found.append(world.copy())
    for moment in found:
        moment.now = world.now
    return found


def _look(
    machine: Machine, wheel: Published, moments: list[World], seed: int, said: multiprocessing.Queue[str]
) -> None:
    """One process: look at the registry as of random moments; what was accepted once is never undercut."""
    newest, chance = 0, random.Random(seed)
    try:
        for _ in range(12):
            number = chance.randrange(len(moments))
            code = machine.verify(wheel, world=moments[number]).exit_code if number >= newest else None
            if code is None:
                try:
                    machine.verify(wheel, world=moments[number])
                except CountermarkError as error:
                    assert error.exit_code == 7 and "rollback" in str(error), error
                else:
                    raise AssertionError(f"moment {number} was accepted after {newest}")
            elif code == 0:
                newest = max(newest, number)
    except CountermarkError as error:  # another process was further: then nothing older may pass here
        said.put("ok" if error.exit_code == 7 and "rollback" in str(error) else str(error))
    except AssertionError as error:
        said.put(str(error))
    else:
        said.put("ok")


def test_processes_that_see_different_moments_never_lose_the_newest(
    machine: Machine, wheel: Published
) -> None:
    """Six processes at once, each shown any moment: no torn file, and what the last one leaves is the newest seen."""
    moments = _moments(machine.world, 4)
    said = FORK.Queue()
    workers = [FORK.Process(target=_look, args=(machine, wheel, moments, seed, said)) for seed in range(6)]
    for worker in workers:
        worker.start()
    path, sizes = machine.registry.folder / "timeline.json", [0]
    while any(worker.is_alive() for worker in workers):
        seen = Timeline.load(path).timestamp  # a reader without the lock: whole, and never smaller
        assert seen is not None
        sizes.append(seen.size)
    assert [said.get(timeout=30) for _ in workers] == ["ok"] * 6
    assert sizes == sorted(sizes)
    machine.accept(wheel, world=moments[-1])
    for moment in moments[:-1]:
        machine.refuse(7, "rollback", wheel, world=moment)


DURABLE = (
    (os, "replace"),
    (os, "rename"),
    (os, "fsync"),
    (os, "symlink"),
    (shutil, "rmtree"),
    (os, "unlink"),
)


def die_at(call: int, act: Callable[[], object]) -> None:
    """Do it, and die without a word at the given call that changes the disk. For a process of its own (FORK)."""
    count = [0]

    def deadly(real: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object, **options: object) -> object:
            count[0] += 1
            if count[0] == call:
                os._exit(9)
            return real(*args, **options)

        return called

    for module, name in DURABLE:
        setattr(module, name, deadly(getattr(module, name)))
    act()
    os._exit(0)


def test_a_process_killed_anywhere_leaves_all_of_the_memory(
    tmp_path: Path, machine: Machine, wheel: Published
) -> None:
    """Whatever the last call was that reached the disk: the past stays refused, and the present verifies."""
    past = machine.world.copy()
    machine.world.now += 600
    machine.world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    machine.world.now += 600
    machine.world.publish("acme-demo", "3.0")
    good, folder = tmp_path / "good", machine.registry.folder
    shutil.copytree(folder, good, symlinks=True)
    for call in range(1, 100):
        worker = FORK.Process(target=die_at, args=(call, partial(machine.verify, wheel)))
        worker.start()
        worker.join(30)
        assert worker.exitcode in (0, 9)
        past.now = machine.world.now
        with pytest.raises(CountermarkError, match="rollback") as error:
            machine.verify(wheel, world=past)
        assert error.value.exit_code == 7
        machine.accept(wheel)
        assert not [path for path in folder.iterdir() if path.name.startswith(".tuf")]
        shutil.rmtree(folder)
        shutil.copytree(good, folder, symlinks=True)
        if worker.exitcode == 0:
            break
    assert 8 < call < 99, "the walk did not reach the end"
