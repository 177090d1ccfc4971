"""The simulator's registry with the real timestamper in the place of its own: nothing is signed unjudged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from countermark_server.stores.folder import Folder
from countermark_server.timestamper.fence import Fence, Holder
from countermark_server.timestamper.judge import Judge
from countermark_server.timestamper.service import Service
from countermark_server.timestamper.store import SignedTimestamp, Store
from tests.simulator import World


class TimestampedWorld(World):
    """Every honest `release` ends with the judge's own timestamp."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.store: Store | None = None
        super().__init__(**options)

    def open(self) -> Judge:
        """The timestamper, started anew on its database."""
        if self.store is not None:
            self.store.close()
        self.store = Store(self.folder / "timestamper.sqlite")
        self.judge = self.new_judge(self.store)
        self.judge.adopt_root(self.root)
        return self.judge

    def new_judge(self, store: Store, *, holder: str = "0a", shared: bool = False) -> Judge:
        """Another mind on the same fence."""
        fence = Fence(Folder(self.folder / "fence"), Holder(holder * 8, f"host-{holder}"), shared=shared)
        return Judge(store, [self.keys.tuf["timestamp"]], self, self.base, fence)

    def service(self, *, retry_interval: float = 2.0) -> Service:
        assert self.store is not None
        return Service(
            self.store,
            self.judge,
            self,
            self.base,
            clock=lambda: self.now,
            retry_interval=retry_interval,
        )

    def sign_timestamp(self, *, applied: int, **members: Any) -> bytes:
        self.attempt()
        return self.tuf["timestamp.json"]

    def attempt(self, *, recarry: bool = False) -> SignedTimestamp | None:
        """Let the judge decide, and publish what it signed."""
        if self.store is None:
            self.open()
        assert self.store is not None
        signed = self.judge.attempt(now=self.now, recarry=recarry)
        if signed is not None:
            self.tuf["timestamp.json"] = signed.raw
            self.versions["timestamp"] = signed.version
            self.logged_timestamps = self.store.unlogged()
        return signed

    def memory(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the timestamper's database."""
        assert self.store is not None
        tables = ("fact", "state", "target", "bin", "signed")
        return {table: sorted(self.store._connection.execute(f"SELECT * FROM {table}")) for table in tables}
