"""Looking ahead: which questions a verification is going to ask, so that they can be asked together.

    of_files(view, artifacts, tick)     # bins, the entries that their targets name, the enrolments of the keys
    of_bins(view, paths, tick)          # the bins alone, for files that nobody has chosen yet

A list of files is verified one after the other, each through its bin, its entry and its key's enrolment (verify.py).
Which files hold those is known before: the snapshot says which version a bin has, the bins tree which bins are here
already, a target at which entry it was logged. So they are asked for side by side (prefetch.py), in four rounds, and
verification finds them there.

Nothing is decided here and no error is told: what goes wrong goes wrong again in its turn, where it has a name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from countermark.binfiles import Place
from countermark.bins import TILE_MAX_BYTES, read_leaf_hash
from countermark.entry import Entry
from countermark.errors import CountermarkError
from countermark.limits import BIN_MAX_BYTES, PREFETCH_FROM
from countermark.prefetch import Tick, Wanted
from countermark.trust import View
from countermark.tufjson import LEAK
from countermark.verified import Artifact


class _NotHereError(Exception):
    """A tile of the bins tree that would have to be asked for."""


def of_files(view: View, artifacts: Sequence[Artifact], tick: Tick) -> None:
    """What verifying these files will ask for."""
    paths = list(dict.fromkeys(each.target for each in artifacts if each.filename))
    if not view.online or len(paths) < PREFETCH_FROM:
        return
    with contextlib.suppress(CountermarkError, *LEAK):
        of_bins(view, paths, tick)
        targets = [target for target in map(view.target, paths) if target is not None]
        entries = view.log.ahead(target.index for target in targets)
        view.fetcher.bring(entries, tick)
        if len(entries) >= PREFETCH_FROM:  # else the keys' entries lie in the same few files
            publishes = [Entry.parse(view.log.entry(target.index)) for target in targets]
            keys = [entry.registry.get("key_index") for entry in publishes]
            view.fetcher.bring(view.log.ahead(key for key in keys if type(key) is int), tick)


def of_bins(view: View, paths: Sequence[str], tick: Tick) -> None:
    """The bins that these files are listed in, as far as they are not here: first the tree's tiles, then the bins."""
    if not view.online or len(paths) < PREFETCH_FROM:
        return
    with contextlib.suppress(CountermarkError, *LEAK):
        view.target(paths[0])  # brings the role that delegates to the bins
        files = view.moment.bin_files(paths[0])
        places = {files.place(path): path for path in paths}
        while names := _tiles_away(view, places):
            view.fetcher.bring([Wanted(view.tile_url(name), TILE_MAX_BYTES) for name in names], tick)
            for name in names:
                view.bins_tile(name)
        view.fetcher.bring(_bins_away(view, places), tick)


def _tiles_away(view: View, places: Iterable[Place]) -> list[str]:
    """The tiles that the way down to these bins meets first and that are not here, by name."""

    def here(name: str) -> bytes:
        if not view.has_tile(name):
            raise _NotHereError(name)
        return view.bins_tile(name)

    away: dict[str, None] = {}
    for _, number, bit_length in places:
        try:
            read_leaf_hash(here, index=number, bit_length=bit_length, root=view.timestamp.bins_root)
        except _NotHereError as error:
            away[str(error)] = None
    return list(away)


def _bins_away(view: View, places: Mapping[Place, str]) -> Iterator[Wanted]:
    """The bins that changed since this machine saw them, or that it never saw."""
    for place, path in places.items():
        role, version = place[0], view.moment.version_of(place[0])
        if version is not None and view.held_bin(path, place) is None:
            yield Wanted(f"{view.registry.metadata_url}/{version}.{role}.json", BIN_MAX_BYTES)
