"""Mirrors: other places that serve a registry's files, asked when the registry itself does not answer.

    fetcher = fetcher_for(registry)             # HttpFetcher, or a Mirrored one where mirrors are named
    fetcher.get("https://registry.example/tuf/12.snapshot.json")      # from whoever answers first
    fetcher.prefer("https://mirror.example")    # the next question goes there first

A mirror is a copy of the static trees under another URL, and trusted with nothing: everything is asked under the
registry's own name, and verified as if the registry had answered. So any file may come from any source. What must
not be mixed is the moment, and that is the timestamp's: trust.py asks one source after the other for a moment that
verifies, and says in every result who had none.

A source that did not answer is asked last from then on. Each but the last of them has MIRROR_DEADLINE for an answer
instead of FETCH_DEADLINE, so that a slow one delays a run once, and not at each file. An answer of 404 counts where
a file may be missing, and is no answer where it may not: a mirror in the middle of a sync does not have it yet.

What somebody hands in, and what the registry's API says, comes from the registry alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from countermark.credentials import Credentials
from countermark.errors import NetworkError
from countermark.fetch import Answer, FileFetcher, HttpFetcher, StatusError
from countermark.limits import FETCH_MAX_BYTES, MIRROR_DEADLINE
from countermark.pins import Registry
from countermark.values import dataclass

Found = TypeVar("Found")
TREES = ("tuf", "log", "simple", "packages", "blobs")  # what a mirror has


@dataclass(frozen=True)
class Source:
    """One place, and how it is asked."""

    url: str
    fetcher: FileFetcher


def fetcher_for(registry: Registry, credentials: Credentials | None = None) -> FileFetcher:
    """The real network, as far as this machine knows where to ask. `credentials`: None for those of this user."""
    if not registry.mirrors:
        return HttpFetcher(credentials=credentials)
    *urls, last = (registry.url, *registry.mirrors)
    hurried = HttpFetcher(deadline=MIRROR_DEADLINE, credentials=credentials)
    return Mirrored(
        [*(Source(url, hurried) for url in urls), Source(last, HttpFetcher(credentials=credentials))]
    )


class Mirrored:
    """A Fetcher over several sources, the registry itself first. Safe to share between threads."""

    def __init__(self, sources: Sequence[Source], asked: Sequence[Source] | None = None) -> None:
        self._origin = sources[0]
        self._order = tuple(sources if asked is None else asked)

    @property
    def urls(self) -> tuple[str, ...]:
        """Every source, the one that is asked first in front."""
        return tuple(source.url for source in self._order)

    def prefer(self, url: str) -> None:
        """Ask this one first from now on."""
        self._order = tuple(sorted(self._order, key=lambda source: source.url != url))

    def alone(self, url: str) -> Mirrored:
        """This one source, for what must be of one moment."""
        return Mirrored([self._origin], [source for source in self._order if source.url == url])

    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        """The first answer of any source; what the first of them said where none has one."""

        def ask(source: Source, url: str) -> bytes | None:
            return source.fetcher.get(url, max_bytes=max_bytes, missing_ok=missing_ok, headers=headers)

        return self._first(url, ask)

    def chunks(self, url: str, *, max_bytes: int) -> Iterator[bytes]:
        """The same for files of any size; after its first piece a file comes from one source or not at all."""

        def ask(source: Source, url: str) -> tuple[bytes, Iterator[bytes]]:
            pieces = source.fetcher.chunks(url, max_bytes=max_bytes)
            return next(pieces, b""), pieces

        first, rest = self._first(url, ask)
        yield first
        yield from rest

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        return self._origin.fetcher.post(url, body, **options)

    def _first(self, url: str, ask: Callable[[Source, str], Found]) -> Found:
        path = url.removeprefix(self._origin.url)
        if path == url or urlsplit(path).path.split("/")[1] not in TREES:
            return ask(self._origin, url)
        failed: NetworkError | None = None
        for source in self._order:
            try:
                return ask(source, source.url + path)
            except NetworkError as error:
                failed = failed or error
                if (
                    not isinstance(error, StatusError) or error.answer.status != 404
                ):  # it lacks more than a file
                    self._order = (*(s for s in self._order if s is not source), source)
        assert failed is not None
        raise failed
