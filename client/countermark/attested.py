"""Attested: what the log says of the PEP 740 attestations that came with a file. Told, and never believed (ADR 37).

    told(view, outcome)      # the same outcome, with Attested(index=12, verified="yes", sha256="...") of each object

The registry looks at attestations where it has the library for that, and writes what it found into the log: `yes`,
`no` or `not-checked`. Its API says at which entries; each is read from the log here and must be about this file.
All of this comes after policy has decided, which does not see it: presence satisfies nothing, and nor does `yes`.
An answer that is missing or wrong tells nothing, and is no error.
"""

from __future__ import annotations

from urllib.parse import quote

from countermark.entry import Entry
from countermark.errors import CountermarkError
from countermark.limits import ATTESTATIONS_TOLD_MAX
from countermark.trust import View
from countermark.unlisted import ask
from countermark.values import replace
from countermark.verified import Attested, Outcome, Verified


def told(view: View, outcome: Outcome) -> Outcome:
    """A verified file with what is said of its attestations, the newest word on each; others as they are."""
    if not isinstance(outcome, Verified):
        return outcome
    artifact = outcome.artifact
    name = f"{quote(artifact.project, safe='')}/{quote(artifact.filename, safe='')}"
    listed = ask(view, f"/api/v1/files/{name}").get("attestations")
    items = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    named = sorted({each["entry"] for each in items if type(each.get("entry")) is int})
    found = (_read(view, index, outcome) for index in named[:ATTESTATIONS_TOLD_MAX])
    newest = {each.sha256: each for each in found if each is not None}
    return replace(outcome, attested=tuple(newest.values()))


def _read(view: View, index: int, outcome: Verified) -> Attested | None:
    """What one entry says, if it is about this file, and an attestation of that kind."""
    try:
        entry = Entry.parse(view.log.entry(index))
    except CountermarkError:
        return None
    if entry.type != "attest" or entry.statement is None:
        return None
    said = entry.statement.predicate
    if (said["kind"], said["about"]) != ("pep740", outcome.leaf_hash):
        return None
    return Attested(index, str(entry.registry["verified"]), str(said["statement_sha256"]))
