"""What the registry's API says of a project: who may sign for it, and what the next statement follows.

A hint. It decides what we sign next; the log's rules decide whether that was right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from countermark.errors import MalformedError
from countermark.fetch import Fetcher, decode_json
from countermark.pins import Registry
from countermark.place import Place
from countermark.values import dataclass


@dataclass(frozen=True)
class ProjectState:
    """A project's keys with the index of their enrolment, and how many of them sign a change.

    `project` is spelled as a place is (place.py). In a namespace its keys and jobs are among them, and the stricter
    of both decides how many people.
    """

    project: str
    prev: str | None
    keys: Mapping[str, int]
    threshold: int = 1  # how many of them must sign a further one's enrolment
    approvals: int = 0  # how many people must approve a release, and sign a change
    accounts: Mapping[str, str] | None = None  # keyid -> whose it is, as far as the API says
    signed: bool = True
    exists: bool = True
    publishers: tuple[Mapping[str, Any], ...] = ()  # the CI jobs that it trusts

    @classmethod
    def fetch(cls, fetcher: Fetcher, registry: Registry, project: str) -> ProjectState:
        raw = fetcher.get(registry.url + Place.parse(project).door("projects"), missing_ok=True)
        try:
            document = decode_json(raw) if raw else {"keys": [], "prev": None}
            prev = document["prev"]
            if (covering := document.get("covered_by")) is not None:
                document = _covered(document, covering)
            keys = {str(key["keyid"]): int(key["index"]) for key in document["keys"]}
            return cls(
                project,
                None if prev is None else str(prev),
                keys,
                int(document.get("threshold", 1)),
                int(document.get("approvals", 0)),
                {str(key["keyid"]): str(key["account"]) for key in document["keys"] if "account" in key},
                bool(document.get("signed", True)),
                bool(document.get("owners", True)),
                tuple(map(_publisher, document.get("publishers", ()))),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedError(
                f"{registry.url} describes {project} in a way we can't read: {error!r}"
            ) from None

    def lacking(self, keyids: Collection[str]) -> str | None:
        """What a change signed by these keys still lacks, in words; None: nothing.

        Keys count for the threshold, and people, whose keys they are, where approvals are required.
        """
        ours = [keyid for keyid in keyids if keyid in self.keys]
        people = {(self.accounts or {}).get(keyid, keyid) for keyid in ours}
        if len(ours) < self.threshold:
            return f"{len(ours)} of {self.threshold} keys have signed"
        if len(people) < self.approvals:
            return f"{len(people)} of {self.approvals} people have signed"
        return None if ours else "no key of the project has signed"


def _covered(document: Mapping[str, Any], covering: Mapping[str, Any]) -> dict[str, Any]:
    """A project and the namespace that covers it: what the rules make of both."""
    decides = document if document["keyed"] else covering
    return {
        **document,
        **{name: [*covering[name], *document[name]] for name in ("keys", "owners", "publishers")},
        "threshold": decides["threshold"],
        "approvals": max(int(document["approvals"]), int(covering["approvals"])),
        "signed": document["signed"] or covering["signed"],
    }


def _publisher(said: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        **{name: said[name] for name in ("id", "index", "leaf_hash", "ref")},
        **{name: str(said[name]) for name in ("issuer", "repository", "repository_id", "workflow")},
    }
