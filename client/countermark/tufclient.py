"""TUF's own client (ngclient), fenced in: our fetcher, our clock, our errors, and a cache it may not spoil.

    updater = refresh(registry, Recorder(fetcher), cache, now)      # root chain, timestamp, snapshot, targets
    with tuf_errors(url): updater.get_targetinfo(path)

It is called where something is new (moment.py). ngclient verifies signatures, thresholds, versions and expiries;
nothing of that is repeated here. What it lacks is added: a reference time of ours (for `--at`, and for judging a
cache in the grace period), the timestamp exactly as it was served, and an offline mode that is the same verification
over cached bytes, never a raw read.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.binfiles import TILES
from countermark.disk import copy_files, remove_file
from countermark.errors import EvidenceError, NetworkError, SignatureError, StaleError
from countermark.fetch import Fetcher, StatusError
from countermark.limits import FETCH_MAX_BYTES
from countermark.pins import Registry
from countermark.snapshotfile import quick

if TYPE_CHECKING:
    from tuf.ngclient import Updater
    from tuf.ngclient.fetcher import FetcherInterface


KEPT_WITHIN = ("root_history", TILES)  # the folders in the cache: ngclient's own, and ours


def refresh(registry: Registry, fetcher: Fetcher, cache: Path, now: int) -> Updater:
    """Root chain, timestamp, snapshot and targets by ngclient, from the pinned root, as of `now`."""
    from tuf.ngclient import Updater  # noqa: PLC0415

    with tuf_errors(registry.url):
        updater = Updater(
            metadata_dir=str(cache),
            metadata_base_url=registry.metadata_url,
            target_dir=str(cache),
            target_base_url=f"{registry.metadata_url}/targets",
            fetcher=tuf_fetcher(fetcher),
            bootstrap=registry.root,
        )
        set_reference_time(updater, now)
        read_snapshots_quickly(updater)
        updater.refresh()
    return updater


def tuf_fetcher(fetcher: Fetcher) -> FetcherInterface:
    """`fetcher` in the shape ngclient asks for."""
    from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError  # noqa: PLC0415
    from tuf.ngclient.fetcher import FetcherInterface  # noqa: PLC0415

    class Adapter(FetcherInterface):
        def download_bytes(self, url: str, max_length: int) -> bytes:
            try:
                data = fetcher.get(url, max_bytes=max_length, missing_ok=True)
            except StatusError as error:
                raise DownloadHTTPError(str(error), error.answer.status) from error
            if data is None:
                raise DownloadHTTPError(f"{url} answered 404", 404)
            if len(data) > max_length:
                raise DownloadLengthMismatchError(f"{url} is longer than {max_length} bytes")
            return data

        def _fetch(self, url: str) -> Iterator[bytes]:
            yield self.download_bytes(url, FETCH_MAX_BYTES)

    adapter: Any = Adapter()
    return adapter  # type: ignore[no-any-return]


def set_reference_time(updater: Updater, now: int) -> None:
    """Judge expiry at a time of ours: ngclient has no public way, and a test fails when this one moves."""
    if not isinstance(getattr(updater._trusted_set, "reference_time", None), datetime):
        raise RuntimeError("this version of tuf keeps its reference time elsewhere")
    updater._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)


def read_snapshots_quickly(updater: Updater) -> None:
    """Let ngclient read a snapshot without walking it (snapshotfile.py); no public way either, and a test as well."""
    load = getattr(updater._trusted_set, "_load_data", None)
    if load is None:
        raise RuntimeError("this version of tuf loads its metadata elsewhere")
    updater._trusted_set._load_data = quick(load)


def snapshot_of(updater: Updater) -> Any:
    """The snapshot that ngclient has verified: there is no public way, and a test fails when this one moves."""
    found = getattr(updater._trusted_set, "snapshot", None)
    if not isinstance(getattr(found, "meta", None), dict):
        raise RuntimeError("this version of tuf keeps its snapshot elsewhere")
    return found


def restore(cache: Path, original: Path) -> None:
    """Undo what a failed refresh left in the working copy."""
    for child in cache.iterdir():
        shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else remove_file(child)
    copy_files(original, cache, KEPT_WITHIN)


class RollbackError(EvidenceError):
    """TUF metadata with a lower version than what this machine has verified."""


@contextlib.contextmanager
def tuf_errors(url: str) -> Iterator[None]:
    """ngclient's errors as ours: what expired is stale, what went back or is unsigned is evidence."""
    from tuf.api import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.DownloadError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, NetworkError) else NetworkError(f"{url}: {error}") from error
    except exceptions.ExpiredMetadataError as error:
        if "root" in str(error):
            raise StaleError(
                f"the newest root of {url} has expired",
                hint="its operator must hold a ceremony; update if one was held",
            ) from error
        raise StaleError(f"{url} serves expired metadata: {error}", hint="its operator is late") from error
    except exceptions.BadVersionNumberError as error:
        raise RollbackError(f"rollback: {url} serves older metadata than before: {error}") from error
    except exceptions.UnsignedMetadataError as error:
        raise SignatureError(f"{url} is not the registry whose root is pinned here: {error}") from error
    except exceptions.RepositoryError as error:
        raise EvidenceError(f"{url} serves TUF metadata that contradicts itself: {error}") from error


class Recorder:
    """A Fetcher that remembers the timestamp as it was served."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self.timestamp = b""

    def get(self, url: str, **options: Any) -> bytes | None:
        raw = self.fetcher.get(url, **options)
        if url.endswith("/tuf/timestamp.json") and raw is not None:
            self.timestamp = raw
        return raw

    def post(self, url: str, body: bytes, **options: Any) -> Any:
        return self.fetcher.post(url, body, **options)


class Asked:
    """A Fetcher that may be asked ahead: whoever asks next for the same is given that answer, once, error or not."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._answers: dict[str, bytes | NetworkError | None] = {}

    def ahead(self, url: str, *, max_bytes: int) -> bytes | None:
        """The answer; None where there is no such file."""
        try:
            found = self._fetcher.get(url, max_bytes=max_bytes, missing_ok=True)
        except NetworkError as error:
            self._answers[url] = error
            raise
        self._answers[url] = found
        return found

    def get(self, url: str, **options: Any) -> bytes | None:
        if url not in self._answers:
            return self._fetcher.get(url, **options)
        answer = self._answers.pop(url)
        if isinstance(answer, NetworkError):
            raise answer
        return answer

    def post(self, url: str, body: bytes, **options: Any) -> Any:
        return self._fetcher.post(url, body, **options)


class Settled(Recorder):
    """A Fetcher for a moment that is settled: no newer root, this timestamp, and everything else as ever."""

    def __init__(self, recorder: Recorder, timestamp: bytes) -> None:
        super().__init__(recorder)
        self._settled = timestamp

    def get(self, url: str, **options: Any) -> bytes | None:
        if url.endswith("/tuf/timestamp.json"):
            return self._settled
        if url.endswith(".root.json"):
            return None
        return self.fetcher.get(url, **options)


class Cached(Settled):
    """A Fetcher of what is on this disk: the cached timestamp, and nothing that is not in the cache."""

    def get(self, url: str, **options: Any) -> bytes | None:
        if url.endswith(("/tuf/timestamp.json", ".root.json")):
            return super().get(url, **options)
        raise NetworkError(f"offline: {url} is not in the cache")
