"""The fence: the number of the next timestamp is won, durably and once, before anything is signed with it.

    fence/58.json   {"holder":"9d0e63c1a5b2f748","host":"stamp-a","owes":[],"signs":"<hex SHA-256>","version":58}
    fence/59.json   {"holder":"51cc0f7e88d1a92b","host":"stamp-b","owes":[],"signs":null,"version":59}

One file a number, written once: of two processes with the same key one is first, and the other finds the file there.
`signs` is the SHA-256 of the signed part of the timestamp that the winner will sign, so nobody signs two contents of
one version, not after a crash, a restore or a pause either; a number that was won and not used is skipped. The newest
file says whose turn it is: a standby takes over by winning a number that it signs nothing with (`signs` null), and
whoever held the fence before refuses from then on. `owes` lists the timestamps that the winner had signed and the log
did not hold yet, as [version, SHA-256 of the file], so that whoever takes over can ask for them to be logged.

Old files go, the newest never does. So whoever looks again after winning, and finds nothing newer, has won: a number
whose file is gone lies below one that is still there.

The fence lies in the timestamper's own folder, where it guards against a restored database; or where a standby
sees it too (`timestamper.fence`). Who can write it can stop the timestamper, and with two running at once let them
sign one version twice; he can get nothing signed that the log does not demand.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from countermark.canonical import encode_canonical, parse_canonical
from countermark.errors import MalformedError
from countermark.limits import TIMESTAMPS_MAX
from countermark.statement import is_sha256
from countermark_server.stores.immutable import ConflictError
from countermark_server.stores.promises import Once
from countermark_server.timestamper.errors import RefusalError

KEPT = 64  # claims that stay for people to look at
LEAD_MAX = 1_000_000  # a fence further ahead than this is damaged: version numbers must never run out
CLAIM_MAX_BYTES = 16 * 1024
_NAME = re.compile(r"([1-9][0-9]{0,15})\.json")
_HOLDER = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Claim:
    """One number, and who won it for what."""

    version: int
    holder: str  # 16 hex digits, made at random by each timestamper's first start
    host: str  # for people: the name of its machine
    signs: str | None  # SHA-256 of the signed part; None: won to take over, nothing is signed with it
    owes: tuple[tuple[int, str], ...] = ()

    def format(self) -> bytes:
        """The file's bytes."""
        return encode_canonical({**asdict(self), "owes": [list(owed) for owed in self.owes]}) + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Claim:
        """Parse, format again, compare. MalformedError: these are not the bytes of a claim."""
        said = parse_canonical(raw.removesuffix(b"\n"), max_bytes=CLAIM_MAX_BYTES)
        try:
            owes = tuple((int(version), str(sha256)) for version, sha256 in said["owes"])
            claim = cls(said["version"], said["holder"], said["host"], said["signs"], owes)
            sound = (
                type(claim.version) is int
                and claim.version > 0
                and _HOLDER.fullmatch(claim.holder) is not None
                and isinstance(claim.host, str)
                and (claim.signs is None or is_sha256(claim.signs))
                and len(owes) <= TIMESTAMPS_MAX
                and all(is_sha256(sha256) and 0 < version < claim.version for version, sha256 in owes)
                and claim.format() == raw
            )
        except (LookupError, TypeError, ValueError):
            sound = False
        if not sound:
            raise MalformedError("not a claim of a timestamper's fence")
        return claim

    @property
    def who(self) -> str:
        """The winner, for people."""
        return f"{self.host} ({self.holder})"


@dataclass(frozen=True)
class Holder:
    """Who wins numbers here."""

    id: str
    host: str


class Fence:
    """One fence, as one holder sees it. RefusalError from every method: it can't be used now."""

    def __init__(self, place: Once, me: Holder, *, shared: bool) -> None:
        self._place = place
        self.me = me
        self.shared = shared  # others may hold it: then it is never begun, nor passed on, unasked

    def named(self, fresh: str) -> Fence:
        """The same fence under another name of ours."""
        return Fence(self._place, Holder(fresh, self.me.host), shared=self.shared)

    def newest(self) -> Claim | None:
        """The claim with the greatest number; None where nobody ever won one."""
        for _ in range(3):  # it may be removed between the two looks, once a greater one is there
            with _reachable():
                numbers = [
                    int(match[1]) for name in self._place.names("") if (match := _NAME.fullmatch(name))
                ]
            if not numbers:
                return None
            claim = self.read(max(numbers))
            if claim is not None:
                return claim
        raise RefusalError("fence-unreachable", "the fence's newest claim is named, and not there")

    def read(self, version: int) -> Claim | None:
        """The claim of one number, if it was won here and is still kept."""
        with _reachable():
            raw = self._place.read(f"{version}.json")
        if raw is None:
            return None
        try:
            claim = Claim.parse(raw)
        except MalformedError as error:
            raise RefusalError("fence-malformed", f"{version}.json of the fence: {error}") from None
        if claim.version != version:
            raise RefusalError("fence-malformed", f"{version}.json of the fence is for {claim.version}")
        return claim

    def claim(self, version: int, signs: str | None, owes: tuple[tuple[int, str], ...]) -> Claim:
        """Win this number, durably. RefusalError: another was first, or has moved on meanwhile."""
        # More wait only where the log is frozen, and there none of them can be logged any more.
        mine = Claim(version, self.me.id, self.me.host, signs, owes[-TIMESTAMPS_MAX:])
        try:
            with _reachable():
                self._place.write({f"{version}.json": mine.format()})
        except ConflictError:
            raise RefusalError("fence-lost", f"another timestamper won number {version} first") from None
        # Won. If we stop here, or anywhere before the signature is remembered, the number is skipped.
        newest = self.newest()
        if newest != mine:
            beyond = "gone" if newest is None else f"at {newest.version}, by {newest.who}"
            raise RefusalError("fence-lost", f"number {version} was won, and the fence is {beyond} already")
        self._clean(version)
        return mine

    def _clean(self, newest: int) -> None:
        """Remove claims that a later one has made history; what can't be removed now is next time."""
        with contextlib.suppress(OSError):
            for name in list(self._place.names("")):
                match = _NAME.fullmatch(name)
                if match and int(match[1]) <= newest - KEPT:
                    self._place.remove(name)


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    """A place that does not do what it is asked: nothing is signed until it does."""
    try:
        yield
    except OSError as error:
        raise RefusalError("fence-unreachable", f"the fence can't be used: {error}") from error
