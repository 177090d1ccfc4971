"""More bins: every target into its new bin, all of them written in the one publish that lists the new index.

    before    4,096 bins-000 .. bins-fff        index 1, bit length 12
    after    16,384 bins-0000 .. bins-3fff      index 2, bit length 14; bins-000 .. bins-fff stay in the snapshot

TUF lets no role leave a snapshot, so the names of fewer bins stay listed, at the version they had, for ever; nobody
delegates to them, nothing of theirs is signed again, and their files go like all replaced ones. Where names have
as many digits as before (13 to 14), the old ones are among the new ones and go on with their next version.

One publish means: no client sees some bins of the old number and some of the new. Timestamp, snapshot and index say
the same number, and a client that read the old timestamp finds all of the old files (retention.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from countermark.errors import EvidenceError
from countermark_server.listing import Target, bin_index
from countermark_server.tufrepo.candidate import Current

Contents = dict[int, Mapping[str, Target]]


def spread(
    current: Current, contents: Mapping[int, Mapping[str, Target]], bit_length: int
) -> tuple[Current, Contents]:
    """The ground of a candidate with so many bins, and what each holds; `contents` holds every bin there is now."""
    if bit_length < current.bit_length:
        raise EvidenceError(
            f"the index has 2^{bit_length} bins, 2^{current.bit_length} are listed: they only grow"
        )
    grown = replace(current, bit_length=bit_length, bins=())
    names = {grown.role(number) for number in range(1 << bit_length)}
    old = {current.role(number): record.version for number, record in enumerate(current.bins)}
    left = {role: version for role, version in {**current.left, **old}.items() if role not in names}
    found: dict[int, dict[str, Target]] = {number: {} for number in range(1 << bit_length)}
    for targets in contents.values():
        for path, target in targets.items():
            found[bin_index(path, bit_length)][path] = target
    return replace(grown, left=left), dict(found)
