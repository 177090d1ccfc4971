"""Files of a namespace, which somebody else serves: those that `corp/widget==1.0` means, each looked up in the log.

    countermark yank corp/widget==1.0 --reason broken

Where they are logged and what to follow in `prev` is the API's hint; name and digest are the entry's. They are looked
up under the log's newest cosigned checkpoint, since no timestamp waits for entries that no TUF metadata lists.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from countermark.afterwards import Known, Owner
from countermark.countersign import newest
from countermark.entry import Entry
from countermark.errors import EvidenceError, MalformedError, NetworkError, PolicyError, UsageError
from countermark.fetch import decode_json
from countermark.logreader import LogReader
from countermark.names import normalise_version, parse_filename
from countermark.place import Place


def is_meant(wanted: str) -> bool:
    """Whether this names files of a namespace: corp/widget==1.0, and no path of a file here."""
    project, equals, _ = wanted.partition("==")
    return bool(equals) and "/" in project


def find(owner: Owner, wanted: str) -> list[Known]:
    """The files of this version. PolicyError: the namespace has none."""
    text, _, version = wanted.partition("==")
    place = Place.parse(text.strip())
    try:
        wants = normalise_version(version.strip(), strip_zeros=True)
    except MalformedError as error:
        raise UsageError(f'"{wanted}" is no NAMESPACE/PROJECT==VERSION: {error}') from None
    if not place.project:
        raise UsageError(f"{place} is all of a namespace: name one project of it")
    log = newest(owner)
    found = [
        _look_up(log, place, item) for item in _hints(owner, place) if _version(item["filename"]) == wants
    ]
    if not found:
        raise PolicyError(f"{owner.view.registry.url} has no file of {wanted}")
    return found


def _hints(owner: Owner, place: Place) -> list[dict[str, Any]]:
    url = (
        f"{owner.view.registry.url}/api/v1/namespaces/{place.namespace}/files/{quote(place.project, safe='')}"
    )
    raw = owner.fetcher.get(url, missing_ok=True)
    try:
        files: list[dict[str, Any]] = decode_json(raw)["files"] if raw else []
        return [item for item in files if isinstance(item["filename"], str)]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{url} is not a list of files we can read: {error!r}") from None


def _version(filename: str) -> str:
    return normalise_version(parse_filename(filename).version, strip_zeros=True)


def _look_up(log: LogReader, place: Place, item: dict[str, Any]) -> Known:
    index, filename, prev = item.get("index"), str(item["filename"]), item.get("prev")
    if type(index) is not int or index >= log.checkpoint.size:
        raise NetworkError(f"{filename} is not in the public log yet", hint="try again in a moment")
    statement = Entry.parse(log.entry(index)).statement
    said = statement and (statement.type, statement.subject_name, str(Place.of(statement.predicate)))
    if statement is None or said != ("publish", filename, str(place)):
        raise EvidenceError(f"{filename} of {place} is said to be entry #{index}, which is {said}")
    standing = str(item.get("standing", ""))
    return Known(
        str(place), filename, statement.subject_sha256, index, standing, None if prev is None else str(prev)
    )
