"""Uploads that come together share one transaction; each is answered for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countermark_server.app import create_app
from countermark_server.settings import Entries
from countermark_server.upload.receive import Receiver
from tests.archives import wheel
from tests.doors import DoorWorld

pytestmark = pytest.mark.usefixtures("database")

Change = Callable[[Sequence[Any]], Sequence[Any]]
together = Receiver._propose_together  # as it is, before a test changes it


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path, wait=0.05)
    with made.run():
        pass  # the genesis is published; from here on the log rests, and proposals wait
    yield made
    made.close()


class Gate:
    """Holds the first transaction back until the others are seated, so that the second takes them all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, change: Change = lambda asked: asked) -> None:
        self.sizes: list[int] = []
        self.open, self.held = threading.Event(), threading.Event()

        def propose(receiver: Receiver, asked: Sequence[Any]) -> Any:
            self.sizes.append(len(asked))
            if len(self.sizes) == 1:
                self.held.set()
                assert self.open.wait(30)
            return together(receiver, change(asked))

        monkeypatch.setattr(Receiver, "_propose_together", propose)

    def send(self, world: DoorWorld, files: Sequence[tuple[str, bytes]]) -> list[Any]:
        """The answer to each upload: the first alone, the rest together."""
        ada, answers = world.person("ada"), dict[int, Any]()
        seated = threading.Semaphore(0)

        def one(number: int) -> None:
            seated.release()
            answers[number] = ada.upload(*files[number])

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(files))]
        threads[0].start()
        assert self.held.wait(30)
        for thread in threads[1:]:
            thread.start()
        for _ in threads:
            assert seated.acquire(timeout=30)
        wait_until(lambda: len(waiting(world)) == len(files) - 1)
        self.open.set()
        for thread in threads:
            thread.join()
        return [answers[number] for number in range(len(files))]


def waiting(world: DoorWorld) -> list[Any]:
    """Those who sit, of the one receiver there is."""
    view = world.app.view_functions["upload.legacy"]
    (receiver,) = [
        cell.cell_contents for cell in view.__closure__ or () if isinstance(cell.cell_contents, Receiver)
    ]
    return list(receiver._propose._seated)


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to that")


def name(version: int) -> str:
    return f"demo-{version}-py3-none-any.whl"


def demo(version: int, extra: str = "") -> bytes:
    return wheel(version=str(version), extra=extra)


def codes(answers: Sequence[Any]) -> list[str | int]:
    return [each.get_json()["code"] if each.status_code >= 400 else each.status_code for each in answers]


def test_uploads_that_come_together_share_a_transaction(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seated, one transaction: each new name gets its row, the same bytes twice are one, others are refused."""
    gate = Gate(monkeypatch)
    files = [
        (name(1), demo(1)),
        (name(3), demo(3)),
        (name(2), demo(2)),
        (name(2), demo(2)),
        (name(4), demo(4)),
    ]
    files.append((name(1), demo(1, "Summary: other\n")))
    answers = gate.send(world, files)
    assert codes(answers) == [202, 202, 202, 202, 202, "file-exists"]
    assert gate.sizes == [1, 5]
    rows = world.submissions()
    assert sorted(row["served_name"] for row in rows) == [name(number) for number in (1, 2, 3, 4)]
    with world.run():
        world.quiet()
    assert {row["state"] for row in world.submissions()} == {"logged"}
    world.check()


def test_one_that_the_database_refuses_takes_nobody_along(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that is gone when the row is written: an error for that upload, and the rest is done alone."""

    def erase(asked: Sequence[Any]) -> Sequence[Any]:
        return [
            replace(each, uploader="f" * 32) if each.artifact.names.version == "3" else each for each in asked
        ]

    gate = Gate(monkeypatch, erase)
    answers = gate.send(world, [(name(number), demo(number)) for number in (1, 2, 3, 4)])
    assert codes(answers) == [202, 202, "internal", 202]
    assert gate.sizes == [1, 3, 1, 1, 1]
    assert sorted(row["version"] for row in world.submissions()) == ["1", "2", "4"]


def test_a_full_queue_takes_as_many_as_it_has_places(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest hears 503 and leaves no row."""
    world.settings = replace(world.settings, entries=Entries(queue_max=3))
    world.app = create_app(
        world.settings, clock=world.clock, engine=world.engine, registry=world.roles["registry"]
    )
    world.client = world.app.test_client()
    gate = Gate(monkeypatch)
    answers = gate.send(world, [(name(number), demo(number)) for number in (1, 2, 3, 4, 5)])
    assert gate.sizes == [1, 4]
    assert sorted(map(str, codes(answers))) == ["202", "202", "202", "busy", "busy"]
    assert len(world.submissions()) == 3
