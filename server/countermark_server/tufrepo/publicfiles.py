"""A Fetcher over our own public tree: tufrepo reads the log from the same files that strangers do."""

from __future__ import annotations

from collections.abc import Mapping

from countermark.errors import NetworkError
from countermark.fetch import Answer
from countermark.limits import FETCH_MAX_BYTES
from countermark_server.stores.public import Public

SCHEME = "public:"


class PublicFiles:
    """`public:log/tile/0/000` is the file log/tile/0/000; everything read is verified by the reader."""

    def __init__(self, public: Public) -> None:
        self._public = public

    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        """The file's bytes."""
        raw = self._public.read(url.removeprefix(SCHEME).removeprefix("/"))
        if raw is None and not missing_ok:
            raise NetworkError(f"{url} is not in the public tree")
        if raw is not None and len(raw) > max_bytes:
            raise NetworkError(f"{url} has {len(raw)} bytes, more than {max_bytes}")
        return raw

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = FETCH_MAX_BYTES,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Answer:
        """Nothing is written through here."""
        raise NetworkError(f"{url}: the public tree takes no requests")
