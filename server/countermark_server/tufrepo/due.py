"""When the next publish is due, and what goes along because of its age.

    due        now: bins must change, a decision waits, an import ended, a ceremony brought something, an hour is over
    not yet    `tuf.min_interval` after the last one; a second after the timestamper did not answer
    renewals   bins near their expiry, a share of them at each heartbeat, so that no hour renews them all

Never due because the log grew: a `tuf` entry makes it grow, and would make the next one due (design, section 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tuf.api.metadata import Root

from countermark_server import db, telemetry
from countermark_server.listing import Target
from countermark_server.tufrepo import renewing, store
from countermark_server.tufrepo.candidate import Current
from countermark_server.tufrepo.parts import Parts
from countermark_server.tufrepo.pending import Pending
from countermark_server.tufrepo.relay import Relay

SNAPSHOT_RENEW = timedelta(days=3.5)  # before its expiry
BINS_RENEW = timedelta(days=10)
RENEW_SHARE = 20  # about one bin in so many is renewed at a heartbeat
RETRY_SECONDS = 1.0  # after the timestamper did not answer
BRIDGE_SECONDS = 5.0  # between two looks whether the timestamper has its new key


class Due:
    """The times of one repository. They are this process's own: a new one looks at once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._not_before = 0.0  # no publish earlier (min_interval)
        self._retry_at = 0.0  # no publish earlier (the timestamper did not answer)
        self._renewed_at = float("-inf")  # bins, by this process
        self._bridge_tried = False  # the newest publish was one for either root
        self._look_at = 0.0  # no sooner at whether it helped

    def unanswered(self) -> None:
        """The timestamper is out of reach: a publish without its unlogged timestamps would be in vain."""
        self._retry_at = self._parts.clock() + RETRY_SECONDS

    def proposed(self) -> None:
        """A publish was proposed just now."""
        self._not_before = self._parts.clock() + self._parts.min_interval

    @property
    def may_retry(self) -> bool:
        """Whether the timestamper may be asked again."""
        return self._parts.clock() >= self._retry_at

    def is_due(self, pending: Pending, renewal: Mapping[str, int] | None, relay: Relay, root: Root) -> bool:
        """Whether something waits that a publish would bring, and it may be written now."""
        now = self._parts.clock()
        return (
            self.may_retry
            and now >= self._not_before
            and (
                bool(pending.contents)
                or pending.status_since is not None
                or pending.imported
                or self._renewal_due(now, renewal, root)
                or self._heartbeat_due(now, relay)
            )
        )

    def renewals(self, current: Current, pending: Pending) -> dict[int, Mapping[str, Target]]:
        """A share of the bins whose expiry is near, the nearest first, to be signed again as they are.

        Once a heartbeat and whatever else happens: a busy registry has no heartbeats, but old bins.
        """
        now = self._parts.clock()
        if now - self._renewed_at < self._parts.heartbeat:
            return {}
        self._renewed_at = now
        near = [
            (record.expires, number)
            for number, record in enumerate(current.bins)
            if record.expires - now < BINS_RENEW.total_seconds()
        ]
        share = len(current.bins) // RENEW_SHARE + 1
        return {number: pending.bin(number) for _, number in sorted(near)[:share]}

    def snapshot_expiring(self, current: Current) -> bool:
        """Whether the snapshot is signed again, whatever changed."""
        return current.snapshot_expires - self._parts.clock() < SNAPSHOT_RENEW.total_seconds()

    # --- what a later ceremony brought (renewing.py) ---------------------------------------------------------------

    def renewal(self) -> dict[str, int] | None:
        """Versions that a later ceremony brought and no candidate names yet."""
        with db.read(self._parts.engine) as connection:
            return store.renewal(connection)

    def bridges(self, renewal: Mapping[str, int] | None, root: Root) -> bool:
        """Whether the publish being written is one for either root, and the renewal waits for the next."""
        self._bridge_tried = renewal is not None and not self._is_ready(renewal, root)
        return self._bridge_tried

    def _renewal_due(self, now: float, renewal: Mapping[str, int] | None, root: Root) -> bool:
        """Whether what a ceremony brought can be published now, or a publish for either root was not tried."""
        if renewal is None or now < self._look_at:
            return False
        if not self._bridge_tried or self._is_ready(renewal, root):
            return True
        telemetry.logger().error("what is public is not signed by the online keys that the new root names")
        self._look_at = now + BRIDGE_SECONDS
        return False

    def _is_ready(self, renewal: Mapping[str, int], root: Root) -> bool:
        return renewing.ready(self._parts.public, self._parts.keys, renewal, root)

    def _heartbeat_due(self, now: float, relay: Relay) -> bool:
        signed_at = relay.signed_at()
        return signed_at is not None and now - signed_at >= self._parts.heartbeat
