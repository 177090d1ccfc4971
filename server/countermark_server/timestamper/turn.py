"""Whose turn it is to sign, and how it passes to a standby.

    number = turn.check(fence, store)             # the next one; RefusalError: it is not our turn
    turn.take_over(fence, store, fresh, lost=False)  # ours from now on, under a fresh name; UsageError: what the
                                                  # other one signed last isn't known

A timestamper signs when the fence's newest number is its own. One that wakes up after a standby took over finds
another name there and refuses; nobody gets the turn back by waiting. On a fence of its own folder nobody else can
have a turn, and only the numbers count.
"""

from __future__ import annotations

from countermark.errors import UsageError
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.fence import LEAD_MAX, Claim, Fence
from countermark_server.timestamper.store import Store


def check(fence: Fence, store: Store) -> int:
    """The number that this timestamper may try to win now. RefusalError: it may not.

    It is the one after all that were won by now. A standby that takes over later wins the same one, so that
    whoever was slow from here on loses; a look for the newest just before the win would let it jump ahead.
    """
    newest = fence.newest()
    own, won = _newest(store), _won(store)
    if fence.shared:
        _check_shared(fence, newest, own, won)
    _check_lead(newest, max(own, won))
    return 1 + max(0 if newest is None else newest.version, own, won if fence.shared else 0)


def _check_lead(newest: Claim | None, known: int) -> None:
    if newest is not None and newest.version > known + LEAD_MAX:
        raise RefusalError(
            "fence-ahead", f"the fence's newest number is {newest.version}, we know of {known}"
        )


def _check_shared(fence: Fence, newest: Claim | None, own: int, won: int) -> None:
    found = 0 if newest is None else newest.version
    if found < won:
        raise RefusalError("fence-back", f"number {won} was won in the fence, and its newest is {found}")
    if newest is None and own:
        raise RefusalError(
            "fence-empty", f"timestamp {own} was signed, and nobody ever won a number in the fence"
        )
    if newest is not None and newest.holder != fence.me.id:
        raise RefusalError(
            "taken-over",
            f"timestamper {newest.who} won number {newest.version}; this one ({fence.me.id}) may not sign",
        )
    if own > found > 0:
        raise RefusalError(
            "unfenced", f"timestamp {own} was signed without winning its number: {found} was won last"
        )


def take_over(fence: Fence, store: Store, fresh: str, *, lost: bool) -> Claim | None:
    """Make the next number ours and sign nothing with it; returns whose turn it was, None where nobody's.

    It is won under a fresh name, so that a copy of our database elsewhere has no turn. UsageError: what the last
    holder signed can't be known (`lost`: it never will be).
    """
    if not fence.shared:
        raise UsageError(
            "timestamper.fence names no fence that another timestamper sees: there is nothing to take over",
            hint="docs/operations/standby.md",
        )
    newest = fence.newest()
    _check_lead(newest, max(_newest(store), _won(store)))
    if not lost:
        _check_known(newest, store)
    with store.transaction():
        adopt_owed(newest, store)
    # If we stop here we know more of what must be logged, and the turn is whose it was.
    number = 1 + max(0 if newest is None else newest.version, _newest(store), _won(store))
    fence.named(fresh).claim(number, None, tuple(store.owed()))
    # Won: whoever held it refuses from now on. If we stop here nobody has that name; taking over again ends it.
    with store.transaction():
        store.set_fact("holder", fresh)
        store.set_fact("won", number)
    return newest


def adopt_owed(claim: Claim | None, store: Store) -> None:
    """What the winner of this number had signed and the log did not hold is for us to have logged, too."""
    if claim is not None:
        for version, sha256 in claim.owes:
            store.add_owed(version, sha256)


def _check_known(newest: Claim | None, store: Store) -> None:
    found, won = 0 if newest is None else newest.version, _won(store)
    hint = "wait until tufrepo has published it; if that state is gone for good: --take-over --lost"
    if found < won:
        raise UsageError(
            f"the fence's newest number is {found}, and {won} was won in it: it is another fence, or an old copy",
            hint="see that the right folder is there; if the fence is gone for good: --take-over --lost",
        )
    if newest is not None and newest.signs is not None and store.signed(newest.version) is None:
        raise UsageError(
            f"timestamper {newest.who} won number {newest.version}, and its timestamp is not public",
            hint=hint,
        )


def _newest(store: Store) -> int:
    newest = store.newest()
    return 0 if newest is None else newest.version


def _won(store: Store) -> int:
    return int(store.fact("won") or 0)
