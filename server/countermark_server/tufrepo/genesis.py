"""Where publishing starts: from the files of the ceremony, before anything was signed online.

The first publish writes every bin empty. Its `tuf` entry names the ceremony's files as this room found them, and
stands in the log's first checkpoint.
"""

from __future__ import annotations

from typing import Any

from tuf.api.metadata import Metadata, Targets

from countermark_server.stores.public import Public
from countermark_server.tufrepo.candidate import OFFLINE, Current, metadata_file
from countermark_server.tufrepo.renewing import TufrepoError

APPLIED = 3  # as many entries, whichever they are, stand before the genesis `tuf`; none lists a file


def before(public: Public) -> Current:
    """Nothing was ever signed: only the ceremony's index says how many bins there will be."""
    raw = public.read("tuf/1.index.json")
    delegations = Metadata[Targets].from_bytes(raw or b"{}").signed.delegations
    if delegations is None or delegations.succinct_roles is None:
        raise TufrepoError("1.index.json delegates to no bins")
    return Current(
        delegations.succinct_roles.bit_length, dict.fromkeys(OFFLINE, 1), (), None, None, 0, 0, None
    )


def adopted_files(public: Public) -> dict[str, dict[str, Any]]:
    """The ceremony's files, as the genesis entry names them. TufrepoError: one is missing."""
    return {role: _adopted(public, role) for role in ("root", *OFFLINE)}


def _adopted(public: Public, role: str) -> dict[str, Any]:
    raw = public.read(f"tuf/1.{role}.json")
    if raw is None:
        raise TufrepoError(f"1.{role}.json is missing from the public tree")
    return metadata_file(raw, 1)
