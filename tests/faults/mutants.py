"""Faults planted in the sequencer, which the walk must see: each breaks one promise of the commit order."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from countermark_server import db
from countermark_server.log.publish import Publisher
from countermark_server.log.sequence import Sequencer
from countermark_server.log.station import Station
from countermark_server.stores import folder, immutable


def no_sync() -> None:
    """A store that gives a file its name before its bytes are on the disk."""
    real = os.fsync

    def only_folders(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            real(descriptor)

    os.fsync = only_folders


def no_folder_sync() -> None:
    """A store that never makes its names durable."""
    folder.sync_folder = immutable.sync_folder = lambda _: None  # type: ignore[assignment]


def publish_before_commit() -> None:
    """A sequencer that lets tiles and checkpoint out before its head is committed."""
    real_write, real_round = db.write, Sequencer._round
    stations: list[Station] = []
    real_start = Station.check_start

    @functools.wraps(real_start)
    def start(self: Station, **options: float) -> None:
        stations.append(self)
        real_start(self, **options)

    def rounds(self: Sequencer, *given):
        @contextmanager
        def early(engine):
            with real_write(engine) as connection:
                yield connection
                bundle = found[0]
                self._apply(*bundle)
                verified = stations[-1].publisher.cosigned(bundle[1])
                self._public.replace("log/checkpoint", verified.raw)

        found: list = []
        real_swap = Sequencer._opened

        def opened(inner, head, *at):
            checkpoint = real_swap(inner, head, *at)
            found.append((inner._staging.read(head.staging), checkpoint))
            return checkpoint

        db.write, Sequencer._opened = early, opened
        try:
            return real_round(self, *given)
        finally:
            db.write, Sequencer._opened = real_write, real_swap

    Station.check_start, Sequencer._round = start, rounds  # type: ignore[method-assign,assignment]


def acknowledge_before_public() -> None:
    """A publisher that tells the waiting before the checkpoint is public."""
    real = Publisher.publish

    def early(self: Publisher, checkpoint):
        self.settle(checkpoint.size)
        return real(self, checkpoint)

    Publisher.publish = early  # type: ignore[method-assign]


def replace_in_place() -> None:
    """A store that writes the checkpoint over the old one instead of beside it."""

    def in_place(path: Path, data: bytes) -> None:
        path.touch()
        path.chmod(0o644)
        with path.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    folder.replace_file = in_place  # type: ignore[assignment]


MUTANTS: dict[str, Callable[[], None]] = {
    "no sync": no_sync,
    "no folder sync": no_folder_sync,
    "publish before commit": publish_before_commit,
    "acknowledge before public": acknowledge_before_public,
    "replace in place": replace_in_place,
}
