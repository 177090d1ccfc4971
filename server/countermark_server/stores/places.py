"""Where this registry's stores are: folders of the data directory, or prefixes of one bucket.

    [storage]                                             data/public      -> registry/public/...
    bucket = "countermark"                                data/blobs       -> registry/blobs/...
    prefix = "registry"                                   data/staging     -> registry/staging/...

Everything that must outlive this machine is then in the database and the bucket; keys and lock files stay here.
"""

from __future__ import annotations

import functools
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from countermark.errors import MalformedError, UsageError
from countermark_server.settings import Settings, Storage
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.folder import Folder
from countermark_server.stores.promises import Place
from countermark_server.stores.public import Public
from countermark_server.stores.served import served

if TYPE_CHECKING:
    from countermark_server.stores.bucket import Bucket  # at run time only with the extra


def public(settings: Settings) -> Public:
    """The public trees."""
    return Public(place(settings, "public"))


def blobs(settings: Settings) -> Blobs:
    """Artifacts, their metadata files and findings."""
    return Blobs(place(settings, "blobs"))


def place(settings: Settings, name: str) -> Place:
    """The place of one store; private ones are readable by this service's account alone."""
    storage = settings.storage
    if not storage.bucket:
        return Folder(settings.data / name, private=name == "staging")
    return _bucket(storage, name, is_private=settings.access.mode != "public")


def fence(settings: Settings) -> Place:
    """Where timestampers win the numbers of their timestamps: our own folder, a shared one, or the bucket."""
    chosen = settings.timestamper.fence
    if not chosen:
        return Folder(settings.data / "timestamper" / "fence", private=True)
    if chosen == "bucket":
        if not settings.storage.bucket:
            raise UsageError("timestamper.fence is `bucket`, and storage.bucket names none")
        bucket = _bucket(settings.storage, "fence")
        bucket.check(secrets.token_hex(8))
        return bucket
    if not Path(chosen).is_absolute() or not Path(chosen).is_dir():  # never made here: it may not be mounted
        raise UsageError(f"timestamper.fence is {chosen}, which is not the absolute path of a folder")
    return Folder(Path(chosen))


def check(settings: Settings) -> None:
    """Refuse an object store that does not keep its promises; a folder always does."""
    if settings.storage.bucket:
        _bucket(settings.storage, "staging").check(secrets.token_hex(8))


@functools.cache
def _bucket(storage: Storage, name: str, *, is_private: bool = False) -> Bucket:
    try:
        from countermark_server.stores.bucket import Bucket, open_store  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "storage.bucket is set, and the client for it is not installed",
            hint="install the server with its extra `s3`, from the checkout: pip install ./client './server[s3]'",
        ) from None
    secret = ""
    if storage.secret_access_key_file:
        secret = Path(storage.secret_access_key_file).read_text(encoding="utf-8").strip()
    store = open_store(
        storage.bucket,
        endpoint=storage.endpoint,
        region=storage.region,
        access_key_id=storage.access_key_id,
        secret_access_key=secret,
    )
    prefix = f"{storage.prefix}/{name}" if storage.prefix else name
    headers = functools.partial(_headers, is_private=is_private)
    return Bucket(store, prefix, headers) if name == "public" else Bucket(store, prefix)


def _headers(name: str, *, is_private: bool) -> dict[str, str] | None:
    """What a public object is served with when readers ask the bucket itself, or a CDN before it.

    Where not everybody may read (`is_private`) neither should; a cache that does so all the same keeps nothing.
    """
    try:
        how = served(name)
    except MalformedError:
        return None  # lies there for auditors, who fetch it by other means (tuf/ceremony)
    cache = how.cache_control.replace("public", "private") if is_private else how.cache_control
    return {"Content-Type": how.content_type, "Cache-Control": cache}
