"""What was adopted from the ceremony: the files in public/tuf that say who this registry's log is.

    trust = trust_file(public)          # the newest trust file: origin, log keys, witness policy, authority key
    newest_root(public)                 # the bytes of the newest root that clients find, or None

Read by `log/`, `fsck` and `up` to learn the log's keys and the witness policy. They were verified when they
were adopted (`adoption.py`) and come from our own disk; clients verify them from their own root.
"""

from __future__ import annotations

import json
import re

from countermark.errors import MalformedError, UsageError
from countermark.trustfile import TrustFile
from countermark_server.stores.public import Public

_METADATA = re.compile(r"tuf/([1-9][0-9]*)\.trust\.json")


def trust_file(public: Public) -> TrustFile:
    """The trust file that the newest trust metadata names. UsageError: nothing was adopted yet."""
    versions = [int(match[1]) for name in public.names("tuf") if (match := _METADATA.fullmatch(name))]
    if not versions:
        raise UsageError(
            "this registry has no trust file yet", hint="hold a ceremony, then `countermark-server adopt`"
        )
    metadata = public.read(f"tuf/{max(versions)}.trust.json") or b""
    try:
        target = json.loads(metadata)["signed"]["targets"]["trust/trust.json"]
        raw = public.read(f"tuf/targets/trust/{target['hashes']['sha256']}.trust.json")
    except (ValueError, KeyError, TypeError):
        raise MalformedError(f"{max(versions)}.trust.json does not name a trust file") from None
    if raw is None:
        raise MalformedError(f"the trust file that {max(versions)}.trust.json names is missing")
    return TrustFile.parse(raw)


def newest_root(public: Public) -> bytes | None:
    """The newest root that clients find, counted up from the first as they do: roots have no gaps. None: no root."""
    newest, version = None, 1
    while (raw := public.read(f"tuf/{version}.root.json")) is not None:
        newest, version = raw, version + 1
    return newest
