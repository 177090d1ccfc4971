"""The ceremony before this one, read from its output folder and verified: what a later ceremony builds on.

    root-2/2.root.json 2.targets.json 3.trust.json 2.index.json    what is in force, renewed or not
    root-2/targets/trust/<sha256>.trust.json                       the trust file in force
    root-2/plan.toml transcript.jsonl transcript-signatures.jsonl root-words.txt
    root-2/history/1/...                                           the folders of all ceremonies before it

Every folder carries the whole history, some 30 kB a ceremony, so one folder is enough to check all of it
(history.py), to hold the next ceremony, or to hand to a stranger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root, SuccinctRoles, Targets

from countermark.errors import CountermarkError, EvidenceError, MalformedError
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark_ceremony.handover import fingerprint, key_spki
from countermark_ceremony.tables import OFFLINE_ROLES
from countermark_ceremony.transcript import Transcript

PLAN = "plan.toml"
TRANSCRIPT, SIGNATURES = "transcript.jsonl", "transcript-signatures.jsonl"
HISTORY = "history"
_METADATA = re.compile(rf"([1-9][0-9]{{0,8}})\.({'|'.join(OFFLINE_ROLES)})\.json")
_HISTORY = re.compile(rf"{HISTORY}/([1-9][0-9]{{0,3}})/(.+)")


@dataclass(frozen=True)
class Previous:
    """One finished ceremony. Made by history.py alone, which verified it."""

    number: int  # 1 is the first ceremony
    files: Mapping[str, bytes]  # its own, without history
    metadata: Mapping[str, Metadata[Any]]  # by role
    names: Mapping[str, str]  # file name of each role
    trust_file: TrustFile
    transcript: Transcript
    signatures: Transcript

    @property
    def root(self) -> Root:
        """The root in force."""
        return cast(Root, self.metadata["root"].signed)

    @property
    def targets(self) -> Targets:
        """The targets role in force."""
        return cast(Targets, self.metadata["targets"].signed)

    @property
    def trial(self) -> bool:
        """Whether this root calls its registry a trial."""
        return self.root.unrecognized_fields.get("x-countermark-trial") is True

    @property
    def accepted(self) -> list[str]:
        """Digests of the trust files that the root accepts without delay."""
        return list(self.root.unrecognized_fields["x-countermark-trust"])

    @property
    def held_at(self) -> datetime:
        """When its last line was written."""
        time = json.loads(self.signatures.lines[-1])["time"]
        return datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)

    def role(self, name: str) -> tuple[Role, dict[str, str]]:
        """Who may sign as an offline role: the delegation, and the keyid of each fingerprint."""
        if name in self.root.roles:
            role, keys = self.root.roles[name], self.root.keys
        else:
            delegations = self.targets.delegations
            if delegations is None or delegations.roles is None:
                raise MalformedError("targets delegates to nobody")
            role, keys = delegations.roles[name], delegations.keys
        return role, {fingerprint(key_spki(cast(SSlibKey, keys[each]))): each for each in role.keyids}

    @property
    def bins(self) -> SuccinctRoles:
        """The delegation to all bins."""
        index = cast(Targets, self.metadata["index"].signed).delegations
        if index is None or index.succinct_roles is None:
            raise MalformedError("index delegates to no bins")
        return index.succinct_roles

    def online(self) -> dict[str, str]:
        """Fingerprint of each online TUF key, to its role."""
        index = cast(Targets, self.metadata["index"].signed).delegations
        assert index is not None  # or there would be no bins
        named = [(keyid, index.keys[keyid], "bins") for keyid in self.bins.keyids]
        for role in ("snapshot", "timestamp"):
            named += [(keyid, self.root.keys[keyid], role) for keyid in self.root.roles[role].keyids]
        return {fingerprint(key_spki(cast(SSlibKey, key))): f"TUF {role}" for _, key, role in named}


def split(files: Mapping[str, bytes]) -> list[dict[str, bytes]]:
    """The folders of all ceremonies in one output folder, the first one first."""
    levels: dict[int, dict[str, bytes]] = {}
    newest: dict[str, bytes] = {}
    for name, content in files.items():
        if match := _HISTORY.fullmatch(name):
            levels.setdefault(int(match[1]), {})[match[2]] = content
        elif not name.startswith("trial/"):
            newest[name] = content
    if sorted(levels) != list(range(1, len(levels) + 1)):
        raise MalformedError(f"the history holds ceremonies {sorted(levels)}: one is missing")
    return [*(levels[number] for number in sorted(levels)), newest]


def join(levels: list[Mapping[str, bytes]]) -> dict[str, bytes]:
    """The opposite of `split`."""
    files = dict(levels[-1])
    for number, level in enumerate(levels[:-1], start=1):
        files |= {f"{HISTORY}/{number}/{name}": content for name, content in level.items()}
    return files


def check_plan(files: Mapping[str, bytes], transcript: Transcript) -> None:
    """EvidenceError where a plan lies in a folder and is not the one that its transcript names.

    Folders of earlier programs have none; nothing that is served needs one.
    """
    stated = json.loads(transcript.lines[0]).get("plan_sha256")
    if PLAN in files and fingerprint(files[PLAN]) != stated:
        raise EvidenceError(f"this {PLAN} is not the one that the transcript names, {stated}")


def read(number: int, files: Mapping[str, bytes], before: Previous | None) -> Previous:
    """What is in one folder; the transcript's chain is checked, no signature is yet."""
    try:
        return _read(number, files, before)
    except CountermarkError:
        raise
    except KeyError as error:
        raise MalformedError(f"ceremony {number} has no {error}") from error
    except (RepositoryError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise MalformedError(f"ceremony {number} is malformed: {error}") from error


def _read(number: int, files: Mapping[str, bytes], before: Previous | None) -> Previous:
    names: dict[str, str] = {}
    for name in files:
        if (match := _METADATA.fullmatch(name)) and names.setdefault(match[2], name) != name:
            raise MalformedError(f"ceremony {number} has {names[match[2]]} and {name}: one is in force")
    metadata: dict[str, Metadata[Any]] = {}
    for role in OFFLINE_ROLES:
        metadata[role] = Metadata.from_bytes(files[names[role]])
        wanted, version = Root if role == "root" else Targets, metadata[role].signed.version
        if not isinstance(metadata[role].signed, wanted) or names[role] != f"{version}.{role}.json":
            raise MalformedError(f"{names[role]} holds {metadata[role].signed.type} version {version}")
    target = metadata["trust"].signed.targets[TARGET_PATH]
    trust_raw = files[f"targets/trust/{target.hashes['sha256']}.trust.json"]
    target.verify_length_and_hashes(trust_raw)
    transcript = Transcript.parse(files[TRANSCRIPT], after=before.signatures if before else None)
    signatures = Transcript.parse(files[SIGNATURES], after=transcript)
    return Previous(number, files, metadata, names, TrustFile.parse(trust_raw), transcript, signatures)
